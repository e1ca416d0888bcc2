"""Images with their objects: boxes and classes."""

import hashlib
import json
import pathlib
from typing import NamedTuple

import numpy as np

from pic_tf.evals.detection.voc_metric import Objects


class Picture(NamedTuple):
    """An image with its objects.

    Attributes:
      path: the image file.
      described: the file that describes its objects.
      height, width: in pixels.
      objects: the objects; boxes are of edges, see `voc_metric.Objects`.
    """

    path: pathlib.Path
    described: pathlib.Path
    height: int
    width: int
    objects: Objects


class Annotated(NamedTuple):
    """A data set of images with objects.

    Attributes:
      name: the name of the data set in messages.
      pictures: the images, in order.
      class_names: names of the classes, by their numbers.
    """

    name: str
    pictures: tuple[Picture, ...]
    class_names: tuple[str, ...]

    def fingerprint(self) -> str:
        """Hash names, sizes and objects."""
        digest = hashlib.sha256(json.dumps(self.class_names).encode())
        for picture in self.pictures:
            digest.update(f"{picture.path} {picture.height} {picture.width}".encode())
            digest.update(b"".join(array.tobytes() for array in picture.objects))
        return digest.hexdigest()


def checked(picture: Picture) -> Picture:
    """Check the boxes of an image.

    Returns:
      The image.

    Raises:
      ValueError: for a box without an area, or one that reaches beyond the image.
    """
    height, width, boxes = picture.height, picture.width, picture.objects.boxes
    inside = (boxes >= 0).all(1) & (boxes[:, 2] <= width) & (boxes[:, 3] <= height)
    fine = inside & (boxes[:, 2:] > boxes[:, :2]).all(1)
    if not fine.all():
        box = boxes[int(np.argmin(fine))].tolist()
        raise ValueError(
            f"expected boxes with an area inside of the image of {width} x {height} pixels in "
            f"{str(picture.described)!r}, got edges {box} for {picture.path.name}: correct it"
        )
    return picture
