"""RandAugment on the device, with keras-cv's operations and without its random numbers.

keras-cv draws from generators with hidden state. Of its layers we take only `augment_images`, which is a function of
the images and of how strongly to change them, and make that strength from a tensor of uniform numbers.
"""

import contextlib
import dataclasses
import functools
import io
from collections.abc import Callable
from typing import Any

import tensorflow as tf
import tf_keras as keras

from pic_tf.data.augment import AUGMENT_RANDOMS, normalise

_MOST_AUGMENTATIONS = (AUGMENT_RANDOMS - 1) // 2  # the flip takes one number, each of them two
_NUM_CHOICES = 11  # ten operations, and none
# What the constructors of the layers set; interpolation and what comes in from outside are keras-cv's defaults.
_SETTINGS = {
    "value_range": (0, 255),
    "bins": 256,
    "interpolation": "bilinear",
    "fill_mode": "reflect",
    "fill_value": 0.0,
}

Operation = Callable[[tf.Tensor], tf.Tensor]  # of one image, float32 [1, H, W, 3] in 0..255


@dataclasses.dataclass(frozen=True)
class RandAugment:
    """Flip, then operations drawn one after another from a list; the policy of keras_cv.layers.RandAugment.

    Each draw takes one of eleven with equal chances: auto-contrast, equalize, solarize, colour, contrast, brightness,
    shear x, shear y, translate x, translate y, or nothing. With magnitude m, colour is blended by m towards gray;
    contrast is multiplied by U(1 - m, 1 + m); 255 U(-m, m) is added as brightness; a shear has slope -m or m, a
    translation U(-m, m) of the side; solarize adds 110 m and then inverts what is at least 255 (1 - m). What comes in
    from outside is the image reflected. The paper's magnitude M is 10 m; its standard deviation is 0, as there.

    It is not the paper's list: rotate, posterize and sharpness are missing, so nothing is drawn with 1/11 instead of
    1/14. Some operations are stronger than those of AutoAugment (https://arxiv.org/abs/1805.09501), which shears by
    slopes up to 0.3, moves by at most 150 pixels and adds nothing in solarize. Colour only fades here, brightness adds
    instead of multiplying, and contrast keeps the mean of each channel instead of that of gray.

    XLA cannot compile it, on CPUs at least, having neither the histogram of equalize nor projective transformations:
    leave `jit_compile` off.

    Attributes:
      flip_probability: of mirroring left and right.
      augmentations_per_image: draws, at most 4.
      magnitude: m, in [0, 1].

    Raises:
      ValueError: for other values.

    Source: https://arxiv.org/abs/1909.13719, whose ImageNet setting for ResNet-50 is two draws and M = 9.
    """

    flip_probability: float = 0.5
    augmentations_per_image: int = 2
    magnitude: float = 0.9

    def __post_init__(self) -> None:
        if self.augmentations_per_image not in range(_MOST_AUGMENTATIONS + 1):
            raise ValueError(
                f"expected augmentations_per_image from 0 to {_MOST_AUGMENTATIONS}, got "
                f"{self.augmentations_per_image}: there are {AUGMENT_RANDOMS} random numbers an image"
            )
        if not 0 <= self.magnitude <= 1:
            raise ValueError(f"expected magnitude from 0 to 1, got {self.magnitude}: divide the paper's M by 10")
        if not 0 <= self.flip_probability <= 1:
            raise ValueError(f"expected flip_probability from 0 to 1, got {self.flip_probability}: give a share")

    def __call__(self, images: tf.Tensor, random: tf.Tensor) -> tf.Tensor:
        """Augment and normalise a batch.

        Args:
          images: uint8 [B, H, W, 3].
          random: float32 [B, 10] uniform in [0, 1): flip, then which operation and how strong for each draw.

        Returns:
          float32 [B, H, W, 3], normalised by ImageNet's channel means and standard deviations.
        """
        flip = random[:, 0, None, None, None] < self.flip_probability
        images = tf.where(flip, tf.reverse(images, axis=[2]), images)
        count = self.augmentations_per_image
        draws = tf.reshape(random[:, 1 : 1 + 2 * count], [tf.shape(random)[0], count, 2])
        return normalise(_augmented(tf.cast(images, tf.float32), draws, self.magnitude))

    def of_one(self, image: tf.Tensor, random: tf.Tensor) -> tf.Tensor:
        """The same for one image: uint8 [H, W, 3], float32 [10] -> float32 [H, W, 3]."""
        return self(image[None], random[None])[0]


# A graph even in eager mode: keras-cv's equalize needs AutoGraph, and the same graph gives the same bits.
@tf.function
def _augmented(images: tf.Tensor, draws: tf.Tensor, magnitude: float) -> tf.Tensor:
    """Images float32 [B, H, W, 3] after `draws` (float32 [B, N, 2]), one by one: no image depends on the others."""

    def draw_one(image: tf.Tensor, draw: tf.Tensor) -> tf.Tensor:
        choice = tf.minimum(tf.cast(draw[0] * _NUM_CHOICES, tf.int32), _NUM_CHOICES - 1)
        branches = [functools.partial(_one, operation, image) for operation in _operations(magnitude, draw[1])]
        return tf.switch_case(choice, [*branches, functools.partial(tf.identity, image)])

    return tf.map_fn(
        lambda image_and_draws: tf.foldl(draw_one, image_and_draws[1], initializer=image_and_draws[0]),
        (images, draws),
        fn_output_signature=tf.TensorSpec(images.shape[1:], tf.float32),
    )


def _one(operation: Operation, image: tf.Tensor) -> tf.Tensor:
    return tf.ensure_shape(operation(image[None])[0], image.shape)


def _operations(magnitude: float, random: tf.Tensor) -> list[Operation]:
    """keras-cv's standard policy, in its order, with the strengths that `random` (float32 [], uniform) makes."""
    uniform = magnitude * (2.0 * random - 1.0)
    sign = tf.where(random < 0.5, -magnitude, magnitude)[None, None]
    there, still = uniform[None, None], tf.zeros([1, 1])
    return [
        _operation("AutoContrast"),
        _operation("Equalization"),
        _operation("Solarization", {"additions": 110 * magnitude, "thresholds": 255 - 255 * magnitude}),
        _operation("RandomColorDegeneration", magnitude),
        _operation("RandomContrast", 1.0 + uniform),
        _operation("RandomBrightness", 255.0 * uniform),
        _operation("RandomShear", {"shear_x": sign, "shear_y": None}),
        _operation("RandomShear", {"shear_x": None, "shear_y": sign}),
        _operation("RandomTranslation", {"width_translations": there, "height_translations": still}),
        _operation("RandomTranslation", {"width_translations": still, "height_translations": there}),
    ]


def _operation(layer: str, transformations: Any = None) -> Operation:
    return lambda image: _layer(layer).augment_images(image, transformations=transformations)


@functools.cache
def _layer(name: str) -> keras.layers.Layer:
    """A layer of keras-cv 0.9.0, the version that setup.py pins, without its own constructor.

    That would make a random generator, which TensorFlow refuses where operations have to be deterministic, and would
    take over the precision of the model, in which levels from 0 to 255 do not fit.
    """
    with contextlib.redirect_stdout(io.StringIO()):  # it says which backend it uses
        import keras_cv  # slow, and needed for this augmentation only

    layer_class = getattr(keras_cv.layers, name)
    layer = layer_class.__new__(layer_class)
    keras.layers.Layer.__init__(layer, dtype="float32")
    for setting, value in _SETTINGS.items():
        setattr(layer, setting, value)
    return layer
