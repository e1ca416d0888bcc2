"""Decode whole pictures in the graph, as Pillow's convert("RGB") shows them."""

from collections.abc import Callable

import tensorflow as tf

from pic_tf.data.decode import headers
from pic_tf.data.decode.bombs import MAX_PIXELS, check_size
from pic_tf.data.sources.formats import (
    GIF_START,
    JPEG_START,
    NAMES,
    READS_WEBP,
    WEBP_STARTS,
    is_webp,
)

_CHROMA_MARGIN = 2  # pixels decoded around the window of a JPEG: subsampled chroma has neighbours
_CHARACTERS = [bytes([i]) for i in range(256)]
_EXTENSION, _CONTROL, _FRAME = 0x21, 0xF9, 0x2C  # bytes that begin parts of a GIF
_GIF_PALETTE = 13  # where the palette of all frames begins


def decode_window(
    encoded: tf.Tensor, height_width: tf.Tensor, origin: tf.Tensor, extent: tf.Tensor
) -> tf.Tensor:
    """Decode a window of a JPEG, a PNG or a WebP; of a JPEG not much more than the window.

    Args:
      encoded: scalar string.
      height_width: int32 [2], size of the image in pixels.
      origin: int32 [2], top and left of the window.
      extent: int32 [2], height and width of the window.

    Returns:
      uint8 [h, w, 3], bit for bit as PIL decodes it.

    Raises:
      tf.errors.InvalidArgumentError: at run time, for bytes that cannot be decoded.
    """
    return tf.cond(
        tf.io.is_jpeg(encoded),
        lambda: _window_of_jpeg(encoded, height_width, origin, extent),
        lambda: cut(decode_png_or_webp(encoded), origin, extent),
    )


def cut(image: tf.Tensor, origin: tf.Tensor, extent: tf.Tensor) -> tf.Tensor:
    """Cut the window at int32 [2] `origin` of int32 [2] `extent` out of an image [H, W, C]."""
    return image[origin[0] : origin[0] + extent[0], origin[1] : origin[1] + extent[1]]


def decode_png_or_webp(encoded: tf.Tensor) -> tf.Tensor:
    """Decode a PNG or a WebP that has a size (`headers.sizes`); alpha is dropped.

    Args:
      encoded: scalar string.

    Returns:
      uint8 [H, W, 3].

    Raises:
      tf.errors.InvalidArgumentError: at run time, for bytes that cannot be decoded.
    """
    if not READS_WEBP:
        return tf.io.decode_png(encoded, channels=3)
    return tf.cond(
        _starts(encoded, WEBP_STARTS[0]),
        lambda: tf.io.decode_webp(encoded, channels=0)[0, :, :, :3],
        lambda: tf.io.decode_png(encoded, channels=3),
    )


def decode_picture(encoded: tf.Tensor) -> tf.Tensor:
    """Decode a JPEG, PNG, still WebP, the first frame of a GIF, or an uncompressed BMP.

    Args:
      encoded: scalar string.

    Returns:
      uint8 [H, W, 3], the levels of Pillow's convert("RGB"); of 16 bits the upper 8.

    Raises:
      tf.errors.InvalidArgumentError: at run time, for anything else.
    """
    decode = _either(_starts(encoded, b"BM"), _bmp, _png_or_webp)
    decode = _either(_starts(encoded, GIF_START), _gif, decode)
    return _either(tf.io.is_jpeg(encoded), _jpeg, decode)(encoded)


def reason(encoded: bytes) -> str:
    """The reason why an image cannot be decoded, in a few words; "" for damage inside."""
    if encoded.startswith(GIF_START):
        return "a GIF, which tools/pack.py converts"
    if is_webp(encoded) and not READS_WEBP:
        return "a WebP, which tools/pack.py converts"
    if is_webp(encoded) and headers.is_animated_webp(encoded):
        return "an animated WebP, which tools/pack.py converts"
    if not encoded.startswith((JPEG_START, headers.PNG_HEADER)) and not is_webp(encoded):
        return f"no {NAMES}"
    height, width = headers.sizes(tf.constant([encoded])).numpy()[0].tolist()
    if encoded.startswith(headers.PNG_HEADER):
        try:
            width, height = headers.png_size(encoded)
        except ValueError:
            return "its header is damaged"
    if min(height, width) < 1:
        return "its header is damaged"
    if height * width > MAX_PIXELS:
        return f"{width:,} x {height:,} pixels, more than {MAX_PIXELS:,}"
    return ""


_Decode = Callable[[tf.Tensor], tf.Tensor]


def _window_of_jpeg(
    encoded: tf.Tensor, height_width: tf.Tensor, origin: tf.Tensor, extent: tf.Tensor
) -> tf.Tensor:
    # A JPEG decoder smooths chroma across neighbours: decode some of them too, then cut them off.
    before = tf.minimum(origin, _CHROMA_MARGIN)
    end = tf.minimum(origin + extent + _CHROMA_MARGIN, height_width)
    window = tf.concat([origin - before, end - origin + before], axis=0)
    decoded = tf.image.decode_and_crop_jpeg(
        encoded, window, channels=3, dct_method="INTEGER_ACCURATE"
    )
    return cut(decoded, before, extent)


def _either(is_one: tf.Tensor, one: _Decode, other: _Decode) -> _Decode:
    return lambda encoded: tf.cond(is_one, lambda: one(encoded), lambda: other(encoded))


def _jpeg(encoded: tf.Tensor) -> tf.Tensor:
    return tf.io.decode_jpeg(encoded, channels=3, dct_method="INTEGER_ACCURATE")


def _png_or_webp(encoded: tf.Tensor) -> tf.Tensor:
    # The WebP decoder of TensorFlow 2.21 ends the process at an animation, which has no size here.
    head = _starts(encoded, WEBP_STARTS[0])
    fine = ~head | tf.reduce_all(headers.webp_sizes(encoded[None]) > 0)
    with tf.control_dependencies([tf.debugging.Assert(fine, ["expected a still WebP"])]):
        return decode_png_or_webp(tf.identity(encoded))


def _bmp(encoded: tf.Tensor) -> tf.Tensor:
    """uint8 [H, W, 3] of a BMP; of 8 bits the levels in its palette, which the decoder passes over.

    Source: BITMAPINFOHEADER, https://learn.microsoft.com/windows/win32/api/wingdi.
    """
    head = tf.cast(tf.io.decode_raw(encoded, tf.uint8, fixed_length=54), tf.int32)
    bits, compression = _number(head, 28, 2), _number(head, 30, 4)
    plain = (compression == 0) & ((bits == 8) | (bits == 24) | (bits == 32))
    known = tf.debugging.Assert(
        plain, ["expected an uncompressed BMP of 8, 24 or 32 bits, got", bits, compression]
    )

    def through_palette() -> tf.Tensor:
        end = tf.strings.length(encoded)
        start = tf.minimum(14 + _number(head, 14, 4), end)
        colours = tf.io.decode_raw(tf.strings.substr(encoded, start, 4 * 256), tf.uint8)
        colours = tf.reshape(colours[: tf.size(colours) // 4 * 4], [-1, 4])[:, 2::-1]
        return tf.gather(colours, tf.cast(tf.io.decode_bmp(encoded)[..., 0], tf.int32))

    with tf.control_dependencies([known]):
        return tf.cond(bits == 8, through_palette, lambda: tf.io.decode_bmp(encoded, channels=3))


def _gif(encoded: tf.Tensor) -> tf.Tensor:
    """uint8 [H, W, 3] of the first frame of a GIF on its screen.

    The decoder draws transparent pixels in black and knows no screen: it gets the frame as an
    opaque one in the corner. Around the frame is the transparent colour, or the first one.

    Source: https://www.w3.org/Graphics/GIF/spec-gif89a.txt.
    """
    data = tf.cast(tf.io.decode_raw(encoded, tf.uint8), tf.int32)
    data = tf.pad(data, [[0, 20]])  # of a file that breaks off
    frame, control = _first_frame(data)
    left, top, width, height = (_number(data, frame + i, 2) for i in (1, 3, 5, 7))
    screen = [
        tf.maximum(_number(data, 8, 2), top + height),
        tf.maximum(_number(data, 6, 2), left + width),
    ]
    # The byte of flags; without a control block any other, which stays as it is.
    place = tf.where(control > 0, control + 3, 0)
    flags = data[place]
    transparent = tf.where((control > 0) & (flags & 1 == 1), data[control + 6], 0)
    opaque = [
        tf.strings.substr(encoded, 0, place),
        tf.gather(_CHARACTERS, tf.where(control > 0, flags & 0xFE, flags)),
        tf.strings.substr(encoded, place + 1, frame - place),
        tf.constant(bytes(4)),
        tf.strings.substr(encoded, frame + 5, tf.strings.length(encoded)),
    ]
    own, shared = data[frame + 9] & 0x80 > 0, data[10] & 0x80 > 0
    entry = tf.where(own, frame + 10, _GIF_PALETTE) + 3 * transparent
    colour = tf.where(own | shared, data[entry : entry + 3], transparent)
    margins = [[top, screen[0] - top - height], [left, screen[1] - left - width]]
    with tf.control_dependencies([check_size(tf.stack(screen))]):  # before there is memory for it
        picture = tf.io.decode_image(tf.strings.join(opaque), channels=3, expand_animations=False)
        inside = tf.pad(tf.ones([height, width], tf.bool), margins)
    picture = tf.ensure_shape(picture, [None, None, 3])[:height, :width]
    colour = tf.cast(colour, tf.uint8)
    return tf.where(inside[..., None], tf.pad(picture, [*margins, [0, 0]]), colour)


def _first_frame(data: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Positions of the first frame of a GIF (int32 [n]) and of its control block, 0 for none."""
    last = tf.size(data) - 1

    def more(at: tf.Tensor, control: tf.Tensor, inside: tf.Tensor) -> tf.Tensor:
        return (at < last) & (inside | (data[at] == _EXTENSION))

    def next_block(at: tf.Tensor, control: tf.Tensor, inside: tf.Tensor):
        begins = ~inside & (data[tf.minimum(at + 1, last)] == _CONTROL)
        ahead = tf.where(inside, 1 + data[at], 2)
        return (
            tf.minimum(at + ahead, last),
            tf.where(begins, at, control),
            ~inside | (data[at] != 0),
        )

    shared = tf.where(data[10] & 0x80 > 0, 3 * 2 ** ((data[10] & 7) + 1), 0)
    start = (_GIF_PALETTE + shared, tf.constant(0), tf.constant(False))
    frame, control, _ = tf.while_loop(more, next_block, start)
    frame = tf.minimum(frame, last)
    found = tf.debugging.Assert(
        (data[frame] == _FRAME) & (frame < last - 9), ["expected a frame in a GIF, got none"]
    )
    with tf.control_dependencies([found]):
        return tf.identity(frame), tf.identity(control)


def _starts(encoded: tf.Tensor, start: bytes) -> tf.Tensor:
    return tf.strings.substr(encoded, 0, len(start)) == start


def _number(data: tf.Tensor, at: tf.Tensor | int, count: int) -> tf.Tensor:
    """The number in `count` bytes, the lowest first."""
    return tf.add_n([data[at + i] * 256**i for i in range(count)])
