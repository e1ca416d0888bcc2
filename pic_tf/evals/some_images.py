"""Features of some images of a source, drawn once and measured again and again."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from pic_tf.data.decode.broken import BrokenImages
from pic_tf.data.pipeline import evaluation_batches, naming_unreadable
from pic_tf.data.sources.source import Source
from pic_tf.evals.features import check_finite

_KEPT = 2**28  # bytes of views that stay in memory, decoded once for all evaluations


class Extracted(NamedTuple):
    """Features of the images that could be decoded.

    Attributes:
      features: float32 [n, C].
      labels: int64 [n], or None.
    """

    features: np.ndarray
    labels: np.ndarray | None


class SomeImages:
    """Central views of some images.

    Args:
      source: the images.
      most: at most so many of them, drawn by `seed`.
      seed: seed of the draw.
      image_size: side of a view in pixels.
      eval_crop: side of the central crop, share of the short side.
      max_broken: share of the images that may be broken; those are left out.
    """

    def __init__(
        self,
        source: Source,
        most: int,
        seed: int,
        *,
        image_size: int,
        eval_crop: float,
        max_broken: float,
    ):
        self._source, self._max_broken = source, max_broken
        self._ids = np.arange(len(source))
        if len(source) > most:
            self._ids = np.sort(np.random.default_rng(seed).choice(self._ids, most, replace=False))
        # A list of its own: images left out must not depend on the windows that training has seen.
        self._broken = BrokenImages(source)
        batches = evaluation_batches(
            source, self._ids, image_size=image_size, crop_fraction=eval_crop, broken=self._broken
        )
        kept = self._bytes(image_size) <= _KEPT
        self._batches = batches.cache() if kept else batches

    def _bytes(self, image_size: int) -> int:
        channels, bit_depth = self._source.pixels
        return len(self._ids) * image_size**2 * channels * bit_depth // 8

    def extract(self, features: Callable[[tf.data.Dataset], np.ndarray]) -> Extracted:
        """Compute features of the views.

        Args:
          features: function from batches of levels [b, S, S, n] to float32 [n, C].

        Returns:
          The features of the images that could be decoded, with their labels.

        Raises:
          ValueError: for an image that cannot be read, too many that cannot be decoded, or features
            that are not finite.
        """
        with naming_unreadable(self._source, self._ids):
            found = check_finite(features(self._batches), self._source.name)
        self._broken.report(self._max_broken, "monitor: ")
        fine, labels = self._broken.decodable(self._ids), self._source.labels
        return Extracted(found[fine], None if labels is None else labels[self._ids][fine])
