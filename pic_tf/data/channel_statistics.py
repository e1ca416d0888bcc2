"""Measure mean and deviation of each channel of a source, in bounded memory."""

import numpy as np

from pic_tf.data.decode.broken import BrokenImages
from pic_tf.data.normalisation import Normalisation
from pic_tf.data.pipeline import evaluation_batches, naming_unreadable
from pic_tf.data.sources.source import Source

MOST = 5000  # images that are measured; of more, a fixed draw
_BATCH = 64


class Moments:
    """Count, mean and sum of squared deviations by channel, of pixels that come in parts.

    With d the difference of the means of what is there (n pixels) and of a part (m pixels):

        mean <- mean + d m / (n + m),   M <- M + M_part + d^2 n m / (n + m)

    Source: Chan, Golub, LeVeque 1979, "Updating formulae and a pairwise algorithm for computing
    sample variances".
    """

    def __init__(self):
        self.count, self.mean, self.squares = 0, 0.0, 0.0

    def add(self, pixels: np.ndarray) -> None:
        """Add pixels [..., C]."""
        pixels = np.reshape(pixels, [-1, pixels.shape[-1]]).astype(np.float64)
        count, mean = len(pixels), pixels.mean(axis=0)
        difference, total = mean - self.mean, self.count + count
        squares = np.square(pixels - mean).sum(axis=0)
        self.squares = self.squares + squares + difference**2 * (self.count * count / total)
        self.mean = self.mean + difference * (count / total)
        self.count = total

    @property
    def stddev(self) -> np.ndarray:
        """Standard deviation, float64 [C]."""
        return np.sqrt(self.squares / self.count)


def measure_normalisation(source: Source, image_size: int, max_broken: float) -> Normalisation:
    """Measure mean and standard deviation of the pixels of central views, of images in [0, 1].

    Of more than 5,000 images a fixed draw is measured; broken ones do not count.

    Args:
      source: the images.
      image_size: side of the views in pixels: the whole short side, resized.
      max_broken: share of the images that may be broken.

    Returns:
      Both to six digits, as the flag file keeps them.

    Raises:
      ValueError: for a channel of one level, an image that cannot be read, or too many that cannot
        be decoded.
    """
    ids = np.arange(len(source))
    if len(ids) > MOST:
        ids = np.sort(np.random.default_rng(0).choice(ids, MOST, replace=False))
    broken, moments, done = BrokenImages(source), Moments(), 0
    options = {"image_size": image_size, "crop_fraction": 1.0, "batch_size": _BATCH}
    with naming_unreadable(source, ids):
        for views in evaluation_batches(source, ids, broken=broken, **options):
            fine = broken.decodable(ids[done : done + len(views)])
            done += len(views)
            if fine.any():
                moments.add(views.numpy()[fine])
    broken.report(max_broken, "mean and deviation: ")
    if not moments.count:
        raise ValueError(f"expected images in {source.name!r} that can be decoded, got none")
    largest = np.iinfo(source.pixels.dtype).max
    for channel, (mean, stddev) in enumerate(zip(moments.mean, moments.stddev)):
        if not stddev:
            raise ValueError(
                f"expected channels of more than one level in {source.name!r}, got {mean:g} "
                f"everywhere in channel {channel}, from 0 on: leave it out"
            )
    return Normalisation(*(_six_digits(x / largest) for x in (moments.mean, moments.stddev)))


def _six_digits(numbers: np.ndarray) -> tuple[float, ...]:
    return tuple(float(f"{x:.6g}") for x in numbers)
