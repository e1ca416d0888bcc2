"""On the device: flip, colour jitter, grayscale, blur and normalise a whole batch.

Channels are kept apart as [B, H, W] planes: the colour operations run 6 to 10 times faster than on
interleaved [B, H, W, 3] images. Every random choice comes from a tensor of uniform numbers, so the
augmentation is a pure function of (seed, step).
"""

import dataclasses
import itertools
import math

import numpy as np
import tensorflow as tf

MEAN = (0.485, 0.456, 0.406)  # ImageNet's channel means and standard deviations, images in [0, 1]
STDDEV = (0.229, 0.224, 0.225)
AUGMENT_RANDOMS = 10  # uniform numbers an image uses here, see `Augmentation.__call__`
_ORDERS = np.array(list(itertools.permutations(range(4))), np.int32)  # [24, 4]
_HUE = 3  # number of the hue step among brightness, contrast, saturation, hue

Planes = list[tf.Tensor]  # red, green, blue: three float32 [B, H, W] in [0, 1]


@dataclasses.dataclass(frozen=True)
class Augmentation:
    """The random changes of a view after its crop. The defaults are PIC's, which are SimCLR's.

    Attributes:
      flip_probability: of mirroring left and right.
      jitter: strengths of brightness, contrast, saturation (factors U(max(0, 1 - s), 1 + s)) and
        hue (shift U(-s, s) in turns, s <= 0.5).
      jitter_probability: of the four colour changes, which come in random order.
      grayscale_probability: of dropping colour.
      blur_probability: of a Gaussian blur.
      blur_sigma: least and largest standard deviation of the blur in pixels.

    Source: paper, Section 4.1; SimCLR (https://arxiv.org/abs/2002.05709), Appendix A; the blur's
    sigma from MoCo v2 (https://arxiv.org/abs/2003.04297).
    """

    flip_probability: float = 0.5
    jitter: tuple[float, float, float, float] = (0.8, 0.8, 0.8, 0.2)
    jitter_probability: float = 0.8
    grayscale_probability: float = 0.2
    blur_probability: float = 0.5
    blur_sigma: tuple[float, float] = (0.1, 2.0)

    def __call__(self, images: tf.Tensor, random: tf.Tensor) -> tf.Tensor:
        """Augment and normalise a batch.

        Args:
          images: uint8 [B, H, W, 3].
          random: float32 [B, 10] uniform in [0, 1): flip, order of the jitter, jitter or not, the
            four strengths, gray or not, blur or not, sigma.

        Returns:
          float32 [B, H, W, 3], normalised by ImageNet's channel means and standard deviations.
        """
        flip, order, jitter, *strengths, gray, blurred, sigma = tf.unstack(random, AUGMENT_RANDOMS, axis=1)
        planes = _to_planes(images)
        if self.jitter_probability > 0 and any(self.jitter):
            on = jitter < self.jitter_probability
            factors = [
                tf.where(on, _between(u, max(0.0, 1.0 - s), 1.0 + s), 1.0)
                for u, s in zip(strengths[:3], self.jitter[:3])
            ]
            shift = tf.where(on, _between(strengths[3], -self.jitter[3], self.jitter[3]), 0.0)
            orders = tf.gather(_ORDERS, tf.minimum(tf.cast(order * 24.0, tf.int32), 23))
            planes = colour_jitter(planes, orders, factors, shift)
        if self.grayscale_probability > 0:
            gray = _per_image(gray < self.grayscale_probability)
            luma = luminance(planes)
            planes = [tf.where(gray, luma, plane) for plane in planes]
        if self.blur_probability > 0:
            sigma = _between(sigma, *self.blur_sigma)
            planes = gaussian_blur(planes, sigma, blurred < self.blur_probability, max_sigma=self.blur_sigma[1])
        if self.flip_probability > 0:
            flip = _per_image(flip < self.flip_probability)
            planes = [tf.where(flip, tf.reverse(plane, axis=[2]), plane) for plane in planes]
        return _normalise(planes)


def normalise(images: tf.Tensor) -> tf.Tensor:
    """(image / 255 - mean) / stddev by channel: uint8 [B, H, W, 3] -> float32 [B, H, W, 3]."""
    return _normalise(_to_planes(images))


def luminance(planes: Planes) -> tf.Tensor:
    """0.299 R + 0.587 G + 0.114 B (ITU-R BT.601, as PIL's mode L): float32 [B, H, W]."""
    red, green, blue = planes
    return 0.299 * red + 0.587 * green + 0.114 * blue


def brightness(planes: Planes, factor: tf.Tensor) -> Planes:
    """clip(f x): towards black for f < 1. `factor` is float32 [B]."""
    return _blend(planes, 0.0, factor)


def contrast(planes: Planes, factor: tf.Tensor) -> Planes:
    """clip(f x + (1 - f) mean luminance of the image). `factor` is float32 [B]."""
    return _blend(planes, tf.reduce_mean(luminance(planes), axis=[1, 2], keepdims=True), factor)


def saturation(planes: Planes, factor: tf.Tensor) -> Planes:
    """clip(f x + (1 - f) luminance of the pixel). `factor` is float32 [B]."""
    return _blend(planes, luminance(planes), factor)


def hue(planes: Planes, shift: tf.Tensor) -> Planes:
    """Turn the hue in HSV space by `shift` turns (float32 [B]), value and saturation kept.

    With V = max, C = max - min and h the hue in sixths of a turn,
    channel = V - C clip(min(k, 4 - k), 0, 1), k = (n + h) mod 6, n = 5, 3, 1 for R, G, B.

    Source: HSV to RGB without cases, https://en.wikipedia.org/wiki/HSL_and_HSV.
    """
    red, green, blue = planes
    value = tf.maximum(tf.maximum(red, green), blue)
    chroma = value - tf.minimum(tf.minimum(red, green), blue)
    inverse = 1.0 / tf.maximum(chroma, 1e-8)  # gray pixels: any hue gives the same colour
    sixths = tf.where(
        value == red,
        (green - blue) * inverse,
        tf.where(value == green, 2.0 + (blue - red) * inverse, 4.0 + (red - green) * inverse),
    )
    sixths += _per_image(6.0 * shift)

    def channel(n: float) -> tf.Tensor:
        k = tf.math.floormod(sixths + n, 6.0)
        return value - chroma * tf.clip_by_value(tf.minimum(k, 4.0 - k), 0.0, 1.0)

    return [channel(5.0), channel(3.0), channel(1.0)]


def colour_jitter(planes: Planes, orders: tf.Tensor, factors: list[tf.Tensor], shift: tf.Tensor) -> Planes:
    """Brightness, contrast, saturation and hue, for each image in an order of its own.

    Hue is by far the dearest step and done once: three slots before it and three after it hold
    the other steps, and those of the wrong side have factor 1, which changes nothing.

    Args:
      planes: three float32 [B, H, W] in [0, 1].
      orders: int32 [B, 4], a permutation of (0 brightness, 1 contrast, 2 saturation, 3 hue) each.
      factors: three float32 [B].
      shift: float32 [B], hue shift in turns.

    Returns:
      Three float32 [B, H, W] in [0, 1].

    Source: torchvision.transforms.ColorJitter.
    """
    hue_slot = tf.argmax(tf.cast(orders == _HUE, tf.int32), axis=1, output_type=tf.int32)
    factors = tf.stack([*factors, tf.ones_like(shift)], axis=1)

    def slot(planes: Planes, number: int, here: tf.Tensor) -> Planes:
        step = orders[:, number]
        factor = tf.where(here, tf.gather(factors, step, batch_dims=1), 1.0)
        luma = luminance(planes)
        target = tf.where(
            _per_image(step == 1),
            tf.reduce_mean(luma, axis=[1, 2], keepdims=True),
            tf.where(_per_image(step == 2), luma, 0.0),
        )
        return _blend(planes, target, factor)

    for number in range(3):
        planes = slot(planes, number, number < hue_slot)
    planes = hue(planes, shift)
    for number in range(1, 4):
        planes = slot(planes, number, number > hue_slot)
    return planes


def gaussian_blur(planes: Planes, sigma: tf.Tensor, on: tf.Tensor, max_sigma: float) -> Planes:
    """Gaussian blur, edges repeated, as a product with a banded matrix from each side.

    out = T x T^T, T_ij = sum of exp(-d^2 / 2 sigma^2) over the taps |d| <= ceil(3 max_sigma) that
    land on j from i, rows normalised.

    Args:
      planes: three float32 [B, S, S].
      sigma: float32 [B], standard deviations in pixels.
      on: bool [B], which images to blur.
      max_sigma: the largest sigma, which sets the number of taps.

    Returns:
      Three float32 [B, S, S].
    """
    radius = math.ceil(3 * max_sigma)
    size = planes[0].shape[1]
    taps = np.arange(-radius, radius + 1)
    lands_on = np.clip(np.arange(size)[:, None] + taps, 0, size - 1)  # [S, taps]
    band = np.zeros((len(taps), size, size), np.float32)
    for t in range(len(taps)):
        band[t, np.arange(size), lands_on[:, t]] = 1.0
    weights = tf.exp(-0.5 * tf.square(taps.astype(np.float32) / sigma[:, None]))
    weights /= tf.reduce_sum(weights, axis=1, keepdims=True)
    weights = tf.where(on[:, None], weights, (taps == 0).astype(np.float32))
    matrix = tf.reshape(weights @ band.reshape(len(taps), -1), [-1, size, size])
    return [tf.matmul(matrix @ plane, matrix, transpose_b=True) for plane in planes]


def _blend(planes: Planes, target: tf.Tensor | float, factor: tf.Tensor) -> Planes:
    factor = _per_image(factor)
    rest = (1.0 - factor) * target
    return [tf.clip_by_value(factor * plane + rest, 0.0, 1.0) for plane in planes]


def _to_planes(images: tf.Tensor) -> Planes:
    return tf.unstack(tf.cast(tf.transpose(images, [3, 0, 1, 2]), tf.float32) * (1 / 255))


def _normalise(planes: Planes) -> tf.Tensor:
    return tf.stack([(p - m) * (1 / s) for p, m, s in zip(planes, MEAN, STDDEV)], axis=-1)


def _between(random: tf.Tensor, low: float, high: float) -> tf.Tensor:
    return low + (high - low) * random


def _per_image(values: tf.Tensor) -> tf.Tensor:
    return values[:, None, None]
