"""Open images by name: of a Python package, a folder, packed, or of TensorFlow Datasets."""

import os
import pathlib
import shlex

from pic_tf.data.sources import array_files, joined, listed, packed, tfds_builder
from pic_tf.data.sources.array import ARRAYS
from pic_tf.data.sources.folder import open_folder
from pic_tf.data.sources.layout import find_layout
from pic_tf.data.sources.pixel_format import RGB, PixelFormat
from pic_tf.data.sources.source import Source
from pic_tf.data.sources.tfds_source import open_tfds

TFDS = "tfds:"  # what the name of a data set of TensorFlow Datasets begins with


def open_source(
    name: str,
    class_names: tuple[str, ...] = (),
    max_broken: float = 0.01,
    pixels: PixelFormat | None = None,
) -> Source:
    """Open images by name.

    The name is "tfds:NAME[:SPLIT]", arrays (.npy, .npz), a packed data set (tools/pack.py), a table
    of paths (.csv, .parquet), or a folder of images; or several of the last three, with commas
    between them.

    Args:
      name: the value of a flag.
      class_names: classes that its own must be among, to number the labels by; () for its own.
      max_broken: share of the files of a folder that may be no images.
      pixels: format that the images must have; None for that of an array, and RGB of other images.

    Returns:
      The source.

    Raises:
      ValueError: for images that are not there, or that cannot be used.
    """
    return _open(joined.names_in(name), class_names, max_broken, pixels)


def _open(
    names: list[str], class_names: tuple[str, ...], max_broken: float, pixels: PixelFormat | None
) -> Source:
    """Open images by name, or those of a list of places."""
    if names[1:]:
        _check_list(names)
        parts = [_open_one(name, class_names or None, max_broken, pixels or RGB) for name in names]
        return joined.join(parts, class_names, ",".join(names))
    [name] = names
    if name.startswith(TFDS):
        source = open_tfds(*tfds_builder.parse(name.removeprefix(TFDS)), class_names)
    elif array_files.is_array_file(name):
        source = array_files.open_arrays(name, class_names)
    else:
        source = _open_one(name, class_names, max_broken, pixels or RGB)
    _check_format(source, pixels)
    return source


def _check_format(source: Source, pixels: PixelFormat | None) -> None:
    found = source.pixels
    if pixels not in (None, found):
        raise ValueError(
            f"expected images of {pixels} in {source.name!r}, got {found}: name others, or train "
            f"with --channels={found.channels} --bit_depth={found.bit_depth}"
        )


def _open_one(
    name: str, class_names: tuple[str, ...] | None, max_broken: float, pixels: PixelFormat
) -> joined.FolderSource | joined.PackedSource:
    if ("://" in name or name.endswith(".tar")) and not os.path.isdir(name):
        raise ValueError(
            f"expected images on this machine, in a folder or packed, got {name!r}: pack them with "
            f"`python tools/pack.py --source={shlex.quote(name)} --output=PACKED`"
        )
    if name.endswith(listed.ENDINGS) and os.path.isfile(name):
        return listed.open_list(name, class_names, max_broken=max_broken, pixels=pixels)
    if packed.is_packed(name):
        return packed.open_packed(name, class_names, pixels)
    return open_folder(name, class_names, max_broken=max_broken, pixels=pixels)


def open_dataset(
    dataset: str,
    eval_dataset: str = "",
    max_broken: float = 0.01,
    split_folders: str = "auto",
    pixels: PixelFormat | None = None,
) -> tuple[Source, Source | None]:
    """Open the training images and the held-out ones that flags name.

    `dataset` is "digits", "mnist5k", or names for `open_source`. Of a folder with split folders
    inside (`find_layout`) these are taken, the held-out one unless `eval_dataset` names another; of
    a TFDS data set without a split, likewise.

    Args:
      dataset: "digits", "mnist5k" or a name.
      eval_dataset: "" or a name.
      max_broken: share of the files of a folder that may be no images.
      split_folders: as of `find_layout`.
      pixels: as of `open_source`; held-out images must have the format of those to train on.

    Returns:
      (training source, held-out source or None).

    Raises:
      ValueError: for a folder that is missing, empty or holds something else or can be read in
        two ways, or a held-out set with a class that the training set has not.
    """
    if dataset in ARRAYS:
        train, held_out = (ARRAYS[dataset](split) for split in ("train", "held_out"))
        others = []
        _check_format(train, pixels)
    else:
        names = joined.names_in(dataset)
        if names[1:]:
            _check_list(names)
        splits = [_splits(name, split_folders) for name in names]
        train, held_out = _open([name for name, _ in splits], (), max_broken, pixels), None
        others = [name for _, name in splits if name]
    if eval_dataset:
        others = joined.names_in(eval_dataset)
    if others:
        held_out = _open(others, train.class_names, max_broken, train.pixels)
    return train, held_out


def is_there(dataset: str) -> bool:
    """Tell whether images come with a package, or there is something at a place of theirs."""
    return dataset in ARRAYS or any(
        os.path.exists(name) or array_files.is_array_file(name) for name in joined.names_in(dataset)
    )


def check_not_written(output: str | os.PathLike, *datasets: str) -> None:
    """Raise ValueError for a file to write that is a table or an array of images itself.

    Args:
      output: the file.
      datasets: names of images; "" for none.
    """
    for place in (place for dataset in datasets for place in joined.names_in(dataset)):
        if os.path.exists(output) and os.path.exists(place) and os.path.samefile(output, place):
            raise ValueError(
                f"expected another file to write than the one of the images, got {str(output)!r}: "
                "name another --output"
            )


def short_name(dataset: str) -> str:
    """The name of images in tables: the last part of each path, or tfds:NAME."""
    names = joined.names_in(dataset)
    return ",".join(
        os.path.basename(os.path.normpath(x)) if os.path.exists(x) else x for x in names
    )


def describe(train: Source, held_out: Source | None) -> str:
    """Describe images in a line: their classes, their number, and those held out."""
    apart = _numbers(held_out) + " held out" if held_out else "no held-out split"
    return f"{_numbers(train)}; {apart}"


def _numbers(source: Source) -> str:
    classes = len(source.class_names)
    found = f"{classes:,} classes" if classes else source.unlabelled or "no classes"
    return f"{found}, {len(source):,} images"


def _check_list(names: list[str]) -> None:
    for name in names:
        if name.startswith(TFDS) or name in ARRAYS or array_files.is_array_file(name):
            raise ValueError(
                f"expected folders, packed data sets or tables in a list of images, got {name!r}: "
                "pack it with tools/pack.py"
            )
    joined.check_apart(names)


def _splits(dataset: str, split_folders: str) -> tuple[str, str]:
    """Names of the training and the held-out part, "" where there is none."""
    if dataset.startswith(TFDS):
        name, split = tfds_builder.parse(dataset.removeprefix(TFDS))
        held_out = None if split else tfds_builder.held_out_split(name)
        return dataset, f"{TFDS}{name}:{held_out}" if held_out else ""
    if array_files.is_array_file(dataset):
        return array_files.parts(dataset)
    root = pathlib.Path(dataset)
    layout = find_layout(root, split_folders)
    layout.report(root)
    train = dataset if layout.train == root else str(layout.train)
    return train, str(layout.held_out) if layout.held_out else ""
