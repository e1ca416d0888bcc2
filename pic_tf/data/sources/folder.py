"""Read images from a folder of files."""

import dataclasses
import hashlib
import os
import pathlib
import shlex
import sys
from collections import Counter
from typing import BinaryIO

import numpy as np
import tensorflow as tf

from pic_tf.data.sources import band_formats
from pic_tf.data.sources.classes import labels_of
from pic_tf.data.sources.formats import EXTENSIONS, HEAD, NAMES, TO_PACK, is_read
from pic_tf.data.sources.pixel_format import RGB, PixelFormat
from pic_tf.data.sources.walk import walk

_MAX_CHECKED = 10_000  # files whose first bytes are looked at before a run starts


@dataclasses.dataclass(frozen=True, eq=False)
class FolderSource:
    """A folder of image files, any nesting; ids follow the sorted relative paths.

    Where every file lies in a sub-folder and there are at least two of them, the first folder
    names the class; otherwise there are no labels.

    Attributes:
      folder: the folder.
      paths: relative paths of the images, one an instance.
      labels: int64 [N], or None.
      class_names: the class folders, sorted, or ().
      unlabelled: the reason why there are no labels.
      name: the name of the images in messages.
      pixels: channels and bits of the images, as they are read.
    """

    folder: str
    paths: tuple[str, ...]
    labels: np.ndarray | None
    class_names: tuple[str, ...]
    unlabelled: str
    name: str
    pixels: PixelFormat = RGB

    def __post_init__(self) -> None:
        # Once, not in every graph; as bytes, since a file name need not be UTF-8.
        files = tf.constant([os.fsencode(os.path.join(self.folder, path)) for path in self.paths])
        object.__setattr__(self, "_files", files)

    def __len__(self) -> int:
        return len(self.paths)

    def path(self, instance_id: int) -> str:
        """The file of an instance."""
        return os.path.join(self.folder, self.paths[instance_id])

    def fingerprint(self) -> str:
        """Hash of the relative paths, so the folder itself may move."""
        return hashlib.sha256(b"\0".join(map(os.fsencode, self.paths))).hexdigest()

    def read(self, instance_ids: tf.Tensor) -> tf.Tensor:
        """The files' bytes, string [b], of int64 [b] ids."""
        files = tf.gather(self._files, instance_ids)
        return tf.map_fn(tf.io.read_file, files, fn_output_signature=tf.string)


def open_folder(
    folder: str | os.PathLike,
    class_names: tuple[str, ...] | None = (),
    seed: int = 0,
    max_broken: float = 0.01,
    pixels: PixelFormat = RGB,
) -> FolderSource:
    """List a folder of images and check that they are images.

    The first bytes of the files (of 10,000 drawn by `seed` where there are more) must be those of
    an image that is read, but for a few: those turn out to be broken when their turn comes. Images
    of other formats are left out, and their number is written to stderr; hidden files and files
    with extensions of no image are passed over.

    Args:
      folder: path of the folder.
      class_names: classes that its class folders must be among, to number the labels by; () for its
        own, None for its own even if it is one alone.
      seed: seed of the draw of files to check.
      max_broken: share of the checked files that may begin otherwise, in [0, 1].
      pixels: format of the images; RGB of 8 bits is made of any, others must be there.

    Returns:
      The source.

    Raises:
      ValueError: a missing or empty folder, files that are not what their names say, or a class
        that is not among `class_names`.
    """
    root = pathlib.Path(folder)
    if not root.is_dir():
        what = "a file" if root.exists() else "nothing"
        raise ValueError(
            f"expected a folder of images at {str(root)!r}, got {what} there: check the path"
        )
    files = sorted(walk(root))
    extensions = EXTENSIONS if pixels == RGB else band_formats.EXTENSIONS
    images = [file for file in files if file.path.lower().endswith(extensions)]
    paths = [file.path for file in images if file.regular]
    others = _to_pack([file.path for file in files if file.regular], extensions)
    pack = f"`python tools/pack.py --source={shlex.quote(str(root))} --output=PACKED` converts them"
    if not paths:
        got = f"{others}: {pack}" if others else "none: check the path"
        raise ValueError(f"expected images ({', '.join(extensions)}) in {str(root)!r}, got {got}")
    if others:
        print(f"left out: {others} in {str(root)!r}; {pack}", file=sys.stderr)
    if special := [file.path for file in images if not file.regular]:
        more = f" and {len(special) - 1:,} more" * (len(special) > 1)
        what = f"{special[0]!r}{more} in {str(root)!r}"
        print(f"left out: {what}, since only regular files are read", file=sys.stderr)
    check_first_bytes(root, paths, seed, max_broken, pixels)
    tops = [path.split(os.sep)[0] if os.sep in path else "" for path in paths]
    found = labels_of(paths, tops, sorted(set(tops)), class_names, str(root))
    return FolderSource(
        str(root), tuple(paths), found.labels, found.class_names, found.missing, str(root), pixels
    )


def _to_pack(files: list[str], read: tuple[str, ...]) -> str:
    """Count files that are images which only packing reads, by kind; "" for none."""
    kinds = Counter(os.path.splitext(path.lower())[1] for path in files)
    found = sorted(
        (-number, kind) for kind, number in kinds.items() if kind in TO_PACK and kind not in read
    )
    return f"{', '.join(f'{-n:,} {kind}' for n, kind in found)} files" if found else ""


def check_first_bytes(
    root: pathlib.Path, paths: list[str], seed: int, max_broken: float, pixels: PixelFormat = RGB
) -> None:
    """Raise ValueError for an unreadable file, or too many that begin as no images.

    Args:
      root: folder of the files.
      paths: files in it, or absolute paths.
      seed, max_broken, pixels: as of `open_folder`.
    """
    checked = range(len(paths))
    if len(paths) > _MAX_CHECKED:
        checked = np.random.default_rng(seed).choice(len(paths), _MAX_CHECKED, replace=False)
    others = []
    for i in checked:
        try:
            with open(root / paths[i], "rb") as file:
                got = _otherwise(file, pixels)
        except OSError as error:
            raise ValueError(
                f"expected a readable image at {str(root / paths[i])!r}, "
                f"got {error.strerror}: remove or replace it"
            ) from error
        if got:
            others.append((paths[i], got))
    if len(others) > max_broken * len(checked):
        path, got = others[0]
        wanted, do = f"a {NAMES} image", "do not begin as images"
        if pixels != RGB:
            wanted, do = f"an image of {pixels}", "are others (see --channels and --bit_depth)"
        raise ValueError(
            f"expected {wanted} in {str(root / path)!r}, got {got}, as {len(others):,} of "
            f"{len(checked):,} {do}: remove or replace them, or allow more (--max_broken)"
        )


def _otherwise(file: BinaryIO, pixels: PixelFormat) -> str:
    """Tell in a few words what a file is instead of an image of a format; "" for such an image."""
    if pixels == RGB:
        head = file.read(HEAD)
        return "" if is_read(head) else f"a file that starts with {head[:8]!r}"
    found = band_formats.format_in(file)
    return "" if found == pixels else str(found or "none that can be read")
