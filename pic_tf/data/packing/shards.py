"""List the images in tar files, a sample of several members each, as WebDataset writes them.

Members of one sample stand one after another and have their name in common up to the first dot:
0001.jpg, 0001.cls, 0001.json. The class is the text of `.cls`, or else `label` or `class` in
`.json`. Only places are listed, and images are read from there one by one.
"""

import functools
import io
import json
import os
import re
import tarfile
from collections import Counter
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

import fsspec
from tqdm import tqdm

from pic_tf.data.packing import places
from pic_tf.data.packing.listed import Files, check_size
from pic_tf.data.sources.formats import IMAGE_EXTENSIONS
from pic_tf.files.progress import drawing_interval

_NUMBERS = re.compile(r"\{(\d+)\.\.(\d+)\}")
_LARGEST_LABEL = 1 << 20  # bytes of a .cls or .json
_LONGEST_CLASS = 1 << 16  # characters; csv reads fields of up to twice as many


class Member(NamedTuple):
    """Place of an image.

    Attributes:
      path: the tar file.
      offset: first byte of the image in it.
      size: bytes of the image.
      label: name of the class, or "".
    """

    path: str
    offset: int
    size: int
    label: str


def are_shards(source: str) -> bool:
    """Tell the name of tar files, or a pattern of such names, by its ending."""
    return re.search(r"\.(tar|tgz|tar\.\w+)$", source.lower()) is not None


def images_in_shards(source: str) -> Files:
    """List the images in tar files.

    Args:
      source: path or address of a tar file, or a pattern of several: shard-{000..009}.tar,
        shard-*.tar.

    Returns:
      The images, in the order of the tar files and in them.

    Raises:
      ValueError: for a tar file that is missing, compressed or damaged, or a name that comes twice.
    """
    if not source.lower().endswith(".tar"):
        raise ValueError(
            f"expected tar files that are not compressed, got {source!r}: unpack them to .tar, as "
            "images are read from the middle of a file"
        )
    files, pattern = places.open_place(source)
    paths = _paths(files, pattern, source)
    # Names do not depend on how many files match: more may come.
    root = os.path.dirname(pattern if paths == [pattern] else re.split(r"[*?[{]", pattern)[0])
    named = []
    for path in tqdm(paths, "listing", unit=" tar files", mininterval=drawing_interval()):
        shard = path.removeprefix(root).lstrip("/")
        with places.reported(path):
            try:
                named += [(f"{shard}/{name}", key) for name, key in _samples(files, path)]
            except tarfile.TarError as error:
                raise ValueError(
                    f"expected a tar file at {path!r}, got {error}: copy it again, or leave it out"
                ) from error
    (name, times), *_ = Counter(name for name, _ in named).most_common(1) or [("", 0)]
    if times > 1:
        raise ValueError(f"expected each name once in {source!r}, got {name!r} {times} times")
    classes = {key.label for _, key in named if isinstance(key, Member)} - {""}
    numbers = all(label.isascii() and label.isdigit() for label in classes)
    class_names = tuple(sorted(classes, key=int if numbers else None))
    return Files(named, functools.partial(_fetch, files), class_names)


def _fetch(files: fsspec.AbstractFileSystem, key: Member | str) -> tuple[BinaryIO, str]:
    if isinstance(key, str):
        raise ValueError(key)
    check_size(key.size)
    return io.BytesIO(places.read(files, key.path, key.offset, key.size)), key.label


def _paths(files: fsspec.AbstractFileSystem, pattern: str, source: str) -> list[str]:
    """Tar files of a pattern: numbers in their order, what a star stands for sorted."""
    found = []
    for name in [pattern] if files.isfile(pattern) else _expanded(pattern):
        if re.search(r"[*?[]", name) and not files.isfile(name):
            some = sorted(files.glob(name))
        else:
            some = [name] if files.isfile(name) else []
        if not some:
            raise ValueError(
                f"expected tar files at {source!r}, got nothing at {name!r}: check the path"
            )
        found += some
    return found


def _expanded(pattern: str) -> list[str]:
    """Names of a pattern with {000..009}, as a shell makes them."""
    numbers = _NUMBERS.search(pattern)
    if numbers is None:
        return [pattern]
    first, last = numbers.groups()
    middle = [f"{n:0{len(first)}d}" for n in range(int(first), int(last) + 1)]
    begin, ends = pattern[: numbers.start()], _expanded(pattern[numbers.end() :])
    return [begin + number + end for number in middle for end in ends]


def _samples(files: fsspec.AbstractFileSystem, path: str) -> Iterator[tuple[str, Member | str]]:
    """Images of a tar file; of a sample without one its name, and the reason."""
    key, images, others, label = "", [], [], {}
    with files.open(path, "rb") as file, tarfile.open(fileobj=file, mode="r:") as archive:
        size = file.seek(0, os.SEEK_END)
        if size % tarfile.BLOCKSIZE:
            raise ValueError(f"expected whole blocks in {path!r}, got {size:,} bytes: cut off")
        while (member := archive.next()) is not None:
            archive.members.clear()  # they would all be kept
            folder, name = os.path.split(member.name)
            if not member.isfile() or name.startswith("."):
                continue
            own, _, ending = name.partition(".")
            if (own := os.path.join(folder, own)) != key:
                yield from _sample(key, images, others, label)
                key, images, others, label = own, [], [], {}
            ending = ending.rpartition(".")[2].lower()
            if f".{ending}" in IMAGE_EXTENSIONS:
                images.append((member.name, member.offset_data, member.size, path))
                continue
            others.append(member.name)
            if ending in ("cls", "json"):
                label[ending] = _label(archive, member, path)
        yield from _sample(key, images, others, label)


def _sample(
    key: str, images: list[tuple], others: list[str], label: dict[str, str]
) -> Iterator[tuple[str, Member | str]]:
    class_name = label.get("cls") or label.get("json", "")
    for name, offset, size, path in images:
        yield name, Member(path, offset, size, class_name)
    if others and not images:
        yield key, f"no image beside {', '.join(others)}"


def _label(archive: tarfile.TarFile, member: tarfile.TarInfo, path: str) -> str:
    """The class in a .cls or .json file, "" for none, or for more than a name."""
    if member.size > _LARGEST_LABEL:
        return ""
    content = archive.extractfile(member).read().decode("utf-8", "replace").strip()
    found = content
    if not member.name.lower().endswith(".cls"):
        try:
            found = json.loads(content)
        except ValueError as error:
            raise ValueError(
                f"expected JSON in {member.name!r} of {path!r}, got {error}: mend or remove it"
            ) from error
    if isinstance(found, dict):
        found = next((found[name] for name in ("label", "class") if name in found), "")
    name = str(found) if isinstance(found, str | int) else ""
    return name if len(name) <= _LONGEST_CLASS else ""
