"""Pack images into a few large files that are read at random: no search for a million files, and little to decode.

    python tools/pack.py --source=FOLDER --output=PACKED
    python tools/pack.py --source=tfds:NAME --output=PACKED
    python tools/pack.py --source=train.zip --map=train_map.txt --output=PACKED
    python tools/pack.py --verify --output=PACKED

FOLDER is nested as you like; where all images lie in sub-folders, of which there are two at least, the first names the
class. With `train` and `val`, `validation` or `test` inside, or with train.zip, train_map.txt, val.zip and val_map.txt,
PACKED/train and PACKED/val are made. Every file is tried, in any format that Pillow reads; what is no image, or a
damaged one, is named in left_out.csv.

JPEGs and PNGs whose short side is at most --short_side stay as they are. All others are shrunk to it and stored as
JPEGs of --quality. What the quality costs, on 200 photographs of ImageNet (short side 256, mean size of the originals
117 KB), against the pictures before they were compressed:

    --quality    mean size    PSNR       decoding
    85             21.6 KB    35.8 dB    0.82 ms
    90             26.9 KB    37.2 dB    0.82 ms
    95             38.3 KB    39.3 dB    1.02 ms

The same command goes on with a packing that was stopped, and appends images that are new; the ids of those that are
packed never change.

Exit codes: 0 done; 1 wrong input, a packing that cannot go on, or a damaged data set; 130 stopped by Ctrl-C.
"""

import contextlib
import csv
import dataclasses
import functools
import multiprocessing
import os
import pathlib
import re
import signal
import sys
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool

from absl import app, flags
from tqdm import tqdm

from pic_tf.files.quiet import import_tensorflow

import_tensorflow()

from pack_images import Made, Progress, make_shard, start_worker
from pack_sources import Files, open_source

from pic_tf.data.sources.packed import damaged_records, is_packed, open_packed
from pic_tf.data.sources.packed_format import (
    Description,
    read_description,
    read_manifest,
    write_description,
    write_manifest,
)
from pic_tf.files.command_line import only_flags
from pic_tf.files.lock import exclusive
from pic_tf.files.replaced import replaced

LEFT_OUT = "left_out.csv"
_FEWEST = 256  # images in a shard that is made smaller so that all processes have something to do
_UNFINISHED = re.compile(r"images-\d{5,}\.(arrayrecord|arrayrecord\.partial|csv|partial)|(dataset|left_out)\.partial")


def pack(
    files: Files,
    folder: pathlib.Path,
    short_side: int,
    quality: int,
    images_per_shard: int,
    executor: Executor,
    progress: Progress,
) -> None:
    """Pack what is not packed yet. At any moment the folder holds a whole data set, or none.

    Shards are made in parallel and taken into the data set one by one in their order, so that images get their ids in
    the order of the files, however many processes there are.

    Args:
      files: what to pack.
      folder: the packed data set, to make or to append to.
      short_side: pixels to shrink to; 0 to keep the sizes.
      quality: of JPEGs.
      images_per_shard: at most.
      executor: runs `make_shard`, after `start_worker`.
      progress: what it counts in.

    Raises:
      ValueError: for a data set that is damaged, or was packed in another way, or where no file is an image.
      OSError: where it cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    description, packed = _so_far(folder, short_side, quality)
    class_names = dict.fromkeys((*description.class_names, *files.class_names))
    description = dataclasses.replace(description, class_names=tuple(class_names))
    todo = [(name, key) for name, key in files.named if name not in packed]
    done, left_out, begin = Counter(), {}, time.monotonic()
    with _bar(folder, len(todo), progress) as bar:
        futures = {}
        first = max((int(re.search(r"\d+", shard.file)[0]) + 1 for shard in description.shards), default=0)
        for number, start in enumerate(range(0, len(todo), images_per_shard), first):
            file, some = f"images-{number:05d}.arrayrecord", todo[start : start + images_per_shard]
            futures[file] = executor.submit(make_shard, folder / file, some, files.fetch, short_side, quality)
        for file in list(futures):
            made = _result(futures.pop(file), bar, progress)
            if made.rows:
                shard = write_manifest(folder, file, len(packed) + done["images"], made.rows)
                description = dataclasses.replace(description, shards=(*description.shards, shard))
                write_description(folder, description)
                done.update(images=len(made.rows), shards=1, source_bytes=made.source_bytes)
                done.update(packed_bytes=sum(row.size for row in made.rows))
            left_out |= made.left_out
            _write_left_out(folder, left_out)
    if not description.shards:
        raise ValueError(f"expected images to pack, got none in {len(todo):,} files: {folder / LEFT_OUT} says why")
    _drop_unused_classes(folder, description)
    print(
        f"packed {done['images']:,} images in {done['shards']:,} shards, "
        f"{done['images'] / (time.monotonic() - begin):,.0f} images/s: {done['packed_bytes'] / 1e6:,.1f} MB "
        f"of {done['source_bytes'] / 1e6:,.1f} MB\nleft out {len(left_out):,}, see {folder / LEFT_OUT}\n"
        f"{folder} holds {len(packed) + done['images']:,} images",
        flush=True,
    )


def _so_far(folder: pathlib.Path, short_side: int, quality: int) -> tuple[Description, set[str]]:
    """The data set in a folder and the names in it; what a packing that was stopped left besides is removed."""
    description, packed = Description((), short_side, quality, ()), set()
    if is_packed(folder):
        description, packed = read_description(folder), set(open_packed(folder).names)
        if (description.short_side, description.quality) != (short_side, quality):
            raise ValueError(
                f"expected --short_side={description.short_side} --quality={description.quality}, by which "
                f"{str(folder)!r} was packed, got {short_side} and {quality}: name those, or another --output"
            )
    known = {pathlib.Path(shard.file).stem for shard in description.shards}
    for path in folder.iterdir():
        if _UNFINISHED.fullmatch(path.name) and not (path.stem in known and path.suffix != ".partial"):
            path.unlink()
    return description, packed


@contextlib.contextmanager
def _bar(folder: pathlib.Path, total: int, progress: Progress) -> Iterator[tqdm]:
    """A bar that counts from zero; where something fails, all processes are told to stop."""
    progress.tried.value = progress.left_out.value = 0
    bar_format = "{desc}: {n_fmt}/{total_fmt} images|{bar:20}| {elapsed}, {remaining} left, {rate_fmt}{postfix}"
    with tqdm(total=total, unit=" images", desc=folder.name, bar_format=bar_format) as bar:
        try:
            yield bar
        except BaseException:
            progress.stop.set()
            raise


def _result(future: Future, bar: tqdm, progress: Progress) -> Made:
    """Wait, and move the bar meanwhile."""
    while not wait([future], timeout=0.2).done:
        bar.set_postfix_str(f"{progress.left_out.value:,} left out", refresh=False)
        bar.update(progress.tried.value - bar.n)
    bar.update(progress.tried.value - bar.n)
    return future.result()


def _write_left_out(folder: pathlib.Path, left_out: dict[str, str]) -> None:
    with replaced(folder / LEFT_OUT, newline="", encoding="utf-8", errors="surrogateescape") as file:
        csv.writer(file, lineterminator="\n").writerows([("name", "reason"), *left_out.items()])


def _drop_unused_classes(folder: pathlib.Path, description: Description) -> None:
    """Folders without an image are no classes."""
    used = {label for shard in description.shards for label in read_manifest(folder, shard).labels}
    class_names = tuple(name for name in description.class_names if name in used)
    if class_names != description.class_names:
        write_description(folder, dataclasses.replace(description, class_names=class_names))


def verify(output: pathlib.Path, workers: int) -> None:
    """Read all records of one or more packed data sets; exits with 1 where one is damaged.

    Raises:
      ValueError: where there is none, or one cannot be opened.
    """
    folders = [folder for folder in (output, output / "train", output / "val") if is_packed(folder)]
    if not folders:
        raise ValueError(f"expected a packed data set at {str(output)!r}, got none: check the path")
    damaged = 0
    for folder in folders:
        source = open_packed(folder)
        with ThreadPoolExecutor(workers) as executor:
            results = executor.map(functools.partial(damaged_records, source), range(len(source.shards)))
            for ids in tqdm(results, folder.name, len(source.shards), unit=" shards"):
                damaged += len(ids)
                for instance_id in ids:
                    tqdm.write(f"damaged: {source.path(instance_id)!r}")
        print(f"{len(source):,} images read from {folder}")
    if damaged:
        sys.exit(f"error: expected all records as they were packed, got {damaged:,} that differ: restore the data set")


@contextlib.contextmanager
def _processes(count: int, progress: Progress) -> Iterator[Executor]:
    """Processes of one thread and without a GPU. They pass over Ctrl-C: this one tells them to stop."""
    os.environ |= {"CUDA_VISIBLE_DEVICES": "-1", "TF_NUM_INTRAOP_THREADS": "1", "TF_NUM_INTEROP_THREADS": "1"}
    context = multiprocessing.get_context("spawn")
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # they inherit it
    executor = ProcessPoolExecutor(count, context, start_worker, (progress,))
    for _ in range(count):
        executor.submit(int)  # starts one
    signal.signal(signal.SIGINT, before)
    with executor:
        yield executor


def pack_source(
    source: str,
    label_map: str,
    output: pathlib.Path,
    short_side: int,
    quality: int,
    images_per_shard: int,
    workers: int,
) -> None:
    """Pack all parts of a source.

    Args:
      source: as of `open_source`.
      label_map: as of `open_source`.
      output: folder of the packed data set, or of those in `train` and `val`.
      short_side: as of `pack`.
      quality: as of `pack`.
      images_per_shard: at most; fewer where some processes would have nothing to do.
      workers: processes at most.

    Raises:
      ValueError: for a source that is none, or an output that is something else or in use.
      OSError: where the output cannot be written.
    """
    parts = open_source(source, label_map)
    if output.resolve().is_relative_to(pathlib.Path(source).resolve()):
        raise ValueError(f"expected --output outside of --source, got {str(output)!r}: it would be packed too")
    output.mkdir(parents=True, exist_ok=True)
    most = max(len(files.named) for files in parts.values())
    workers = min(workers, -(-most // min(_FEWEST, images_per_shard)))
    context = multiprocessing.get_context("spawn")
    progress = Progress(context.Value("q"), context.Value("q"), context.Event())
    with exclusive(output / ".lock"), _processes(workers, progress) as executor:
        for part, files in parts.items():
            per_shard = min(images_per_shard, max(_FEWEST, -(-len(files.named) // workers)))
            pack(files, output / part, short_side, quality, per_shard, executor, progress)


def main(arguments: list[str]) -> None:
    values = flags.FLAGS
    output, workers = pathlib.Path(values.output), values.workers or os.cpu_count()
    try:
        only_flags(arguments)
        if values.verify:
            verify(output, workers)
        elif not values.source:
            raise ValueError("expected --source, got none: name a folder of images, a zip file or tfds:NAME")
        else:
            names = ("short_side", "quality", "images_per_shard")
            how = {name: values[name].value for name in names}
            pack_source(values.source, values.map, output, workers=workers, **how)
    except ValueError as error:
        sys.exit(f"error: {error}")
    except BrokenProcessPool:
        sys.exit(
            "error: expected all processes to go on, got one that ended by itself, often for want of memory: the same "
            "command goes on from what is packed, --workers=1 needs the least memory"
        )
    except OSError as error:
        sys.exit(
            f"error: expected to write to {values.output!r}, got {error}: what is packed stays; make room, and the "
            "same command goes on"
        )
    except KeyboardInterrupt:
        print("stopped; the same command goes on from what is packed")
        sys.exit(130)


def define_flags() -> None:
    flags.DEFINE_string("source", "", "what to pack: a folder of images, a zip file with --map, or tfds:NAME[:SPLIT]")
    flags.DEFINE_string("map", "", "for a zip file: text file with a line NAME<tab>LABEL_NUMBER for each image")
    flags.DEFINE_string("output", None, "folder of the packed data set, to make or to append to", required=True)
    flags.DEFINE_integer("short_side", 256, "pixels to shrink to; 0 to keep the sizes", lower_bound=0)
    flags.DEFINE_integer("quality", 90, "of JPEGs that are made", lower_bound=1, upper_bound=100)
    flags.DEFINE_integer("images_per_shard", 8192, "images in a file at most", lower_bound=1)
    flags.DEFINE_integer("workers", 0, "processes; 0 for one a core", lower_bound=0)
    flags.DEFINE_bool("verify", False, "read all of --output and compare it with its checksums; packs nothing")


if __name__ == "__main__":
    define_flags()
    app.run(main)
