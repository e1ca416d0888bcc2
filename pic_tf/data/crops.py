"""Decode, crop and resize on the host, as torchvision's RandomResizedCrop and PIL do.

Windows are drawn by torchvision's law; views are resized by PIL's bilinear filter.
"""

import dataclasses
import math
import re
from collections.abc import Sequence

import tensorflow as tf

from pic_tf.data.decode import bombs
from pic_tf.data.decode.decoder import decoder
from pic_tf.data.sources.pixel_format import RGB, PixelFormat

CROP_RANDOMS = 22  # uniform numbers a random crop uses: 10 areas, 10 aspect ratios, row, column
_TRIES = 10


@dataclasses.dataclass(frozen=True)
class Crop:
    """Random crops of one kind that a step takes of each image.

    Attributes:
      size: side of a view in pixels.
      scale: least and largest area of the window as a share of the image.
      count: number of crops, >= 1.

    Source: several sizes at once as in SwAV's multi-crop (https://arxiv.org/abs/2006.09882,
    Section 3.2).
    """

    size: int
    scale: tuple[float, float] = (0.08, 1.0)
    count: int = 1


def parse_crops(text: str) -> tuple[Crop, ...]:
    """Read kinds of crops from a text like "1x160@0.14-1.0,3x96@0.08-0.14".

    Each kind is COUNTxSIZE@LEAST-LARGEST.

    Raises:
      ValueError: for another form, or numbers out of range.
    """
    crops = []
    for part in text.split(","):
        found = re.fullmatch(r"(\d{1,4})x(\d{1,4})@([\d.]+)-([\d.]+)", part.strip())
        kinds = (int, int, float, float)
        try:
            count, size, least, largest = (kind(x) for kind, x in zip(kinds, found.groups()))
        except (AttributeError, ValueError):
            count = size = least = largest = 0
        if not (count >= 1 and size >= 1 and 0 < least <= largest <= 1):
            raise ValueError(
                "expected crops as COUNTxSIZE@LEAST-LARGEST with 0 < LEAST <= LARGEST <= 1, like "
                f"1x160@0.14-1.0,3x96@0.08-0.14, got {part!r}"
            )
        crops.append(Crop(size, (least, largest), count))
    return tuple(crops)


def total(crops: Sequence[Crop]) -> int:
    """V, the number of views of an image in a step."""
    return sum(crop.count for crop in crops)


def random_window(
    random: tf.Tensor,
    height: tf.Tensor,
    width: tf.Tensor,
    scale: tuple[float, float] = (0.08, 1.0),
    ratio: tuple[float, float] = (3 / 4, 4 / 3),
) -> tf.Tensor:
    """Draw windows of random area and aspect ratio.

    Ten times: area a ~ U(scale) H W, aspect r ~ exp(U(log ratio)), w = round(sqrt(a r)),
    h = round(sqrt(a / r)); the first that fits is placed uniformly. If none fits, the largest
    centred window whose aspect lies within `ratio`.

    Args:
      random: float32 [b, 22] uniform in [0, 1).
      height: int32 [b] image heights in pixels.
      width: int32 [b] image widths in pixels.
      scale: least and largest share of the image's area.
      ratio: least and largest width / height.

    Returns:
      int32 [b, 4]: top, left, height, width in pixels.

    Source: torchvision.transforms.RandomResizedCrop (get_params).
    """
    h, w = tf.cast(height, tf.float32), tf.cast(width, tf.float32)
    area = (h * w)[:, None] * (scale[0] + (scale[1] - scale[0]) * random[:, :_TRIES])
    low, high = math.log(ratio[0]), math.log(ratio[1])
    aspect = tf.exp(low + (high - low) * random[:, _TRIES : 2 * _TRIES])
    crop_w = tf.cast(tf.round(tf.sqrt(area * aspect)), tf.int32)
    crop_h = tf.cast(tf.round(tf.sqrt(area / aspect)), tf.int32)
    fits = (crop_w > 0) & (crop_w <= width[:, None]) & (crop_h > 0) & (crop_h <= height[:, None])
    first = tf.argmax(tf.cast(fits, tf.int32), axis=1)
    crop_w = tf.gather(crop_w, first, batch_dims=1)
    crop_h = tf.gather(crop_h, first, batch_dims=1)
    top = _uniform_integer(random[:, 2 * _TRIES], height - crop_h + 1)
    left = _uniform_integer(random[:, 2 * _TRIES + 1], width - crop_w + 1)

    widest = tf.cast(tf.round(h * ratio[1]), tf.int32)
    tallest = tf.cast(tf.round(w / ratio[0]), tf.int32)
    central_w, central_h = tf.minimum(width, widest), tf.minimum(height, tallest)
    drawn = [top, left, crop_h, crop_w]
    central = [(height - central_h) // 2, (width - central_w) // 2, central_h, central_w]
    any_fits = tf.reduce_any(fits, axis=1)
    return tf.stack([tf.where(any_fits, *pair) for pair in zip(drawn, central)], axis=1)


def central_window(height: tf.Tensor, width: tf.Tensor, fraction: float) -> tf.Tensor:
    """Place a centred square with `fraction` of the image's short side.

    `fraction` = 224 / 256 is the usual Resize(256), CenterCrop(224) in one step.

    Args:
      height: int32 [b] pixels.
      width: int32 [b] pixels.
      fraction: in (0, 1].

    Returns:
      int32 [b, 4]: top, left, height, width in pixels.
    """
    short = tf.cast(tf.minimum(height, width), tf.float32)
    side = tf.maximum(tf.cast(tf.round(short * fraction), tf.int32), 1)
    return tf.stack([(height - side) // 2, (width - side) // 2, side, side], axis=1)


def crop_arrays(images: tf.Tensor, windows: tf.Tensor, size: int) -> tf.Tensor:
    """Cut a window out of each image and resize it, the whole batch as two matrix products.

    out = A image B^T with A, B the rows of PIL's triangle filter.

    Args:
      images: uint8 or uint16 [b, H, W, C].
      windows: int32 [b, 4]: top, left, height, width in pixels.
      size: output side in pixels.

    Returns:
      [b, size, size, C] of the same type.
    """
    rows = _filter_matrix(windows[:, 0], windows[:, 2], images.shape[1], size)
    columns = _filter_matrix(windows[:, 1], windows[:, 3], images.shape[2], size)
    resized = tf.einsum("bih,bhwc,bjw->bijc", rows, tf.cast(images, tf.float32), columns)
    return _to_levels(resized, images.dtype)


def crop_encoded(
    encoded: tf.Tensor,
    height_width: tf.Tensor,
    windows: tf.Tensor,
    crops: Sequence[Crop],
    pixels: PixelFormat = RGB,
) -> list:
    """Decode one encoded image once, as far as its windows reach, and resize each of them.

    Of a JPEG only the part that holds all windows is decoded, bit for bit as PIL decodes it. The
    resize antialiases only where it shrinks; elsewhere the two filters are the same.

    Args:
      encoded: scalar string, the bytes of an image, from `Decoder.harmless`.
      height_width: int32 [2], its size in pixels (`Decoder.sizes`).
      windows: int32 [V, 4], one a crop: top, left, height, width in pixels.
      crops: their sizes, V views in all.
      pixels: format of the image.

    Returns:
      [count, size, size, C] of each of `crops`, uint8 or uint16.

    Raises:
      tf.errors.InvalidArgumentError: at run time, for bytes that cannot be decoded and for too
      large an image.
    """
    origin = tf.reduce_min(windows[:, :2], axis=0)
    extent = tf.reduce_max(windows[:, :2] + windows[:, 2:], axis=0) - origin
    with tf.control_dependencies([bombs.check_size(height_width)]):
        image = decoder(pixels).decode_window(tf.identity(encoded), height_width, origin, extent)
    image.set_shape([None, None, pixels.channels])
    corners = tf.unstack(windows[:, :2] - origin, total(crops))
    extents = tf.unstack(windows[:, 2:], total(crops))
    views = iter(
        _resize(image[top : top + height, left : left + width], size)
        for (top, left), (height, width), size in zip(
            map(tf.unstack, corners),
            map(tf.unstack, extents),
            (crop.size for crop in crops for _ in range(crop.count)),
        )
    )
    return [tf.stack([next(views) for _ in range(crop.count)]) for crop in crops]


def central_view(
    encoded: tf.Tensor, fraction: float, size: int, pixels: PixelFormat = RGB
) -> tf.Tensor:
    """The centred square of one encoded image, resized, as evaluations see it, without any Python.

    Args:
      encoded: scalar string, the bytes of an image as `Decoder.decode` reads it.
      fraction: side of the square, share of the image's short side, in (0, 1].
      size: output side in pixels.
      pixels: format of the image.

    Returns:
      [size, size, C], uint8 or uint16.

    Raises:
      tf.errors.InvalidArgumentError: at run time, for bytes that cannot be decoded.
    """
    image = decoder(pixels).decode(encoded)
    shape = tf.shape(image)
    top, left, side, _ = tf.unstack(central_window(shape[:1], shape[1:2], fraction)[0])
    return _resize(image[top : top + side, left : left + side], size)


def _resize(image: tf.Tensor, size: int) -> tf.Tensor:
    """[H, W, C] -> [size, size, C], uint8 or uint16, by PIL's bilinear filter."""
    shape = tf.shape(image)[:2]
    # The ops themselves: `tf.image.resize` adds a dozen small ones, a cost at 20,000 images/s.
    resized = tf.cond(
        tf.reduce_any(shape > size),
        lambda: tf.raw_ops.ScaleAndTranslate(
            images=image[None],
            size=[size, size],
            scale=size / tf.cast(shape, tf.float32),
            translation=[0.0, 0.0],
            kernel_type="triangle",
            antialias=True,
        ),
        lambda: tf.raw_ops.ResizeBilinear(
            images=tf.cast(image, tf.float32)[None], size=[size, size], half_pixel_centers=True
        ),
    )
    return tf.ensure_shape(_to_levels(resized[0], image.dtype), [size, size, image.shape[2]])


def _filter_matrix(start: tf.Tensor, length: tf.Tensor, in_size: int, out_size: int) -> tf.Tensor:
    """Rows of PIL's bilinear filter for a window of a line of pixels: float32 [b, out, in].

    Output i looks at c = start + (i + 1/2) length / out_size with the triangle
    max(0, 1 - |p + 1/2 - c| / s), s = max(1, length / out_size), over the window's pixels p,
    normalised to sum 1.
    """
    start, length = (tf.cast(x, tf.float32)[:, None, None] for x in (start, length))
    step = length / out_size
    centre = start + (tf.range(out_size, dtype=tf.float32)[:, None] + 0.5) * step
    pixel = tf.range(in_size, dtype=tf.float32) + 0.5
    weight = tf.maximum(1.0 - tf.abs(pixel - centre) / tf.maximum(step, 1.0), 0.0)
    weight = tf.where((pixel > start) & (pixel < start + length), weight, 0.0)
    return weight / tf.reduce_sum(weight, axis=2, keepdims=True)


def _uniform_integer(random: tf.Tensor, count: tf.Tensor) -> tf.Tensor:
    """floor(random * count), kept below `count` where float32 rounds up."""
    return tf.minimum(tf.cast(random * tf.cast(count, tf.float32), tf.int32), count - 1)


def _to_levels(image: tf.Tensor, dtype: tf.DType) -> tf.Tensor:
    # Means of levels, up to 255 or 65535, need no clipping: rounding adds far less than half a one.
    return tf.cast(tf.round(image), dtype)
