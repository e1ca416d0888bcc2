"""Images with a class for every pixel."""

import hashlib
import json
import pathlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image
from tqdm import tqdm

from pic_tf.evals.transfer.datasets import PictureSet
from pic_tf.files.progress import drawing_interval

IGNORED = 255  # label of pixels that count for nothing
_UNKNOWN = -1  # of levels that no mask may have
_ONE_CHANNEL = ("1", "L", "P", "I", "I;16")  # modes of Pillow


class Picture(NamedTuple):
    """An image and its mask.

    Attributes:
      path: the image file.
      mask: the file of its mask.
      labels: int16 [256], label of each level of the mask: a class, or `IGNORED`.
    """

    path: pathlib.Path
    mask: pathlib.Path
    labels: np.ndarray


def labels_of(levels: Sequence[int], ignored: Sequence[int] = ()) -> np.ndarray:
    """Make a table of labels.

    Args:
      levels: level of each class in a mask.
      ignored: levels without a class, beside 255.

    Returns:
      int16 [256], for `Picture`.
    """
    table = np.full(256, _UNKNOWN, np.int16)
    table[list(levels)] = np.arange(len(levels))
    table[[*ignored, IGNORED]] = IGNORED
    return table


def read_mask(picture: Picture) -> np.ndarray:
    """Read the label of every pixel, uint8 [H, W].

    Raises:
      ValueError: for a file that is no mask, or has levels beyond the classes.
    """
    try:
        with Image.open(picture.mask) as image:
            mode, levels = image.mode, np.asarray(image)
    except OSError as error:
        raise ValueError(
            f"expected a mask in {str(picture.mask)!r}, got {error}: fetch it again"
        ) from error
    if mode not in _ONE_CHANNEL:
        raise ValueError(
            f"expected a mask of one channel in {str(picture.mask)!r}, got {mode}: save the number "
            "of each pixel's class as a gray or palette PNG"
        )
    levels = levels.astype(np.int64)
    inside = (levels >= 0) & (levels < 256)
    labels = np.where(inside, picture.labels[levels % 256], _UNKNOWN)
    if (labels < 0).any():
        classes = len(set(picture.labels.tolist()) - {_UNKNOWN, IGNORED})
        raise ValueError(
            f"expected labels of {classes} classes or {IGNORED} in {str(picture.mask)!r}, got "
            f"{levels[labels < 0][0]}: correct it, or name all classes"
        )
    return labels.astype(np.uint8)


def check_files(data: PictureSet[Picture]) -> str:
    """Compare every image with its mask.

    Returns:
      Hash of names, sizes and masks.

    Raises:
      ValueError: for a file that cannot be read, a mask of another size than its image or with
        labels beyond the classes, or masks without any class.
    """
    digest, labelled = hashlib.sha256(json.dumps(data.class_names).encode()), False
    for picture in tqdm(
        data.pictures, f"masks of {data.name}", unit=" images", mininterval=drawing_interval()
    ):
        try:
            with Image.open(picture.path) as image:
                width, height = image.size
        except OSError as error:
            raise ValueError(
                f"expected an image in {str(picture.path)!r}, got {error}: fetch it again"
            ) from error
        mask = read_mask(picture)
        if mask.shape != (height, width):
            raise ValueError(
                f"expected a mask of {width} x {height} pixels in {str(picture.mask)!r}, as "
                f"{str(picture.path)!r} has, got {mask.shape[1]} x {mask.shape[0]}: correct one"
            )
        labelled = labelled or bool((mask != IGNORED).any())
        digest.update(f"{picture.path} {mask.shape}".encode())
        digest.update(mask.tobytes())
    if not labelled:
        raise ValueError(
            f"expected pixels with a class in {data.name!r}, got none: its masks are not public, "
            "name another split"
        )
    return digest.hexdigest()
