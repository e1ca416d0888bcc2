"""Change the colours of images kept as planes: brightness, contrast, saturation and hue.

Channels are kept apart as [B, H, W] planes: the colour operations run 6 to 10 times faster than on
interleaved [B, H, W, 3] images.
"""

import tensorflow as tf

_HUE = 3  # number of the hue step among brightness, contrast, saturation, hue

Planes = list[tf.Tensor]  # a channel each, such as red, green, blue: float32 [B, H, W] in [0, 1]


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
    sixths += per_image(6.0 * shift)

    def channel(n: float) -> tf.Tensor:
        k = sixths + n
        k -= 6.0 * tf.floor(k * (1 / 6))  # four times as fast as floormod on CPUs
        return value - chroma * tf.clip_by_value(tf.minimum(k, 4.0 - k), 0.0, 1.0)

    return [channel(5.0), channel(3.0), channel(1.0)]


def colour_jitter(
    planes: Planes, orders: tf.Tensor, factors: list[tf.Tensor], shift: tf.Tensor
) -> Planes:
    """Change brightness, contrast, saturation and hue, for each image in an order of its own.

    Hue is by far the dearest step and is done once: three slots before it and three after it hold
    the other steps, and a step in a slot on the wrong side has factor 1, which changes nothing.

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
            per_image(step == 1),
            tf.reduce_mean(luma, axis=[1, 2], keepdims=True),
            tf.where(per_image(step == 2), luma, 0.0),
        )
        return _blend(planes, target, factor)

    for number in range(3):
        planes = slot(planes, number, number < hue_slot)
    planes = hue(planes, shift)
    for number in range(1, 4):
        planes = slot(planes, number, number > hue_slot)
    return planes


def brightness_and_contrast(planes: Planes, orders: tf.Tensor, factors: list[tf.Tensor]) -> Planes:
    """Change brightness and contrast of images of any channels, for each image in its own order.

    brightness: clip(f x), contrast: clip(f x + (1 - f) mean of the channel)

    Args:
      planes: float32 [B, H, W] in [0, 1], a channel each.
      orders: int32 [B, 4], as of `colour_jitter`; that of saturation and hue does not count.
      factors: two float32 [B], the same for all channels.

    Returns:
      As many float32 [B, H, W] in [0, 1].
    """
    position = tf.argsort(orders, axis=1)  # of each step in the order
    contrast_first = position[:, 1] < position[:, 0]
    for by_contrast in (contrast_first, ~contrast_first):
        factor, target = tf.where(by_contrast, factors[1], factors[0]), per_image(by_contrast)
        means = [tf.reduce_mean(plane, axis=[1, 2], keepdims=True) for plane in planes]
        planes = [
            _blend([plane], tf.where(target, mean, 0.0), factor)[0]
            for plane, mean in zip(planes, means)
        ]
    return planes


def per_image(values: tf.Tensor) -> tf.Tensor:
    """Give float32 [B] the shape [B, 1, 1] of planes."""
    return values[:, None, None]


def _blend(planes: Planes, target: tf.Tensor | float, factor: tf.Tensor) -> Planes:
    factor = per_image(factor)
    rest = (1.0 - factor) * target
    return [tf.clip_by_value(factor * plane + rest, 0.0, 1.0) for plane in planes]
