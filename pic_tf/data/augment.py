"""Flip, change the colours of, blur and normalise a whole batch on the device.

Every random choice comes from a tensor of uniform numbers, so the augmentation is a pure function
of (seed, step).
"""

import dataclasses
import functools
import itertools
from collections.abc import Callable

import numpy as np
import tensorflow as tf

from pic_tf.data.blur import gaussian_blur
from pic_tf.data.colour import (
    Planes,
    brightness,
    brightness_and_contrast,
    colour_jitter,
    contrast,
    hue,
    luminance,
    per_image,
    saturation,
)
from pic_tf.data.normalisation import IMAGENET, Normalisation, largest_level

AUGMENT_RANDOMS = 10  # uniform numbers an image uses here, see `Augmentation.__call__`
_ORDERS = np.array(list(itertools.permutations(range(4))), np.int32)  # [24, 4]


@dataclasses.dataclass(frozen=True)
class Augmentation:
    """Random changes of a view after its crop. The defaults are those of SimCLR, which PIC takes.

    Attributes:
      flip_probability: probability of a horizontal flip.
      jitter: strengths of brightness, contrast, saturation (factors U(max(0, 1 - s), 1 + s)) and
        hue (shift U(-s, s) in turns, s <= 0.5). Images of other than three channels have no colours
        to change: the first two count, and contrast is that of each channel by itself.
      jitter_probability: probability of the four colour changes, which come in random order.
      grayscale_probability: probability of the loss of all colours, where there are three.
      grayscale_first: drop the colours before they are changed, not after it.
      blur_probability: probability of a Gaussian blur.
      blur_sigma: least and largest standard deviation of the blur in pixels.
      backbone_input: images that the backbone takes, "normalised", or, for one with a scaling of
        its own, "unit" for [0, 1] or "levels" for [0, 255], see `models.input_scaling`.
      normalisation: mean and deviation of each channel.

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
    backbone_input: str = "normalised"
    normalisation: Normalisation = IMAGENET

    def __call__(self, images: tf.Tensor, random: tf.Tensor) -> tf.Tensor:
        """Augment and normalise a batch.

        Args:
          images: uint8 or uint16 [B, H, W, C].
          random: float32 [B, 10] uniform in [0, 1): flip, order of the jitter, jitter or not, the
            four strengths, gray or not, blur or not, sigma.

        Returns:
          float32 [B, H, W, C], images of the form `backbone_input`; "normalised" is by
          `normalisation`.
        """
        numbers = tf.unstack(random, AUGMENT_RANDOMS, axis=1)
        flip, order, jitter, *strengths, gray, blurred, sigma = numbers
        gray = gray < self.grayscale_probability
        planes = _to_planes(images)
        if self.grayscale_first:
            planes = self._drop_colour(planes, gray)
        if self.jitter_probability > 0 and any(self.jitter):
            on = jitter < self.jitter_probability
            *factors, shift = self._strengths(strengths)
            factors, orders = [tf.where(on, factor, 1.0) for factor in factors], _drawn_order(order)
            if len(planes) == 3:
                planes = colour_jitter(planes, orders, factors, tf.where(on, shift, 0.0))
            else:
                planes = brightness_and_contrast(planes, orders, factors[:2])
        if not self.grayscale_first:
            planes = self._drop_colour(planes, gray)
        if self.blur_probability > 0:
            sigma = _between(sigma, *self.blur_sigma)
            on = blurred < self.blur_probability
            planes = gaussian_blur(planes, sigma, on, max_sigma=self.blur_sigma[1])
        if self.flip_probability > 0:
            flip = per_image(flip < self.flip_probability)
            planes = [tf.where(flip, tf.reverse(plane, axis=[2]), plane) for plane in planes]
        return _as_input(planes, self.backbone_input, self.normalisation)

    def of_one(self, image: tf.Tensor, random: tf.Tensor) -> tf.Tensor:
        """Augment and normalise one image on CPUs, by XLA; changes not drawn take no time.

        Args:
          image: uint8 or uint16 [S, S, C].
          random: float32 [10], as a row of `__call__`'s.

        Returns:
          float32 [S, S, C].
        """
        return _compiled(self)(image, random)

    def _of_one(self, image: tf.Tensor, random: tf.Tensor) -> tf.Tensor:
        numbers = tf.unstack(random[:, None], AUGMENT_RANDOMS)
        flip, order, jitter, *strengths, gray, blurred, sigma = numbers
        strengths = self._strengths(strengths)  # three factors and the shift of hue
        steps = tf.unstack(_drawn_order(order)[0])

        def gray_if_drawn(planes: Planes) -> Planes:
            if len(planes) != 3:
                return planes
            return tf.cond(
                gray[0] < self.grayscale_probability,
                lambda: [luminance(planes)] * 3,
                lambda: planes,
            )

        def jittered(planes: Planes) -> Planes:
            if len(planes) != 3:
                return brightness_and_contrast(planes, _drawn_order(order), strengths[:2])
            changes = (brightness, contrast, saturation, hue)
            for step in steps:
                branches = [
                    functools.partial(change, planes, strength)
                    for change, strength in zip(changes, strengths)
                ]
                planes = tf.switch_case(step, branches)
            return planes

        planes = _to_planes(image[None])
        if self.grayscale_first:
            planes = gray_if_drawn(planes)
        planes = tf.cond(
            jitter[0] < self.jitter_probability, lambda: jittered(planes), lambda: planes
        )
        if not self.grayscale_first:
            planes = gray_if_drawn(planes)
        sigma, on = _between(sigma, *self.blur_sigma), tf.constant([True])
        planes = tf.cond(
            blurred[0] < self.blur_probability,
            lambda: gaussian_blur(planes, sigma, on, self.blur_sigma[1]),
            lambda: planes,
        )
        planes = tf.cond(
            flip[0] < self.flip_probability,
            lambda: [tf.reverse(p, axis=[2]) for p in planes],
            lambda: planes,
        )
        return _as_input(planes, self.backbone_input, self.normalisation)[0]

    def _strengths(self, random: list[tf.Tensor]) -> list[tf.Tensor]:
        """Three factors and a shift of hue, each [B], from uniform numbers."""
        *factors, shift = self.jitter
        bounds = [*((max(0.0, 1.0 - s), 1.0 + s) for s in factors), (-shift, shift)]
        return [_between(u, *bound) for u, bound in zip(random, bounds)]

    def _drop_colour(self, planes: Planes, gray: tf.Tensor) -> Planes:
        if self.grayscale_probability == 0 or len(planes) != 3:
            return planes
        luma = luminance(planes)
        return [tf.where(per_image(gray), luma, plane) for plane in planes]


@functools.cache
def _compiled(augmentation: Augmentation) -> Callable[[tf.Tensor, tf.Tensor], tf.Tensor]:
    return tf.function(augmentation._of_one, jit_compile=True, autograph=False)


@tf.autograph.experimental.do_not_convert
def normalise(images: tf.Tensor, normalisation: Normalisation = IMAGENET) -> tf.Tensor:
    """(image / largest level - mean) / stddev by channel.

    Args:
      images: uint8 or uint16 [B, H, W, C].
      normalisation: mean and deviation of each channel.

    Returns:
      float32 [B, H, W, C].
    """
    return _as_input(_to_planes(images), "normalised", normalisation)


def _to_planes(images: tf.Tensor) -> Planes:
    images = tf.convert_to_tensor(images)
    planes = tf.cast(tf.transpose(images, [3, 0, 1, 2]), tf.float32)
    return tf.unstack(planes * (1 / largest_level(images.dtype)))


def _as_input(planes: Planes, backbone_input: str, normalisation: Normalisation) -> tf.Tensor:
    if backbone_input == "normalised":
        mean, stddev = normalisation
        if len(mean) != len(planes):
            raise ValueError(
                f"expected normalisation=(mean, deviation) of the {len(planes)} channels of the "
                f"images, got {len(mean)}: name one number a channel"
            )
        planes = [(p - m) * (1 / s) for p, m, s in zip(planes, mean, stddev)]
    images = tf.stack(planes, axis=-1)
    return images * 255 if backbone_input == "levels" else images


def _drawn_order(random: tf.Tensor) -> tf.Tensor:
    """One of the 24 orders of the four colour changes: float32 [B] -> int32 [B, 4]."""
    return tf.gather(_ORDERS, tf.minimum(tf.cast(random * 24.0, tf.int32), 23))


def _between(random: tf.Tensor, low: float, high: float) -> tf.Tensor:
    return low + (high - low) * random
