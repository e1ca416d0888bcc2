"""Read images of several folders, packed data sets and tables as one data set."""

import dataclasses
import functools
import hashlib
import os
from collections.abc import Sequence
from typing import ClassVar

import numpy as np
import tensorflow as tf

from pic_tf.data.sources.classes import Labels
from pic_tf.data.sources.folder import FolderSource
from pic_tf.data.sources.packed import PackedSource
from pic_tf.data.sources.pixel_format import PixelFormat


@dataclasses.dataclass(frozen=True, eq=False)
class JoinedSource:
    """Images of several places; ids go through one place after another.

    Attributes:
      name, labels, class_names, unlabelled: as of `Source`.
      parts: the images of each place.
    """

    name: str
    labels: np.ndarray | None
    class_names: tuple[str, ...]
    unlabelled: str
    parts: tuple[FolderSource | PackedSource, ...]
    folder: ClassVar[str] = ""  # no folder is that of all images

    @property
    def pixels(self) -> PixelFormat:
        """Channels and bits of the images, those of all parts."""
        return self.parts[0].pixels

    def __len__(self) -> int:
        return int(self._ends[-1])

    @functools.cached_property
    def _ends(self) -> np.ndarray:
        """The id behind the last one of each part, int64 [parts]."""
        return np.cumsum([len(part) for part in self.parts])

    def path(self, instance_id: int) -> str:
        """The name of an instance in messages."""
        number = int(np.searchsorted(self._ends, instance_id, "right"))
        part = self.parts[number]
        return part.path(int(instance_id) - int(self._ends[number]) + len(part))

    def fingerprint(self) -> str:
        """Hash of the parts' fingerprints, so the places themselves may move."""
        return hashlib.sha256("\n".join(x.fingerprint() for x in self.parts).encode()).hexdigest()

    def read(self, instance_ids: tf.Tensor) -> tf.Tensor:
        """The encoded images, string [b], of int64 [b] ids."""
        ends = tf.constant(self._ends, tf.int64)
        part = tf.searchsorted(ends, instance_ids, "right")
        count, places = len(self.parts), tf.range(tf.size(part))
        own_ids = instance_ids - tf.gather(tf.concat([[0], ends], 0), part)
        ids = tf.dynamic_partition(own_ids, part, count)
        encoded = [source.read(some) for source, some in zip(self.parts, ids)]
        stitched = tf.dynamic_stitch(tf.dynamic_partition(places, part, count), encoded)
        return tf.ensure_shape(stitched, instance_ids.shape)


def names_in(text: str) -> list[str]:
    """Split a list of places at its commas; a place that has a comma in its name stands alone.

    Args:
      text: the value of a flag.

    Returns:
      The names, one where there is no list.

    Raises:
      ValueError: for a list with an empty name.
    """
    if "," not in text or os.path.exists(text):
        return [text]
    names = [name.strip() for name in text.split(",")]
    if not all(names):
        raise ValueError(f"expected names between the commas, got {text!r}: leave out the comma")
    return names


def check_apart(names: Sequence[str]) -> None:
    """Raise ValueError for a place that is named twice, or lies inside of another.

    Its images would be two instances each.
    """
    places = [os.path.realpath(name) for name in names]
    for i, inner in enumerate(places):
        for j, outer in enumerate(places):
            if i != j and os.path.join(inner, "").startswith(os.path.join(outer, "")):
                raise ValueError(
                    f"expected places that are apart from each other, got {names[i]!r} "
                    f"{'twice' if inner == outer else f'inside of {names[j]!r}'}: name it once"
                )


def join(
    parts: Sequence[FolderSource | PackedSource], class_names: tuple[str, ...], name: str
) -> JoinedSource:
    """Join images of several places; classes of one name are one class.

    Args:
      parts: images of each place, opened with `class_names`, or with None for their own.
      class_names: classes of the training set, by which the parts are numbered; () for the parts'
        own, those of the first part first.
      name: the name of all in messages.

    Returns:
      The images.

    Raises:
      ValueError: for an image in two places, which a table can name beside others.
    """
    _check_images(parts, name)
    found = _labels(parts, class_names)
    return JoinedSource(name, found.labels, found.class_names, found.missing, tuple(parts))


def parts_of(source: object) -> tuple:
    """The sources of a list of places, or the source itself."""
    return source.parts if isinstance(source, JoinedSource) else (source,)


def _check_images(parts: Sequence[FolderSource | PackedSource], name: str) -> None:
    files = [part for part in parts if isinstance(part, FolderSource)]
    if all(part.folder for part in files):  # folders that are apart
        return
    seen = set()
    for path in (os.path.abspath(part.path(i)) for part in files for i in range(len(part))):
        if path in seen:
            raise ValueError(
                f"expected each image once in {name!r}, got {path!r} in two places: leave one out"
            )
        seen.add(path)


def _labels(parts: Sequence[FolderSource | PackedSource], class_names: tuple[str, ...]) -> Labels:
    without = [part for part in parts if part.labels is None]
    if without:
        some = len(without) < len(parts)
        mixed = f"no labels, since {without[0].name!r} has none" if some else ""
        return Labels(None, missing=without[0].unlabelled or mixed)
    names = class_names or tuple(dict.fromkeys(name for part in parts for name in part.class_names))
    if len(names) < 2 and not class_names:
        return Labels(None, missing=f"no labels, since all images have one class, {names[0]!r}")
    numbers = {name: number for number, name in enumerate(names)}
    labels = [
        np.array([numbers[name] for name in part.class_names], np.int64)[part.labels]
        for part in parts
    ]
    return Labels(np.concatenate(labels), names)
