"""Open images by name: of a Python package, a folder, packed, or of TensorFlow Datasets."""

import os
import pathlib

from pic_tf.data.sources import listed, packed, tfds_builder
from pic_tf.data.sources.array import ARRAYS
from pic_tf.data.sources.folder import open_folder
from pic_tf.data.sources.layout import find_layout
from pic_tf.data.sources.source import Source
from pic_tf.data.sources.tfds_source import open_tfds

TFDS = "tfds:"  # what the name of a data set of TensorFlow Datasets begins with


def open_source(name: str, class_names: tuple[str, ...] = (), max_broken: float = 0.01) -> Source:
    """Open images by name.

    The name is "tfds:NAME[:SPLIT]", a packed data set (tools/pack.py), a table of paths (.csv,
    .parquet), or a folder of images.

    Args:
      name: the value of a flag.
      class_names: classes that its own must be among, to number the labels by; () for its own.
      max_broken: share of the files of a folder that may be no images.

    Returns:
      The source.

    Raises:
      ValueError: for images that are not there, or that cannot be used.
    """
    if name.startswith(TFDS):
        return open_tfds(*tfds_builder.parse(name.removeprefix(TFDS)), class_names)
    if name.endswith(listed.ENDINGS) and os.path.isfile(name):
        return listed.open_list(name, class_names, max_broken=max_broken)
    if packed.is_packed(name):
        return packed.open_packed(name, class_names)
    return open_folder(name, class_names, max_broken=max_broken)


def open_dataset(
    dataset: str, eval_dataset: str = "", max_broken: float = 0.01, split_folders: str = "auto"
) -> tuple[Source, Source | None]:
    """Open the training images and the held-out ones that flags name.

    `dataset` is "digits", "mnist5k" or a name for `open_source`. Of a folder with split folders
    inside (`find_layout`) these are taken, the held-out one unless `eval_dataset` names another; of
    a TFDS data set without a split, likewise.

    Args:
      dataset: "digits", "mnist5k" or a name.
      eval_dataset: "" or a name.
      max_broken: share of the files of a folder that may be no images.
      split_folders: as of `find_layout`.

    Returns:
      (training source, held-out source or None).

    Raises:
      ValueError: for a folder that is missing, empty or holds something else or can be read in
        two ways, or a held-out set with a class that the training set has not.
    """
    if dataset in ARRAYS:
        train, held_out = (ARRAYS[dataset](split) for split in ("train", "held_out"))
    else:
        train_name, held_out_name = _splits(dataset, split_folders)
        train, held_out = open_source(train_name, max_broken=max_broken), None
        eval_dataset = eval_dataset or held_out_name
    if eval_dataset:
        held_out = open_source(eval_dataset, train.class_names, max_broken)
    return train, held_out


def describe(train: Source, held_out: Source | None) -> str:
    """Describe images in a line: their classes, their number, and those held out."""
    apart = _numbers(held_out) + " held out" if held_out else "no held-out split"
    return f"{_numbers(train)}; {apart}"


def _numbers(source: Source) -> str:
    classes = len(source.class_names)
    found = f"{classes:,} classes" if classes else source.unlabelled or "no classes"
    return f"{found}, {len(source):,} images"


def _splits(dataset: str, split_folders: str) -> tuple[str, str]:
    """Names of the training and the held-out part, "" where there is none."""
    if dataset.startswith(TFDS):
        name, split = tfds_builder.parse(dataset.removeprefix(TFDS))
        held_out = None if split else tfds_builder.held_out_split(name)
        return dataset, f"{TFDS}{name}:{held_out}" if held_out else ""
    root = pathlib.Path(dataset)
    layout = find_layout(root, split_folders)
    layout.report(root)
    train = dataset if layout.train == root else str(layout.train)
    return train, str(layout.held_out) if layout.held_out else ""
