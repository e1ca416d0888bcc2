"""Write a shard of a packed data set in a process of its own."""

import errno
import hashlib
import multiprocessing
import os
import pathlib
import threading
from collections.abc import Callable, Iterable
from multiprocessing.sharedctypes import Synchronized
from multiprocessing.synchronize import Event
from typing import Any, BinaryIO, NamedTuple

from array_record.python.array_record_module import ArrayRecordWriter
from PIL import UnidentifiedImageError

from pic_tf.data.packing.bands import packed_bands
from pic_tf.data.packing.image import packed_image, trace_decoder
from pic_tf.data.sources.packed_format import WRITER_OPTIONS, Row
from pic_tf.data.sources.pixel_format import RGB, PixelFormat
from pic_tf.files.replaced import beside

# Errors that files make: Pillow's own, links that lead nowhere, places behind the end. All others
# are faults of the machine, which must not pass for those of an image.
_OF_IMAGES = (None, errno.ENOENT, errno.ELOOP, errno.EINVAL, errno.EOVERFLOW)


class Progress(NamedTuple):
    """Counters that the processes share.

    Attributes:
      tried: number of files looked at.
      left_out: number of those that were no images.
      stop: set after an error, for all processes to end.
    """

    tried: Synchronized
    left_out: Synchronized
    stop: Event


class Made(NamedTuple):
    """Outcome of the files for a shard.

    Attributes:
      rows: rows of the manifest; without any, there is no shard.
      left_out: name -> reason.
      source_bytes: size of the files that became records.
    """

    rows: list[Row]
    left_out: dict[str, str]
    source_bytes: int


def start_worker(progress: Progress) -> None:
    """Prepare a process that makes shards; it ends when the process that started it is gone."""
    global _progress
    _progress = progress
    trace_decoder()
    parent = multiprocessing.parent_process()
    if parent:
        threading.Thread(target=lambda: (parent.join(), os._exit(1)), daemon=True).start()


def make_shard(
    path: pathlib.Path,
    files: Iterable[tuple[str, Any]],
    fetch: Callable[[Any], tuple[BinaryIO, str]],
    short_side: int,
    quality: int,
    pixels: PixelFormat = RGB,
) -> Made:
    """Write a shard, as a whole or not at all.

    Args:
      path: the file.
      files: (name, key) of each file.
      fetch: from a key to the file's bytes and the name of its class.
      short_side: as of `packed_image`.
      quality: as of `packed_image`.
      pixels: format that images must have; RGB of 8 bits is made of any.

    Returns:
      The outcome of the files.

    Raises:
      ValueError: for a file that the machine does not give: no permission, a failing disk.
      OSError: if the shard cannot be written.
      InterruptedError: if `Progress.stop` was set.
    """
    rows, left_out, source_bytes = [], {}, 0
    aside = beside(path)
    try:
        writer = ArrayRecordWriter(os.fsencode(aside), WRITER_OPTIONS)
        for name, key in files:
            if _progress.stop.is_set():
                raise InterruptedError
            try:
                file, label = fetch(key)
                with file:
                    size = file.seek(0, os.SEEK_END)
                    if pixels == RGB:
                        encoded, width, height = packed_image(file, short_side, quality)
                    else:
                        encoded, width, height = packed_bands(file, short_side, pixels)
            except Exception as error:  # Pillow's decoders let nearly every kind out
                if isinstance(error, OSError) and error.errno not in _OF_IMAGES:
                    raise ValueError(
                        f"expected a readable file at {name!r}, got {error.strerror}: "
                        "mend this, and the same command goes on"
                    ) from error
                left_out[name] = _reason(error)
                _count(_progress.left_out)
            else:
                writer.write(encoded)
                sha256 = hashlib.sha256(encoded).hexdigest()
                rows.append(Row(name, label, width, height, len(encoded), sha256))
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


def _count(counter: Synchronized) -> None:
    with counter.get_lock():
        counter.value += 1


def _reason(error: Exception) -> str:
    if isinstance(error, UnidentifiedImageError):
        return "no image that Pillow can read"
    if isinstance(error, OSError):
        return error.strerror or str(error)
    return f"{type(error).__name__}: {error}"
