"""Map images from .npy and .npz files: arrays [N, H, W, C] that need not fit into memory.

FOLDER/images.npy, FOLDER/labels.npy        labels may be missing
FILE.npy                                    images without labels
FILE.npz                                    `images`, and `labels` if there are any
FILE.npz                                    `train_images`, `train_labels`, `val_images`, ...
"""

import os
import pathlib
import struct
import zipfile

import numpy as np

from pic_tf.data.sources.array import ArraySource
from pic_tf.data.sources.classes import class_numbers

ENDINGS = (".npy", ".npz")
IMAGES, LABELS = "images", "labels"  # names of the arrays
HELD_OUT = ("val", "test")  # parts of a .npz beside "train"; the first one is taken
_LOCAL_HEADER = 30  # bytes before a file's name in a zip
_COLON = ":"  # between FILE.npz and a part


def is_array_file(name: str) -> bool:
    """Tell whether a name is that of arrays: FILE.npy, FILE.npz, FILE.npz:PART or their folder."""
    path = _file_and_part(name)[0]
    return (path.endswith(ENDINGS) and os.path.isfile(path)) or os.path.isfile(
        os.path.join(name, f"{IMAGES}.npy")
    )


def parts(name: str) -> tuple[str, str]:
    """Name the training and the held-out part of FILE.npz; "" where there is none.

    Args:
      name: as of `is_array_file`.
    """
    path, part = _file_and_part(name)
    if part or not path.endswith(".npz"):
        return name, ""
    there = _members(path)
    if IMAGES in there or f"train_{IMAGES}" not in there:
        return name, ""
    held_out = [part for part in HELD_OUT if f"{part}_{IMAGES}" in there]
    return f"{path}:train", f"{path}:{held_out[0]}" if held_out else ""


def open_arrays(name: str, class_names: tuple[str, ...] = ()) -> ArraySource:
    """Map images, and read their labels.

    Args:
      name: as of `is_array_file`.
      class_names: classes that its own must be among, to number the labels by; () for its own.

    Returns:
      The source; labels have the names of their numbers, or are names.

    Raises:
      ValueError: for files that hold something else, or a class that is not among `class_names`.
    """
    path, part = _file_and_part(name)
    if os.path.isdir(name):
        path = os.path.join(name, f"{IMAGES}.npy")
        beside = os.path.join(name, f"{LABELS}.npy")
        images = _mapped(path)
        labels = _mapped(beside) if os.path.isfile(beside) else None
    elif path.endswith(".npy"):
        images, labels = _mapped(path), None
    else:
        prefix, there = f"{part}_" if part else "", _members(path)
        if f"{prefix}{IMAGES}" not in there:
            found = [x.removesuffix(f"_{IMAGES}") for x in there if x.endswith(f"_{IMAGES}")]
            do = f"name a part, as {path}{_COLON}{found[0]}" if found else "rename it"
            raise ValueError(
                f"expected an array {prefix}{IMAGES} in {path!r}, got "
                f"{', '.join(there) or 'none'}: {do}"
            )
        images = _mapped(path, there[f"{prefix}{IMAGES}"])
        labels = there.get(f"{prefix}{LABELS}")
        labels = None if labels is None else _mapped(path, labels)
    images = images[..., None] if images.ndim == 3 else images  # gray
    try:
        source = ArraySource(images, name=name, file=path)
        return source if labels is None else _labelled(source, np.asarray(labels), class_names)
    except ValueError as error:
        raise ValueError(f"{error} ({name})") from None


def _labelled(source: ArraySource, labels: np.ndarray, class_names: tuple[str, ...]) -> ArraySource:
    labels = labels[:, 0] if labels.ndim == 2 and labels.shape[1] == 1 else labels
    if labels.shape != (len(source),) or labels.dtype.kind not in "iuU":
        raise ValueError(
            f"expected whole numbers or names as labels [{len(source)}], one an image, got "
            f"{labels.dtype} {list(labels.shape)}: put them in the order of the images"
        )
    found, position = np.unique(labels, return_inverse=True)
    own = tuple(map(str, found.tolist()))
    if len(own) < 2 and not class_names:
        missing = f"no labels, since all images have the label {own[0]!r}"
        return ArraySource(source.images, None, (), source.name, missing, source.file)
    numbers = class_numbers(own, class_names or own, source.name)
    of_position = np.array([numbers[name] for name in own], np.int64)
    return ArraySource(
        source.images,
        of_position[position.reshape(-1)],
        class_names or own,
        source.name,
        file=source.file,
    )


def _file_and_part(name: str) -> tuple[str, str]:
    """("FILE.npz", "train") of "FILE.npz:train"; no part of any other name."""
    path, _, part = name.rpartition(_COLON)
    return (path, part) if path.endswith(".npz") else (name, "")


def _members(path: str) -> dict[str, int]:
    """List name -> place in the file of the arrays of a .npz."""
    try:
        with zipfile.ZipFile(path) as archive, open(path, "rb") as file:
            members = archive.infolist()
            if packed := [m.filename for m in members if m.compress_type != zipfile.ZIP_STORED]:
                raise ValueError(
                    f"expected arrays that can be mapped in {path!r}, got {packed[0]!r} compressed:"
                    " write them again with np.savez, or each with np.save"
                )
            places = {}
            for member in members:
                file.seek(member.header_offset)
                name, extra = struct.unpack("<HH", file.read(_LOCAL_HEADER)[26:])
                start = member.header_offset + _LOCAL_HEADER + name + extra
                places[member.filename.removesuffix(".npy")] = start
            return places
    except (OSError, zipfile.BadZipFile, struct.error) as error:
        raise ValueError(
            f"expected arrays of np.savez in {path!r}, got {error}: write them again"
        ) from error


def _mapped(path: str, place: int = 0) -> np.ndarray:
    """Map the array that begins `place` bytes into a file."""
    try:
        with open(path, "rb") as file:
            file.seek(place)
            version = np.lib.format.read_magic(file)
            read = np.lib.format.read_array_header_1_0
            read = read if version == (1, 0) else np.lib.format.read_array_header_2_0
            shape, fortran, dtype = read(file)
            start = file.tell()
        if dtype.hasobject:
            raise ValueError("objects")
        if 0 in shape:
            return np.zeros(shape, dtype)
        order = "F" if fortran else "C"
        return np.memmap(pathlib.Path(path), dtype, "r", start, shape, order)
    except (OSError, ValueError, OverflowError) as error:
        reason, *_ = str(error).splitlines() or [type(error).__name__]
        raise ValueError(
            f"expected a whole array of np.save in {path!r}, got {reason}: write it again"
        ) from error
