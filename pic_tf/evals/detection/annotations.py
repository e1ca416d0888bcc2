"""Images with their objects: boxes and classes."""

import functools
import hashlib
import json
import pathlib
from collections.abc import Callable
from typing import BinaryIO, NamedTuple

import numpy as np
from PIL import Image

from pic_tf.evals.detection.voc_metric import Objects
from pic_tf.evals.transfer.datasets import PictureSet


class Picture(NamedTuple):
    """An image with its objects.

    Attributes:
      path: the image file, or a file of records and the number of the image's own.
      described: the file that describes its objects, or the folder of the records.
      height, width: in pixels.
      objects: the objects; boxes are of edges, see `voc_metric.Objects`.
      open: opens the encoded image.
      crowds: groups that nobody counted, one box each, all difficult: they are not learned from,
        and COCO's metric asks for none of them and forgives what is found in them.
      areas: float [g], pixels of each object itself, by which COCO tells its size; None for those
        of its box.
    """

    path: pathlib.Path
    described: pathlib.Path
    height: int
    width: int
    objects: Objects
    open: Callable[[], BinaryIO]
    crowds: Objects | None = None
    areas: np.ndarray | None = None


def chosen(objects: Objects, kept: np.ndarray) -> Objects:
    """Keep those of the objects for which bool [g] is true."""
    return Objects(*(array[kept] for array in objects))


def fingerprint(data: PictureSet[Picture]) -> str:
    """Hash names, sizes and objects."""
    digest = hashlib.sha256(json.dumps(data.class_names).encode())
    for picture in data.pictures:
        digest.update(f"{picture.path} {picture.height} {picture.width}".encode())
        arrays = [*picture.objects, *(picture.crowds or ())]
        arrays += [] if picture.areas is None else [picture.areas]
        digest.update(b"".join(array.tobytes() for array in arrays))
    return digest.hexdigest()


def picture_of_file(
    path: pathlib.Path, described: pathlib.Path, height: int, width: int, objects: Objects
) -> Picture:
    """Compare an image file with its description.

    Args:
      path, described, height, width, objects: see `Picture`.

    Returns:
      The image.

    Raises:
      ValueError: for an image that cannot be read, or is of another size, and as of `checked`.
    """
    try:
        with Image.open(path) as image:
            found = image.size
    except OSError as error:
        raise ValueError(
            f"expected an image in {str(path)!r}, got {error}: fetch it again"
        ) from error
    if found != (width, height):
        raise ValueError(
            f"expected {width} x {height} pixels in {str(path)!r}, as {str(described)!r} says, got "
            f"{found[0]} x {found[1]}: correct one"
        )
    open_file = functools.partial(path.open, "rb")
    return checked(Picture(path, described, height, width, objects, open_file))


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
