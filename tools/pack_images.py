"""A shard of a packed data set, made by one process: each image is verified, and kept as it is or shrunk."""

import hashlib
import io
import math
import multiprocessing
import os
import pathlib
import threading
import warnings
from collections.abc import Callable, Iterable
from multiprocessing.sharedctypes import Synchronized
from multiprocessing.synchronize import Event
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import tensorflow as tf
from array_record.python.array_record_module import ArrayRecordWriter
from PIL import Image, UnidentifiedImageError

from pic_tf.data import crops
from pic_tf.data.decode import bombs, headers
from pic_tf.data.sources.packed_format import WRITER_OPTIONS, Row

Image.init()
_FORMATS = [name for name in Image.OPEN if name != "EPS"]  # for that, Pillow would start another program
_EIGHT_BITS = (b"\x08\x00", b"\x08\x02")  # depth and colour type in the header of a PNG: gray, RGB
warnings.filterwarnings("ignore", module=r"PIL\.")  # of what Pillow reads all the same


class Progress(NamedTuple):
    """What the processes share.

    Attributes:
      tried: number of files looked at.
      left_out: how many of them were no images.
      stop: set where something failed, and all shall end.
    """

    tried: Synchronized
    left_out: Synchronized
    stop: Event


class Made(NamedTuple):
    """What became of the files for a shard.

    Attributes:
      rows: for the manifest; where there are none, there is no shard.
      left_out: name -> reason.
      source_bytes: size of the files that became records.
    """

    rows: list[Row]
    left_out: dict[str, str]
    source_bytes: int


def start_worker(progress: Progress) -> None:
    """To be called once in each process that makes shards; it ends when the process that started it is gone."""
    global _progress
    _progress = progress
    _decode.get_concrete_function()
    parent = multiprocessing.parent_process()
    if parent:
        threading.Thread(target=lambda: (parent.join(), os._exit(1)), daemon=True).start()


def make_shard(
    path: pathlib.Path,
    files: Iterable[tuple[str, Any]],
    fetch: Callable[[Any], tuple[BinaryIO, str]],
    short_side: int,
    quality: int,
) -> Made:
    """Write a shard; it is there as a whole or not at all.

    Args:
      path: the file.
      files: what each image is called, and what `fetch` takes.
      fetch: to a file's bytes and the name of its class.
      short_side: as of `packed_image`.
      quality: as of `packed_image`.

    Returns:
      What became of the files.

    Raises:
      OSError: where the shard cannot be written.
      InterruptedError: where `Progress.stop` was set.
    """
    rows, left_out, source_bytes, aside = [], {}, 0, path.with_name(path.name + ".partial")
    try:
        writer = ArrayRecordWriter(os.fsencode(aside), WRITER_OPTIONS)
        for name, key in files:
            if _progress.stop.is_set():
                raise InterruptedError
            try:
                file, label = fetch(key)
                with file:
                    size = file.seek(0, os.SEEK_END)
                    encoded, width, height = packed_image(file, short_side, quality)
            except Exception as error:  # Pillow's decoders let nearly every kind out
                left_out[name] = _reason(error)
                _count(_progress.left_out)
            else:
                writer.write(encoded)
                rows.append(Row(name, label, width, height, len(encoded), hashlib.sha256(encoded).hexdigest()))
                source_bytes += size
            _count(_progress.tried)
        writer.close()
        if rows:
            with open(aside, "rb") as written:
                os.fsync(written.fileno())
            os.replace(aside, path)
    except RuntimeError as error:  # ArrayRecord's only kind
        raise OSError(str(error)) from error
    finally:
        aside.unlink(missing_ok=True)
    return Made(rows, left_out, source_bytes)


def packed_image(file: BinaryIO, short_side: int, quality: int) -> tuple[bytes, int, int]:
    """Decode an image to its last pixel, and return what to store of it.

    That is the file itself, if it is a JPEG (gray or colour) or a PNG (gray or RGB of 8 bits, not animated) whose short
    side is `short_side` at most, and the decoder of training reads it. Otherwise it is a JPEG of the picture in RGB,
    shrunk to `short_side` as torchvision's Resize does: of an animation the first frame, of 16 bits the upper 8,
    without alpha. The orientation that a camera noted is passed over, as in training from a folder.

    Args:
      file: an image in a format that Pillow reads.
      short_side: pixels; 0 to keep the size.
      quality: of the JPEG.

    Returns:
      (bytes, width, height).

    Raises:
      Exception: of any kind, where it is damaged or no image, or larger than `bombs.MAX_PIXELS`.
    """
    file.seek(0)
    with Image.open(file, formats=_FORMATS) as image:
        image.load()
        kept = _kept(image, file, short_side)
        if kept is not None:
            return kept, *image.size
        picture = _rgb(image)
    width, height = picture.size
    short = min(width, height)
    if short_side and short > short_side:
        width, height = (short_side if side == short else int(short_side * side / short) for side in picture.size)
        picture = picture.resize((width, height), Image.Resampling.BILINEAR)
    picture.info.clear()  # Pillow would store a comment
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=quality)
    return buffer.getvalue(), width, height


def _kept(image: Image.Image, file: BinaryIO, short_side: int) -> bytes | None:
    """The file itself, if it can stay as it is."""
    if image.format not in ("JPEG", "PNG") or (short_side and min(image.size) > short_side):
        return None
    file.seek(0)
    encoded = file.read()
    if image.format == "JPEG":
        plain = image.mode in ("L", "RGB")
    else:
        plain = encoded[24:26] in _EIGHT_BITS and not image.is_animated
    return encoded if plain and _trains(encoded) else None


def _trains(encoded: bytes) -> bool:
    try:
        _decode([encoded])
        return True
    except tf.errors.OpError:
        return False


@tf.function(input_signature=[tf.TensorSpec([1], tf.string)])
def _decode(encoded: tf.Tensor) -> tf.Tensor:
    encoded = bombs.harmless(encoded)
    size = headers.sizes(encoded)[0]
    return crops.crop_encoded(encoded[0], size, tf.concat([[0, 0], size], axis=0)[None], [crops.Crop(size=1)])[0]


def _rgb(image: Image.Image) -> Image.Image:
    """The picture as a viewer shows it; Pillow alone would clip all above 255."""
    if image.mode == "F" or image.mode.startswith("I"):
        levels = np.asarray(image)
        if image.mode.startswith("I;16") or (image.mode == "I" and image.format in ("PNG", "PPM")):
            levels = levels >> 8
        else:  # no scale of its own: from the darkest pixel to the brightest
            low, high = float(levels.min()), float(levels.max())
            if not math.isfinite(high - low):
                raise ValueError("pixels that are not finite")
            levels = (levels - low) * (255 / max(high - low, 1e-30))
        image = Image.fromarray(levels.astype(np.uint8))
    return image.convert("RGB")


def _count(counter: Synchronized) -> None:
    with counter.get_lock():
        counter.value += 1


def _reason(error: Exception) -> str:
    if isinstance(error, UnidentifiedImageError):
        return "no image that Pillow can read"
    if isinstance(error, OSError):
        return error.strerror or str(error)
    return f"{type(error).__name__}: {error}"
