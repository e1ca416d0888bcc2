"""Images with their objects: boxes and classes."""

import hashlib
import json
import pathlib
from collections.abc import Sequence
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


def joined(parts: Sequence[Annotated]) -> Annotated:
    """Put data sets of the same classes together.

    Raises:
      ValueError: where their classes differ, or they have no images.
    """
    for part in parts[1:]:
        check_classes(parts[0], part)
    pictures = tuple(picture for part in parts for picture in part.pictures)
    return Annotated(", ".join(part.name for part in parts), pictures, parts[0].class_names)


def check_classes(one: Annotated, other: Annotated) -> None:
    """Raise ValueError unless two data sets have the same classes."""
    if one.class_names != other.class_names:
        apart = sorted(set(one.class_names) ^ set(other.class_names))
        raise ValueError(
            f"expected the same classes in {one.name!r} and {other.name!r}, got {apart[0]!r} in "
            "one of them alone: name data sets that belong together"
        )
