"""List files to pack: of a folder, tar or zip files, a bucket, or TensorFlow Datasets."""

import functools
import io
import os
import pathlib
import stat
import struct
import zipfile
import zlib
from typing import BinaryIO, NamedTuple

import tensorflow as tf

from pic_tf.data.packing import places
from pic_tf.data.packing.buckets import images_in_bucket
from pic_tf.data.packing.listed import Files, check_size
from pic_tf.data.packing.shards import are_shards, images_in_shards
from pic_tf.data.sources import tfds_builder, tfds_source
from pic_tf.data.sources.classes import classes_of
from pic_tf.data.sources.layout import find_layout
from pic_tf.data.sources.walk import walk


def list_files(source: str, label_map: str = "", split_folders: str = "auto") -> dict[str, Files]:
    """List the files to pack.

    Args:
      source: a folder of images; one with `train` and `val`, `validation` or `test` inside; one
        with train.zip, train_map.txt, val.zip and val_map.txt; a zip file; tar files
        (`images_in_shards`); the address of a folder (`images_in_bucket`); or tfds:NAME or
        tfds:NAME:SPLIT.
      label_map: for a zip file, the text file with a line NAME<tab>LABEL for each image.
      split_folders: as of `find_layout`.

    Returns:
      The files, by the sub-folder of the packed data set that they belong to: "train" and "val", or
      "".

    Raises:
      ValueError: where it is none of these, or nothing is in it.
    """
    path = pathlib.Path(source)
    if source.startswith("tfds:"):
        parts = _tfds(source.removeprefix("tfds:"))
    elif are_shards(source) and not path.is_dir():
        parts = {"": images_in_shards(source)}
    elif places.is_address(source):
        parts = {"": images_in_bucket(source, split_folders)}
    elif label_map or path.is_file():
        parts = {"": _zip(path, pathlib.Path(label_map)) if label_map else _without_labels(path)}
    elif (path / "train.zip").is_file():
        found = [part for part in ("train", "val") if (path / f"{part}.zip").is_file()]
        parts = {part: _zip(path / f"{part}.zip", path / f"{part}_map.txt") for part in found}
    else:
        layout = find_layout(path, split_folders)
        layout.report(path)
        if layout.train == path:
            parts = {"": _folder(path)}
        else:
            parts = {"train": _folder(layout.train)}
            if layout.held_out:
                parts["val"] = _folder(layout.held_out)
    for part, files in parts.items():
        if not files.named:
            raise ValueError(
                f"expected images in {source!r}, "
                f"got no files{part and ' in ' + part}: check the path"
            )
    return parts


def _folder(root: pathlib.Path) -> Files:
    if not root.is_dir():
        raise ValueError(
            "expected a folder, a zip file, tar files or tfds:NAME, "
            f"got nothing at {str(root)!r}: check the path"
        )
    names = sorted(file.path for file in walk(root))
    if names and all(name.endswith(".tar") for name in names):
        raise ValueError(
            f"expected images in {str(root)!r}, got {len(names):,} tar files: name them, "
            f"--source='{root / '*.tar'}'"
        )
    class_names = sorted({_first_folder(name) for name in names} - {""})
    named = [(name, name) for name in names]
    return Files(named, functools.partial(_fetch_file, root), tuple(class_names))


def _first_folder(name: str) -> str:
    return name.split(os.sep)[0] if os.sep in name else ""


def _fetch_file(root: pathlib.Path, name: str) -> tuple[BinaryIO, str]:
    status = os.stat(root / name)
    if not stat.S_ISREG(status.st_mode):  # opening a pipe would wait for ever
        raise ValueError("not a file")
    check_size(status.st_size)
    return open(root / name, "rb"), _first_folder(name)


class _Member(NamedTuple):
    """Directory entry of a file in a zip file: workers need not read the directory again."""

    offset: int
    compressed: int
    size: int
    method: int
    checksum: int
    label: str


def _zip(path: pathlib.Path, label_map: pathlib.Path) -> Files:
    labels = _labels(label_map)
    try:
        with zipfile.ZipFile(path) as archive:
            infos = {info.filename: info for info in archive.infolist() if not info.is_dir()}
    except (OSError, zipfile.BadZipFile) as error:
        raise ValueError(
            f"expected a zip file at {str(path)!r}, got {error}: check the path"
        ) from error
    named = []
    for name in sorted(infos.keys() | labels.keys()):
        if any(part.startswith(".") for part in name.split("/")):
            continue
        if name not in infos:
            key = f"in {label_map.name}, but not in {path.name}"
        elif name not in labels:
            key = f"in {path.name}, but not in {label_map.name}"
        else:
            x = infos[name]
            key = _Member(
                x.header_offset, x.compress_size, x.file_size, x.compress_type, x.CRC, labels[name]
            )
        named.append((name, key))
    class_names = sorted(set(labels.values()), key=int)
    return Files(named, functools.partial(_fetch_member, path), tuple(class_names))


def _without_labels(path: pathlib.Path) -> Files:
    if not zipfile.is_zipfile(path):
        raise ValueError(
            "expected a folder, a zip file, tar files or tfds:NAME, "
            f"got another file at {str(path)!r}: name a folder of images"
        )
    raise ValueError(
        f"expected --map with the zip file {str(path)!r}, got none: name its list of labels"
    )


def _labels(path: pathlib.Path) -> dict[str, str]:
    """name -> label."""
    labels = {}
    try:
        lines = path.read_text("utf-8", "surrogateescape").split("\n")
    except OSError as error:
        raise ValueError(
            f"expected a list of labels at {str(path)!r}, got {error.strerror}: check the path"
        ) from error
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        name, _, label = line.rstrip("\r").rpartition("\t")
        if not (name and label.isascii() and label.isdigit()) or labels.get(name, label) != label:
            raise ValueError(
                f"expected NAME<tab>NUMBER in line {number} of {str(path)!r}, each name once, "
                f"got {line[:80]!r}: correct the list"
            )
        labels[name] = label
    return {name: str(int(label)) for name, label in labels.items()}


def _fetch_member(path: pathlib.Path, key: _Member | str) -> tuple[BinaryIO, str]:
    if isinstance(key, str):
        raise ValueError(key)
    check_size(max(key.size, key.compressed))
    with open(path, "rb") as file:
        file.seek(key.offset)
        # Lengths of two fields in the header before the file.
        name, extra = struct.unpack_from("<HH", file.read(30), 26)
        file.seek(name + extra, os.SEEK_CUR)
        content = file.read(key.compressed)
    if key.method == zipfile.ZIP_DEFLATED:
        content = zlib.decompressobj(-zlib.MAX_WBITS).decompress(content, key.size + 1)
    if len(content) != key.size or zlib.crc32(content) != key.checksum:
        raise ValueError(
            f"damaged in {path.name}, or packed in a way that is not read (method {key.method})"
        )
    return io.BytesIO(content), key.label


def _tfds(text: str) -> dict[str, Files]:
    name, split = tfds_builder.parse(text)
    if split is not None:
        return {"": _tfds_split(name, split)}
    held_out = tfds_builder.held_out_split(name)
    splits = {"train": "train"} | ({"val": held_out} if held_out else {})
    return {part: _tfds_split(name, split) for part, split in splits.items()}


def _tfds_split(name: str, split: str) -> Files:
    source = _opened(name, split)
    prefix = os.path.join(source.folder, "")  # the folder may move
    named = [(source.path(i).removeprefix(prefix), i) for i in range(len(source))]
    return Files(named, functools.partial(_fetch_record, name, split), tuple(source.class_names))


@functools.cache
def _opened(name: str, split: str) -> tfds_source.TfdsSource:
    return tfds_source.open_split(name, split)


def _fetch_record(name: str, split: str, instance_id: int) -> tuple[BinaryIO, str]:
    source = _opened(name, split)
    content = source.read(tf.constant([instance_id], tf.int64))[0].numpy()
    return io.BytesIO(content), *classes_of(source, [instance_id])
