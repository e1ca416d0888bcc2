"""Classify every pixel of images in overlapping windows."""

from collections.abc import Callable, Iterator

import numpy as np
import tensorflow as tf
from PIL import Image
from tqdm import tqdm

from pic_tf.data.augment import normalise
from pic_tf.evals.segmentation.masks import Picture
from pic_tf.evals.segmentation.segmenter import Segmenter
from pic_tf.evals.transfer.datasets import PictureSet
from pic_tf.files.progress import drawing_interval


def starts(extent: int, size: int, stride: int) -> list[int]:
    """List where windows begin so that they cover an extent: the last one ends with it.

    Args:
      extent: pixels.
      size: pixels of a window; a shorter extent has one window, of its own length.
      stride: pixels from one window to the next, at most `size`.
    """
    last = max(extent - size, 0)
    return [min(stride * i, last) for i in range(-(-last // stride) + 1)]


def average_logits(
    logits_of: Callable[[np.ndarray], np.ndarray], image: np.ndarray, size: int, stride: int
) -> np.ndarray:
    """Average the logits of all windows over a pixel.

    Args:
      logits_of: [h, w, 3] -> logits [h, w, C].
      image: [H, W, 3].
      size, stride: see `starts`.

    Returns:
      float32 [H, W, C].
    """
    height, width = image.shape[:2]
    total, windows = 0.0, np.zeros([height, width, 1], np.float32)
    for y in starts(height, size, stride):
        for x in starts(width, size, stride):
            place = np.s_[y : y + size, x : x + size]
            logits = logits_of(image[place])
            if np.isscalar(total):
                total = np.zeros([height, width, logits.shape[-1]], np.float32)
            total[place] += logits
            windows[place] += 1
    return total / windows


def classify(
    model: Segmenter, data: PictureSet[Picture], size: int, stride: int
) -> Iterator[np.ndarray]:
    """Tell the class of every pixel, one image at a time.

    Args:
      model: trained.
      data: the images.
      size, stride: see `starts`.

    Yields:
      uint8 [H, W] of each image.
    """

    @tf.function(input_signature=[tf.TensorSpec([None, None, 3], tf.uint8)])
    def tell(image: tf.Tensor) -> tf.Tensor:
        return model(normalise(image[None]), training=False)[0]

    bar = tqdm(data.pictures, data.name, unit=" images", mininterval=drawing_interval())
    for picture in bar:
        with Image.open(picture.path) as image:
            pixels = np.asarray(image.convert("RGB"))
        logits = average_logits(lambda x: tell(x).numpy(), pixels, size, stride)
        yield logits.argmax(-1).astype(np.uint8)
