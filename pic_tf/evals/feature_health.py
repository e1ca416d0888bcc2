"""Judge features without labels: effective rank, and cosines within and between images."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from pic_tf.data.crops import Crop
from pic_tf.data.decode.broken import BrokenImages
from pic_tf.data.order import epoch_order
from pic_tf.data.pipeline import naming_unreadable, pretraining_batches
from pic_tf.data.sources.source import Source

_SAMPLES = 25_000  # of the effective rank; the source has 25,600
_EPSILON = 1e-7  # of the source, for singular values of 0
_PAIRS, _BATCH = 512, 64  # images of which two views are compared
_LOW_RANK, _ALIKE = 2.0, 0.99  # beyond these, features tell next to nothing of an image
FIGURES = ("rankme", "cosine_of_views", "cosine_of_images")  # their names in logs and files
COLLAPSED = (
    "warning: the features have collapsed, those of all images are nearly alike: lower "
    "--learning_rate, or try --head=mlp_bn"
)


def rankme(features: np.ndarray) -> float:
    """Compute RankMe, the effective rank: exp(-sum_k p_k log p_k), p_k = s_k / sum_j s_j + 1e-7.

    The s_k are the singular values of the features, roots of the eigenvalues of their products in
    float64. Those below 1e-8 of the largest one are rounding, and weigh no more than the 1e-7.

    Args:
      features: float [n, C]; of more than 25,000, so many are taken at even distances.

    Returns:
      From 1, where all features lie on a line, to min(n, C) and some 1e-5.

    Source: Garrido et al. 2023 (https://arxiv.org/abs/2210.02885), Eq. 1.
    """
    if len(features) > _SAMPLES:
        features = features[np.linspace(0, len(features) - 1, _SAMPLES).astype(np.int64)]
    x = features.astype(np.float64)
    squares = np.linalg.eigvalsh(x.T @ x if x.shape[1] <= len(x) else x @ x.T)
    s = np.sqrt(np.maximum(squares, 0))
    p = s / max(s.sum(), np.finfo(np.float64).tiny) + _EPSILON
    return float(np.exp(-np.sum(p * np.log(p))))


class Cosines(NamedTuple):
    """Mean cosines of features.

    Attributes:
      of_views: of the two views of an image.
      of_images: of views of different images.
    """

    of_views: float
    of_images: float


def view_cosines(first: np.ndarray, second: np.ndarray) -> Cosines:
    """Compare two views of images with each other, and with those of other images.

    Args:
      first: float [n, C] features of a view of each image.
      second: float [n, C] features of another one.

    Returns:
      (mean_i cos(a_i, b_i), mean_{i != j} cos(a_i, b_j)); NaN for less than 2 images.
    """
    a, b = (_normalised(x.astype(np.float64)) for x in (first, second))
    own, n = float(np.sum(a * b)), len(a)
    if n < 2:
        return Cosines(float("nan"), float("nan"))
    return Cosines(own / n, float(a.sum(0) @ b.sum(0) - own) / (n * (n - 1)))


def collapsed(rank: float, cosine_of_images: float) -> bool:
    """Tell whether features lie on a line, or are nearly the same for all images."""
    return rank < _LOW_RANK or cosine_of_images > _ALIKE


def in_words(figures: Mapping[str, float], dimensions: int) -> str:
    """Tell `rankme` and the two cosines of figures; `dimensions` are the C of the features."""
    return (
        f"RankMe {figures['rankme']:.1f} of {dimensions}, cosine {figures['cosine_of_views']:.3f} "
        f"of views, {figures['cosine_of_images']:.3f} of images"
    )


def closing_lines(figures: Mapping[str, float], dimensions: int) -> tuple[str, ...]:
    """Tell the last figures of a run and, if so, that its features have collapsed.

    Args:
      figures: the last ones of a run, none of `FIGURES` where nothing was measured.
      dimensions: C.

    Returns:
      Lines, none without figures.
    """
    if not set(FIGURES) <= set(figures):
        return ()
    lines = (f"features       {in_words(figures, dimensions)}",)
    alike = collapsed(figures["rankme"], figures["cosine_of_images"])
    return (*lines, COLLAPSED) if alike else lines


class ViewPairs:
    """Two augmented views of some images of a source, the same ones at every call.

    Args:
      source: N >= 2 images; at most 512 are taken, drawn by `seed`.
      crop: kind of the views.
      augment: maps views uint8 [n, S, S, 3] and their numbers float32 [n, 10] to normalised views
        float32 [n, S, S, 3] (`Augmentation`).
      seed: seed of the draw, the crops and the changes.
    """

    def __init__(self, source: Source, crop: Crop, augment: Callable[..., tf.Tensor], seed: int):
        size = min(_BATCH, len(source))
        self._source, self._augment = source, augment
        self._order = epoch_order(len(source), size, seed)
        self._steps = min(len(source), _PAIRS) // size
        self._batches = pretraining_batches(
            source,
            self._order,
            crops=[Crop(crop.size, crop.scale, count=2)],
            seed=seed,
            start_step=0,
            stop_step=self._steps,
            broken=BrokenImages(source),
        )

    def cosines(self, features: Callable[[tf.Tensor], np.ndarray]) -> Cosines:
        """Compare views by their features, those of images that cannot be decoded left out.

        Args:
          features: function from normalised views float32 [n, S, S, 3] to float32 [n, C].

        Returns:
          Cosines of views and of images.

        Raises:
          ValueError: for an image that cannot be read.
        """
        steps = range(self._steps)
        ids = (i for t in steps for i in self._order.instance_ids(t).numpy())
        with naming_unreadable(self._source, ids):
            pairs = [
                features(self._augment(*group)).reshape(len(weights), 2, -1)[weights.numpy() > 0]
                for (group,), _, weights in self._batches
            ]
        return view_cosines(*np.moveaxis(np.concatenate(pairs), 1, 0))


def _normalised(x: np.ndarray) -> np.ndarray:
    return x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), np.finfo(np.float64).tiny)
