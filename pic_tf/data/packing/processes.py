"""Pack all parts of a source with processes of its own."""

import contextlib
import multiprocessing
import os
import pathlib
import signal
from collections.abc import Iterator
from concurrent.futures import Executor, ProcessPoolExecutor

from pic_tf.data.decode.bands import decodes
from pic_tf.data.packing.files import list_files
from pic_tf.data.packing.pack import Packed, pack
from pic_tf.data.packing.shard import Progress, start_worker
from pic_tf.data.sources.band_formats import tifffile_module
from pic_tf.data.sources.pixel_format import RGB, PixelFormat
from pic_tf.files.lock import exclusive

_FEWEST = 256  # images in a shard that is made smaller so that all processes have something to do


def pack_source(
    source: str,
    label_map: str,
    output: pathlib.Path,
    short_side: int,
    quality: int,
    images_per_shard: int,
    workers: int,
    split_folders: str = "auto",
    pixels: PixelFormat = RGB,
) -> Iterator[Packed]:
    """Pack all parts of a source, one after another.

    Args:
      source: as of `list_files`.
      label_map: as of `list_files`.
      output: folder of the packed data set, or of those in `train` and `val`.
      short_side: as of `pack`.
      quality: as of `pack`.
      images_per_shard: largest number of images in a shard; fewer where some processes would have
        nothing to do.
      workers: processes at most.
      split_folders: as of `list_files`.
      pixels: as of `pack`.

    Yields:
      The outcome of each part.

    Raises:
      ValueError: for a source without files, or an output that is no packed data set or is in use.
      OSError: if the output cannot be written.
    """
    if not decodes(pixels):
        tifffile_module()  # it stops here where that is missing
    parts = list_files(source, label_map, split_folders)
    if output.resolve().is_relative_to(pathlib.Path(source).resolve()):
        raise ValueError(
            f"expected --output outside of --source, got {str(output)!r}: it would be packed too"
        )
    output.mkdir(parents=True, exist_ok=True)
    largest = max(len(files.named) for files in parts.values())
    workers = min(workers, -(-largest // min(_FEWEST, images_per_shard)))
    context = multiprocessing.get_context("spawn")
    progress = Progress(context.Value("q"), context.Value("q"), context.Event())
    with exclusive(output / ".lock"), _processes(workers, progress) as executor:
        for part, files in parts.items():
            per_shard = min(images_per_shard, max(_FEWEST, -(-len(files.named) // workers)))
            workers_and_format = executor, progress, pixels
            yield pack(files, output / part, short_side, quality, per_shard, *workers_and_format)


@contextlib.contextmanager
def _processes(count: int, progress: Progress) -> Iterator[Executor]:
    """Start processes of one thread and without a GPU.

    They ignore Ctrl-C: this process tells them to stop.
    """
    os.environ |= {
        "CUDA_VISIBLE_DEVICES": "-1",
        "TF_NUM_INTRAOP_THREADS": "1",
        "TF_NUM_INTEROP_THREADS": "1",
    }
    context = multiprocessing.get_context("spawn")
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # they inherit it
    executor = ProcessPoolExecutor(count, context, start_worker, (progress,))
    for _ in range(count):
        executor.submit(int)  # starts one
    signal.signal(signal.SIGINT, before)
    with executor:
        yield executor
