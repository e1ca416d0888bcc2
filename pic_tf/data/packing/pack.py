"""Pack files into a data set that is complete at any moment, or not there."""

import contextlib
import csv
import dataclasses
import io
import pathlib
import re
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import Executor, Future, wait
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from pic_tf.data.packing.listed import Files
from pic_tf.data.packing.shard import Made, Progress, make_shard
from pic_tf.data.sources.band_formats import format_in
from pic_tf.data.sources.packed import PackedSource, is_packed, open_packed
from pic_tf.data.sources.packed_format import (
    Description,
    read_description,
    read_manifest,
    write_description,
    write_manifest,
)
from pic_tf.data.sources.pixel_format import RGB, PixelFormat
from pic_tf.files.replaced import replaced

LEFT_OUT = "left_out.csv"
_UNFINISHED = re.compile(
    r"images-\d{5,}\.(arrayrecord|csv|.*partial)|(dataset|left_out)\..*partial"
)


class Packed(NamedTuple):
    """Outcome of a packing; as text, the lines that a command prints.

    Attributes:
      folder: the packed data set.
      images: number of images packed now.
      shards: number of shards written for them.
      seconds: time taken.
      packed_bytes: size of these images' records.
      source_bytes: size of the files they were made of.
      already: number of images of names that the data set had already; they were not looked at.
      left_out: number of files that are no images, or damaged ones.
      total: number of images in the data set, with those packed before.
    """

    folder: pathlib.Path
    images: int
    shards: int
    seconds: float
    packed_bytes: int
    source_bytes: int
    already: int
    left_out: int
    total: int

    def __str__(self) -> str:
        return (
            f"packed {self.images:,} images in {self.shards:,} shards, "
            f"{self.images / self.seconds:,.0f} images/s: "
            f"{self.packed_bytes / 1e6:,.1f} MB of {self.source_bytes / 1e6:,.1f} MB\n"
            f"already there by name {self.already:,}, left out {self.left_out:,}, see "
            f"{self.folder / LEFT_OUT}\n"
            f"{self.folder} holds {self.total:,} images"
        )


def pack(
    files: Files,
    folder: pathlib.Path,
    short_side: int,
    quality: int,
    images_per_shard: int,
    executor: Executor,
    progress: Progress,
    pixels: PixelFormat = RGB,
) -> Packed:
    """Pack the files that are not packed yet.

    At any moment the folder holds a whole data set, or none.

    Shards are made in parallel and taken into the data set one by one in their order, so that
    images get their ids in the order of the files, however many processes there are.

    Args:
      files: files to pack, and those that are packed.
      folder: the packed data set, to make or to append to.
      short_side: pixels to shrink to; 0 to keep the sizes.
      quality: quality of the JPEGs that are made, 1 to 100.
      images_per_shard: largest number of images in a shard.
      executor: runs `make_shard`, after `start_worker`.
      progress: counters that the processes share.
      pixels: as of `make_shard`.

    Returns:
      The outcome.

    Raises:
      ValueError: for a data set that is damaged or was packed with other settings, or if no file is
        an image.
      OSError: if the data set cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    description, packed = _so_far(folder, short_side, quality, pixels)
    class_names = dict.fromkeys((*description.class_names, *files.class_names))
    description = dataclasses.replace(description, class_names=tuple(class_names))
    todo = [(name, key) for name, key in files.named if name not in packed]
    done, left_out, begin = Counter(), {}, time.monotonic()
    with _bar(folder, len(todo), progress) as bar:
        futures = {}
        numbers = [int(re.search(r"\d+", shard.file)[0]) for shard in description.shards]
        first = max(numbers, default=-1) + 1
        for number, start in enumerate(range(0, len(todo), images_per_shard), first):
            file, some = f"images-{number:05d}.arrayrecord", todo[start : start + images_per_shard]
            futures[file] = executor.submit(
                make_shard, folder / file, some, files.fetch, short_side, quality, pixels
            )
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
        raise ValueError(
            "expected images to pack, "
            f"got none in {len(todo):,} files: {folder / LEFT_OUT} says why"
        )
    _drop_unused_classes(folder, description)
    return Packed(
        folder,
        images=done["images"],
        shards=done["shards"],
        seconds=time.monotonic() - begin,
        packed_bytes=done["packed_bytes"],
        source_bytes=done["source_bytes"],
        already=len(files.named) - len(todo),
        left_out=len(left_out),
        total=len(packed) + done["images"],
    )


def _so_far(
    folder: pathlib.Path, short_side: int, quality: int, pixels: PixelFormat
) -> tuple[Description, set[str]]:
    """Read the data set in a folder and its names; remove the rests of an interrupted packing."""
    description, packed = Description((), short_side, quality, ()), set()
    if is_packed(folder):
        source = open_packed(folder, pixels=pixels)
        description, packed = read_description(folder), set(source.names)
        _check_format(source)
        if (description.short_side, description.quality) != (short_side, quality):
            raise ValueError(
                f"expected --short_side={description.short_side} --quality={description.quality}, "
                f"by which {str(folder)!r} was packed, got {short_side} and {quality}: "
                "name those, or another --output"
            )
    known = {pathlib.Path(shard.file).stem for shard in description.shards}
    for path in folder.iterdir():
        taken_in = path.stem in known and path.suffix != ".partial"
        if _UNFINISHED.fullmatch(path.name) and not taken_in:
            path.unlink()
    return description, packed


def _check_format(source: PackedSource) -> None:
    """Refuse to add RGB of 8 bits to other levels; `open_packed` refuses the reverse."""
    [record] = source.encoded(np.array([0]))
    found = format_in(io.BytesIO(record))
    if source.pixels == RGB and found not in (None, RGB, PixelFormat(1, 8)):
        raise ValueError(
            f"expected --channels={found.channels} --bit_depth={found.bit_depth}, the format of "
            f"the images in {source.name!r}, got RGB of 8 bits: name it, or another --output"
        )


@contextlib.contextmanager
def _bar(folder: pathlib.Path, total: int, progress: Progress) -> Iterator[tqdm]:
    """Show a bar that counts from zero; after an error, tell all processes to stop."""
    progress.tried.value = progress.left_out.value = 0
    bar_format = (
        "{desc}: {n_fmt}/{total_fmt} images|{bar:20}| {elapsed}, {remaining} left, "
        "{rate_fmt}{postfix}"
    )
    with tqdm(total=total, unit=" images", desc=folder.name, bar_format=bar_format) as bar:
        try:
            yield bar
        except BaseException:
            progress.stop.set()
            raise


def _result(future: Future, bar: tqdm, progress: Progress) -> Made:
    """Wait for a shard, and move the bar meanwhile."""
    while not wait([future], timeout=0.2).done:
        bar.set_postfix_str(f"{progress.left_out.value:,} left out", refresh=False)
        bar.update(progress.tried.value - bar.n)
    bar.update(progress.tried.value - bar.n)
    return future.result()


def _write_left_out(folder: pathlib.Path, left_out: dict[str, str]) -> None:
    path = folder / LEFT_OUT
    with replaced(path, newline="", encoding="utf-8", errors="surrogateescape") as file:
        csv.writer(file).writerows([("name", "reason"), *left_out.items()])


def _drop_unused_classes(folder: pathlib.Path, description: Description) -> None:
    """Drop classes without an image, which come from folders of other files."""
    used = {label for shard in description.shards for label in read_manifest(folder, shard).labels}
    class_names = tuple(name for name in description.class_names if name in used)
    if class_names != description.class_names:
        write_description(folder, dataclasses.replace(description, class_names=class_names))
