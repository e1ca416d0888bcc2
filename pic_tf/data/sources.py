"""Where images come from. A source is `len`, images by instance id, and optional labels."""

import dataclasses
import hashlib
import os
import pathlib
from typing import ClassVar, Protocol

import numpy as np
import tensorflow as tf

# Not BMP: TensorFlow reads its palettes as gray levels.
_MAGIC = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF8")
_EXTENSIONS = (".jpg", ".jpeg", ".png", ".gif")
_MAX_CHECKED = 10_000  # files whose first bytes are looked at before a run starts


class Source(Protocol):
    """Random access to N images.

    Attributes:
      name: what to call it in messages.
      labels: int64 [N], or None.
      class_names: one name a label, or ().
      folder: where its files are, "" where it has none.
    """

    name: str
    labels: np.ndarray | None
    class_names: tuple[str, ...]
    folder: str

    def __len__(self) -> int: ...

    def path(self, instance_id: int) -> str:
        """What to call an instance in messages."""

    def fingerprint(self) -> str:
        """Changes where an id comes to stand for another image, and only there."""

    def read(self, instance_ids: tf.Tensor) -> tf.Tensor:
        """Images of `instance_ids` (int64 [b]) as a graph op: string [b] (encoded) or uint8 [b, H, W, 3]."""


@dataclasses.dataclass(frozen=True, eq=False)
class ArraySource:
    """Images of one size held in memory.

    Attributes:
      images: uint8 [N, H, W, 3].
      labels: integer [N], or None.
      class_names: one name a label, or ().
      name: what to call it in messages.

    Raises:
      ValueError: for another shape or dtype, or labels of another length.
    """

    images: np.ndarray
    labels: np.ndarray | None = None
    class_names: tuple[str, ...] = ()
    name: str = "array"
    folder: ClassVar[str] = ""

    def __post_init__(self) -> None:
        images = np.asarray(self.images)
        if images.ndim != 4 or images.shape[-1] != 3 or images.dtype != np.uint8 or not len(images):
            raise ValueError(
                f"expected images uint8 [N, H, W, 3] with N >= 1, got {images.dtype} {list(images.shape)}: "
                "repeat a gray channel three times and scale to 0..255"
            )
        if self.labels is not None and np.shape(self.labels) != (len(images),):
            raise ValueError(f"expected labels [{len(images)}], one an image, got {list(np.shape(self.labels))}")
        object.__setattr__(self, "images", images)
        if self.labels is not None:
            object.__setattr__(self, "labels", np.asarray(self.labels, np.int64))

    def __len__(self) -> int:
        return len(self.images)

    def path(self, instance_id: int) -> str:
        """What to call an instance in messages."""
        return f"{self.name}[{instance_id}]"

    def fingerprint(self) -> str:
        """Hash of the pixels."""
        return hashlib.sha256(np.ascontiguousarray(self.images)).hexdigest()

    def read(self, instance_ids: tf.Tensor) -> tf.Tensor:
        """uint8 [b, H, W, 3] images of int64 [b] ids."""
        images = tf.numpy_function(lambda ids: self.images[ids], [instance_ids], tf.uint8, stateful=False)
        return tf.ensure_shape(images, [*instance_ids.shape, *self.images.shape[1:]])


@dataclasses.dataclass(frozen=True, eq=False)
class FolderSource:
    """A folder of image files, any nesting; ids follow the sorted relative paths.

    Where every file lies in a sub-folder and there are at least two of them, the first folder
    names the class; otherwise there are no labels.

    Attributes:
      folder: the folder.
      paths: relative paths of the images, one an instance.
      labels: int64 [N], or None.
      class_names: the class folders, sorted, or ().
      name: what to call it in messages.
    """

    folder: str
    paths: tuple[str, ...]
    labels: np.ndarray | None
    class_names: tuple[str, ...]
    name: str

    def __post_init__(self) -> None:
        # Once, not in every graph; as bytes, since a file name need not be UTF-8.
        files = tf.constant([os.fsencode(os.path.join(self.folder, path)) for path in self.paths])
        object.__setattr__(self, "_files", files)

    def __len__(self) -> int:
        return len(self.paths)

    def path(self, instance_id: int) -> str:
        """The file of an instance."""
        return os.path.join(self.folder, self.paths[instance_id])

    def fingerprint(self) -> str:
        """Hash of the relative paths, so the folder itself may move."""
        return hashlib.sha256(b"\0".join(map(os.fsencode, self.paths))).hexdigest()

    def read(self, instance_ids: tf.Tensor) -> tf.Tensor:
        """string [b], the files' bytes, of int64 [b] ids."""
        files = tf.gather(self._files, instance_ids)
        return tf.map_fn(tf.io.read_file, files, fn_output_signature=tf.string)


def open_folder(
    folder: str | os.PathLike, class_names: tuple[str, ...] = (), seed: int = 0, max_broken: float = 0.01
) -> FolderSource:
    """List a folder of images and check that they are images.

    The first bytes of the files (of 10,000 drawn by `seed` where there are more) must be those of a JPEG, PNG or GIF,
    but for a few: those turn out to be broken when their turn comes. Hidden files and files with other extensions are
    passed over.

    Args:
      folder: path of the folder.
      class_names: classes that its class folders must be among, to number the labels by; () for its own.
      seed: which files to check where there are too many to check all.
      max_broken: share of the files that may begin otherwise.

    Returns:
      The source.

    Raises:
      ValueError: a missing or empty folder, files that are not what their names say, or a class that
        is not among `class_names`.
    """
    root = pathlib.Path(folder)
    if not root.is_dir():
        what = "a file" if root.exists() else "nothing"
        raise ValueError(f"expected a folder of images at {str(root)!r}, got {what} there: check the path")
    paths = [path for path in files_below(root) if path.lower().endswith(_EXTENSIONS)]
    if not paths:
        raise ValueError(f"expected images ({', '.join(_EXTENSIONS)}) in {str(root)!r}, got none: check the path")
    checked = range(len(paths))
    if len(paths) > _MAX_CHECKED:
        checked = np.random.default_rng(seed).choice(len(paths), _MAX_CHECKED, replace=False)
    others = []
    for i in checked:
        try:
            with open(root / paths[i], "rb") as file:
                head = file.read(8)
        except OSError as error:
            raise ValueError(
                f"expected a readable image at {str(root / paths[i])!r}, got {error.strerror}: remove or replace it"
            ) from error
        if not head.startswith(_MAGIC):
            others.append((paths[i], head))
    if len(others) > max_broken * len(checked):
        path, head = others[0]
        raise ValueError(
            f"expected a JPEG, PNG or GIF image in {str(root / path)!r}, got a file that starts with {head!r}, as "
            f"{len(others):,} of {len(checked):,} do not begin as images: remove or replace them, or allow more "
            "(--max_broken)"
        )
    tops = [path.split(os.sep)[0] if os.sep in path else "" for path in paths]
    found = sorted(set(tops))
    if "" in found or (len(found) < 2 and not class_names):
        return FolderSource(str(root), tuple(paths), None, (), str(root))
    names = class_names or tuple(found)
    number = {name: i for i, name in enumerate(names)}
    for name in found:
        if name not in number:
            raise ValueError(
                f"expected the classes in {str(root)!r} to be among the training set's {len(names)}, got {name!r} "
                "besides: name the folders alike"
            )
    labels = np.array([number[top] for top in tops], np.int64)
    return FolderSource(str(root), tuple(paths), labels, names, str(root))


def files_below(root: pathlib.Path) -> list[str]:
    """Sorted relative paths of all files that are not hidden; a folder that links lead to twice is read once.

    Raises:
      ValueError: for a folder that cannot be read.
    """
    paths, seen = [], set()

    def refuse(error: OSError) -> None:
        raise ValueError(
            f"expected a readable folder at {error.filename!r}, got {error.strerror}: change its mode or remove it"
        ) from error

    for directory, folders, files in os.walk(root, onerror=refuse, followlinks=True):
        real = os.path.realpath(directory)
        folders[:] = [] if real in seen else [f for f in folders if not f.startswith(".")]
        if real in seen:
            continue
        seen.add(real)
        inside = os.path.relpath(directory, root)
        paths += [os.path.normpath(os.path.join(inside, f)) for f in files if not f.startswith(".")]
    return sorted(paths)


def digits(split: str) -> ArraySource:
    """scikit-learn's 1,797 real 8 x 8 scans of handwritten digits: 1,500 to train on, 297 held out.

    Args:
      split: "train" or "held_out".

    Returns:
      The source; gray levels 0..16 become 0..255 in three equal channels.

    Source: https://archive.ics.uci.edu/dataset/80 (test part), as shipped with scikit-learn.
    """
    from sklearn.datasets import load_digits  # slow to import, needed by the quickstart only

    data = load_digits()
    images = np.repeat(np.rint(data.images * (255 / 16)).astype(np.uint8)[..., None], 3, axis=-1)
    # A fixed draw, as usual for this set. The scans lie in an order in which the last ones differ in kind: held out
    # alone, they cap a supervised support vector machine at 0.953, where a random part of the same size allows 0.99.
    shuffled = np.random.default_rng(0).permutation(len(images))
    part = shuffled[:1500] if split == "train" else shuffled[1500:]
    return ArraySource(images[part], data.target[part], tuple(str(c) for c in range(10)), f"digits ({split})")
