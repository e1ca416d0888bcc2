"""On the device: flip, colour jitter, grayscale, blur and normalise a whole batch.

Channels are kept apart as [B, H, W] planes: the colour operations run 6 to 10 times faster than on
interleaved [B, H, W, 3] images. Every random choice comes from a tensor of uniform numbers, so the
augmentation is a pure function of (seed, step).
"""

import dataclasses
import functools
import itertools
import math
from collections.abc import Callable

import numpy as np
import tensorflow as tf

MEAN = (0.485, 0.456, 0.406)  # ImageNet's channel means and standard deviations, images in [0, 1]
STDDEV = (0.229, 0.224, 0.225)
AUGMENT_RANDOMS = 10  # uniform numbers an image uses here, see `Augmentation.__call__`
_ORDERS = np.array(list(itertools.permutations(range(4))), np.int32)  # [24, 4]
_BLOCK = 32  # rows of a plane that are blurred in one product
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
      grayscale_first: whether that comes before the colour changes, or after them.
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
    grayscale_first: bool = False

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
        gray = gray < self.grayscale_probability
        planes = _to_planes(images)
        if self.grayscale_first:
            planes = self._drop_colour(planes, gray)
        if self.jitter_probability > 0 and any(self.jitter):
            on = jitter < self.jitter_probability
            *factors, shift = self._strengths(strengths)
            factors = [tf.where(on, factor, 1.0) for factor in factors]
            planes = colour_jitter(planes, _drawn_order(order), factors, tf.where(on, shift, 0.0))
        if not self.grayscale_first:
            planes = self._drop_colour(planes, gray)
        if self.blur_probability > 0:
            sigma = _between(sigma, *self.blur_sigma)
            planes = gaussian_blur(planes, sigma, blurred < self.blur_probability, max_sigma=self.blur_sigma[1])
        if self.flip_probability > 0:
            flip = _per_image(flip < self.flip_probability)
            planes = [tf.where(flip, tf.reverse(plane, axis=[2]), plane) for plane in planes]
        return _normalise(planes)

    def of_one(self, image: tf.Tensor, random: tf.Tensor) -> tf.Tensor:
        """The same for one image, on CPUs: compiled by XLA, and only the changes that it draws are worked out.

        Args:
          image: uint8 [S, S, 3].
          random: float32 [10], as a row of `__call__`'s.

        Returns:
          float32 [S, S, 3].
        """
        return _compiled(self)(image, random)

    def _of_one(self, image: tf.Tensor, random: tf.Tensor) -> tf.Tensor:
        flip, order, jitter, *strengths, gray, blurred, sigma = tf.unstack(random[:, None], AUGMENT_RANDOMS)
        *factors, shift = self._strengths(strengths)
        steps = tf.unstack(_drawn_order(order)[0])

        def gray_if_drawn(planes: Planes) -> Planes:
            return tf.cond(gray[0] < self.grayscale_probability, lambda: [luminance(planes)] * 3, lambda: planes)

        def jittered(planes: Planes) -> Planes:
            for step in steps:
                changes = [
                    functools.partial(change, planes, strength)
                    for change, strength in zip((brightness, contrast, saturation, hue), (*factors, shift))
                ]
                planes = tf.switch_case(step, changes)
            return planes

        planes = _to_planes(image[None])
        if self.grayscale_first:
            planes = gray_if_drawn(planes)
        planes = tf.cond(jitter[0] < self.jitter_probability, lambda: jittered(planes), lambda: planes)
        if not self.grayscale_first:
            planes = gray_if_drawn(planes)
        sigma, on = _between(sigma, *self.blur_sigma), tf.constant([True])
        planes = tf.cond(
            blurred[0] < self.blur_probability,
            lambda: gaussian_blur(planes, sigma, on, self.blur_sigma[1]),
            lambda: planes,
        )
        planes = tf.cond(
            flip[0] < self.flip_probability, lambda: [tf.reverse(p, axis=[2]) for p in planes], lambda: planes
        )
        return _normalise(planes)[0]

    def _strengths(self, random: list[tf.Tensor]) -> list[tf.Tensor]:
        """Three factors and a shift of hue, each [B], from uniform numbers."""
        bounds = [*((max(0.0, 1.0 - s), 1.0 + s) for s in self.jitter[:3]), (-self.jitter[3], self.jitter[3])]
        return [_between(u, *bound) for u, bound in zip(random, bounds)]

    def _drop_colour(self, planes: Planes, gray: tf.Tensor) -> Planes:
        if self.grayscale_probability == 0:
            return planes
        luma = luminance(planes)
        return [tf.where(_per_image(gray), luma, plane) for plane in planes]


@functools.cache
def _compiled(augmentation: Augmentation) -> Callable[[tf.Tensor, tf.Tensor], tf.Tensor]:
    return tf.function(augmentation._of_one, jit_compile=True)


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
        k = sixths + n
        k -= 6.0 * tf.floor(k * (1 / 6))  # four times as fast as floormod on CPUs
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
    """Gaussian blur, edges repeated, as products with a banded matrix from both sides.

    out = T x T^T, T_ij = sum of exp(-d^2 / 2 sigma^2) over the taps |d| <= ceil(3 max_sigma) that
    land on j from i, rows normalised. T is taken a block of rows at a time, and of each only where it is not 0.

    Args:
      planes: three float32 [B, S, S].
      sigma: float32 [B], standard deviations in pixels.
      on: bool [B], which images to blur.
      max_sigma: the largest sigma, which sets the number of taps.

    Returns:
      Three float32 [B, S, S].
    """
    radius, size = math.ceil(3 * max_sigma), planes[0].shape[1]
    block = min(_BLOCK, size)
    taps = np.arange(-radius, radius + 1, dtype=np.float32)
    weights = tf.exp(-0.5 * tf.square(taps / sigma[:, None]))
    weights /= tf.reduce_sum(weights, axis=1, keepdims=True)
    weights = tf.where(on[:, None], weights, (taps == 0).astype(np.float32))
    # Row i of the band takes block + 2 radius pixels to pixel i of a block: the same for every block.
    band = np.zeros((len(taps), block, block + 2 * radius), np.float32)
    for t in range(len(taps)):
        band[t, np.arange(block), np.arange(block) + t] = 1.0
    band = tf.reshape(weights @ band.reshape(len(taps), -1), [-1, block, block + 2 * radius])

    def vertically(plane: tf.Tensor) -> tf.Tensor:
        plane = tf.concat([plane[:, :1]] * radius + [plane] + [plane[:, -1:]] * radius, axis=1)
        blocks = []
        for start in range(0, size, block):
            first = min(start, size - block)  # the last block may reach back into the one before
            blocks.append((band @ plane[:, first : first + block + 2 * radius])[:, start - first :])
        return tf.concat(blocks, axis=1)

    def horizontally(plane: tf.Tensor) -> tf.Tensor:
        plane = tf.concat([plane[..., :1]] * radius + [plane] + [plane[..., -1:]] * radius, axis=2)
        blocks = []
        for start in range(0, size, block):
            first = min(start, size - block)
            part = plane[..., first : first + block + 2 * radius]
            blocks.append(tf.matmul(part, band, transpose_b=True)[..., start - first :])
        return tf.concat(blocks, axis=2)

    return [horizontally(vertically(plane)) for plane in planes]


def _blend(planes: Planes, target: tf.Tensor | float, factor: tf.Tensor) -> Planes:
    factor = _per_image(factor)
    rest = (1.0 - factor) * target
    return [tf.clip_by_value(factor * plane + rest, 0.0, 1.0) for plane in planes]


def _to_planes(images: tf.Tensor) -> Planes:
    return tf.unstack(tf.cast(tf.transpose(images, [3, 0, 1, 2]), tf.float32) * (1 / 255))


def _normalise(planes: Planes) -> tf.Tensor:
    return tf.stack([(p - m) * (1 / s) for p, m, s in zip(planes, MEAN, STDDEV)], axis=-1)


def _drawn_order(random: tf.Tensor) -> tf.Tensor:
    """One of the 24 orders of the four colour changes: float32 [B] -> int32 [B, 4]."""
    return tf.gather(_ORDERS, tf.minimum(tf.cast(random * 24.0, tf.int32), 23))


def _between(random: tf.Tensor, low: float, high: float) -> tf.Tensor:
    return low + (high - low) * random


def _per_image(values: tf.Tensor) -> tf.Tensor:
    return values[:, None, None]
