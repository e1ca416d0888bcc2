"""States of a run on disk: one folder each, written aside, checksummed, renamed."""

import contextlib
import hashlib
import os
import pathlib
import re
import shutil
import zipfile
from collections.abc import Iterator, Mapping

import numpy as np

from pic_tf.files.replaced import sync_folder

SUMS = "SHA256SUMS"  # `sha256sum --check SHA256SUMS` reads it too
_VARIABLES, _PARTIAL, _DAMAGED = "variables.npz", ".partial", ".damaged"
_NAME = re.compile(r"step-(\d{12})")


def write_checkpoint(
    directory: pathlib.Path,
    step: int,
    variables: Mapping[str, np.ndarray],
    tables: Mapping[str, np.ndarray],
    texts: Mapping[str, str],
) -> pathlib.Path:
    """Write one state; it is there as a whole, or not at all.

    Args:
      directory: folder of the states.
      step: which one.
      variables: small arrays by name, kept in one file.
      tables: large arrays by name, a file NAME.npy each.
      texts: text files by name.

    Returns:
      Its folder.

    Raises:
      OSError: e.g. for a disk that is full; only the older states are left then.
    """
    final = directory / f"step-{step:012d}"
    aside = final.with_suffix(_PARTIAL)
    aside.mkdir(parents=True)
    try:
        for name, table in tables.items():
            with _written(aside / f"{name}.npy") as file:
                np.save(file, table, allow_pickle=False)
        with _written(aside / _VARIABLES) as file:
            np.savez(file, **variables)
        for name, text in texts.items():
            with _written(aside / name) as file:
                file.write(text.encode())
        sums = "".join(f"{sha256_of(path)}  {path.name}\n" for path in sorted(aside.iterdir()))
        with _written(aside / SUMS) as file:
            file.write(sums.encode())
        sync_folder(aside)
        aside.rename(final)
        sync_folder(directory)
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        raise
    return final


def states(directory: pathlib.Path) -> dict[int, pathlib.Path]:
    """List the folders of all states, unchecked, by step in ascending order."""
    if not directory.is_dir():
        return {}
    found = [(_NAME.fullmatch(path.name), path) for path in directory.iterdir()]
    return dict(sorted((int(match[1]), path) for match, path in found if match))


def damage(path: pathlib.Path) -> str | None:
    """Find the damage of a state: read all of it and compare the checksums.

    Returns:
      The damage in words; None where the state is as it was written.

    Raises:
      OSError: where the disk or the network fails, which says nothing about the state.
    """
    try:
        expected = _sums(path)
        names = {file.name for file in path.iterdir()}
        if _VARIABLES not in expected or set(expected) | {SUMS} != names:
            return f"its files are not those that {SUMS} names"
        for name, checksum in expected.items():
            if sha256_of(path / name) != checksum:
                return f"{name} is not as it was written"
    except (FileNotFoundError, IsADirectoryError, ValueError) as error:
        return f"it cannot be read ({error})"
    return None


def newest(directory: pathlib.Path) -> tuple[pathlib.Path | None, dict[pathlib.Path, str]]:
    """Find the newest good state, and the damage of those after it.

    Args:
      directory: folder of the states.

    Returns:
      (its folder, or None where there is none; the damage of each newer one by folder).
    """
    damaged = {}
    for path in reversed(states(directory).values()):
        reason = damage(path)
        if reason is None:
            return path, damaged
        damaged[path] = reason
    return None, damaged


def newest_text(directory: pathlib.Path, name: str) -> pathlib.Path | None:
    """Find a text file in the newest state in which it is as it was written; None without any."""
    for path in reversed(states(directory).values()):
        with contextlib.suppress(FileNotFoundError, IsADirectoryError, ValueError):
            if sha256_of(path / name) == _sums(path).get(name):
                return path / name
    return None


def _sums(path: pathlib.Path) -> dict[str, str]:
    """Read the checksums of a state's files, by name; ValueError for a list that is cut off."""
    *lines, rest = (path / SUMS).read_text().split("\n")
    if rest:
        raise ValueError(f"expected whole lines in {SUMS}, got {rest!r} at the end")
    return dict(reversed(line.split("  ", 1)) for line in lines)


def step_of(path: pathlib.Path) -> int:
    """Tell the step of the state that a folder holds."""
    return int(_NAME.fullmatch(path.name)[1])


def set_aside(path: pathlib.Path) -> pathlib.Path:
    """Rename a damaged state, so that nothing takes it for a good one; give its new path."""
    moved = path.with_suffix(_DAMAGED)
    shutil.rmtree(moved, ignore_errors=True)
    path.rename(moved)
    return moved


def remove(directory: pathlib.Path, keep: int, keep_every: int = 0) -> None:
    """Delete all but the `keep` newest states and those of each `keep_every`th step (0: none)."""
    for step, path in list(states(directory).items())[:-keep]:
        if not keep_every or step % keep_every:
            # Renamed first: a state that is half deleted is not to look like one.
            gone = path.with_suffix(_PARTIAL)
            path.rename(gone)
            shutil.rmtree(gone)


def remove_partial(directory: pathlib.Path) -> None:
    """Delete remains of a process that ended while it wrote or deleted a state."""
    for path in directory.glob(f"step-*{_PARTIAL}"):
        shutil.rmtree(path)


def read_variables(path: pathlib.Path) -> dict[str, np.ndarray]:
    """Read the small arrays of a state."""
    with np.load(path / _VARIABLES, allow_pickle=False) as file:
        # They are stored as they are; a compressed one could be a thousand times its file's size.
        if any(member.compress_type != zipfile.ZIP_STORED for member in file.zip.infolist()):
            raise ValueError(f"expected stored arrays in {_VARIABLES}, got compressed ones")
        return dict(file)


def read_table(path: pathlib.Path, name: str) -> np.ndarray:
    """Map a large array of a state; it stays on disk, and only parts in use are read."""
    return np.load(path / f"{name}.npy", mmap_mode="r", allow_pickle=False)


def has_table(path: pathlib.Path, name: str) -> bool:
    """Tell whether a state has that large array."""
    return (path / f"{name}.npy").exists()


def read_text(path: pathlib.Path, name: str) -> str:
    """Read a text file of a state."""
    return (path / name).read_text()


@contextlib.contextmanager
def _written(path: pathlib.Path) -> Iterator:
    """Open a new file that is on the disk at the end, not only on its way there."""
    with open(path, "xb") as file:
        yield file
        file.flush()
        os.fsync(file.fileno())


def sha256_of(path: pathlib.Path) -> str:
    """Compute SHA-256 of a file, in hexadecimal digits; only a block of it is in memory."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
