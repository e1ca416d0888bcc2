"""Define a source of images: `len`, images by instance id, optional labels."""

from typing import Protocol

import numpy as np
import tensorflow as tf

from pic_tf.data.sources.pixel_format import PixelFormat


class Source(Protocol):
    """Random access to N images.

    Attributes:
      name: the name of the images in messages.
      labels: int64 [N], or None.
      class_names: one name a label, or ().
      unlabelled: the reason why there are no labels, in a few words, or "".
      folder: folder of the files, "" for images without files.
      pixels: channels and bits of the images, as they are read.
    """

    name: str
    labels: np.ndarray | None
    class_names: tuple[str, ...]
    unlabelled: str
    folder: str

    @property
    def pixels(self) -> PixelFormat: ...

    def __len__(self) -> int: ...

    def path(self, instance_id: int) -> str:
        """The name of an instance in messages."""

    def fingerprint(self) -> str:
        """A text that changes if, and only if, an id comes to stand for another image."""

    def read(self, instance_ids: tf.Tensor) -> tf.Tensor:
        """Read images of int64 [b] ids in the graph: encoded string [b] or [b, H, W, C]."""
