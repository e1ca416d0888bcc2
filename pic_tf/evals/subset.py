"""Choose some of a source's images: those with labels that a protocol may use."""

import dataclasses
import hashlib
import os
import pathlib

import numpy as np
import tensorflow as tf

from pic_tf.data.sources.pixel_format import PixelFormat
from pic_tf.data.sources.source import Source


@dataclasses.dataclass(frozen=True, eq=False)
class Subset:
    """Some images of another source, in the order given.

    Attributes:
      source: the other source.
      ids: int64 [n], the chosen images.
    """

    source: Source
    ids: np.ndarray

    @property
    def name(self) -> str:
        return f"{len(self)} of {self.source.name}"

    @property
    def labels(self) -> np.ndarray | None:
        return None if self.source.labels is None else self.source.labels[self.ids]

    @property
    def class_names(self) -> tuple[str, ...]:
        return self.source.class_names

    @property
    def unlabelled(self) -> str:
        return self.source.unlabelled

    @property
    def folder(self) -> str:
        return self.source.folder

    @property
    def pixels(self) -> PixelFormat:
        return self.source.pixels

    def __len__(self) -> int:
        return len(self.ids)

    def path(self, instance_id: int) -> str:
        """The name of an instance in messages."""
        return self.source.path(int(self.ids[instance_id]))

    def fingerprint(self) -> str:
        """Hash of the source's fingerprint and of the choice."""
        return hashlib.sha256(self.source.fingerprint().encode() + self.ids.tobytes()).hexdigest()

    def read(self, instance_ids: tf.Tensor) -> tf.Tensor:
        """Read images of int64 [b] ids, as the source does."""
        return self.source.read(tf.gather(tf.constant(self.ids, tf.int64), instance_ids))


def stratified(labels: np.ndarray, fraction: float, seed: int) -> np.ndarray:
    """Draw a share of the images of every class, at least one.

    Args:
      labels: int64 [N].
      fraction: share in (0, 1].
      seed: seed of the draw.

    Returns:
      int64 [n] ids in rising order.
    """
    rng, chosen = np.random.default_rng(seed), []
    for label in np.unique(labels):
        ids = np.flatnonzero(labels == label)
        chosen.append(rng.permutation(ids)[: max(1, round(fraction * len(ids)))])
    return np.sort(np.concatenate(chosen))


def share(count: int, fraction: float, seed: int) -> np.ndarray:
    """Draw a share of images, at least one.

    Args:
      count: number of images.
      fraction: share in (0, 1].
      seed: seed of the draw.

    Returns:
      int64 [n] ids in rising order.
    """
    chosen = max(round(fraction * count), 1)
    return np.sort(np.random.default_rng(seed).permutation(count)[:chosen])


def balanced(labels: np.ndarray, count: int, seed: int) -> np.ndarray:
    """Draw images, of every class as many as of any other, or all that it has.

    Args:
      labels: int64 [N].
      count: n; where it is no multiple of the number of classes, some have one more, by chance.
      seed: seed of the draw.

    Returns:
      int64 [min(n, N)] ids in rising order.
    """
    rng, turn = np.random.default_rng(seed), np.empty(len(labels))
    for label in np.unique(labels):
        ids = np.flatnonzero(labels == label)
        turn[rng.permutation(ids)] = np.arange(len(ids)) + rng.random()
    return np.sort(np.argsort(turn)[:count])


def listed(path: str | os.PathLike, source: Source) -> np.ndarray:
    """List the images named by a text file, one file name a line.

    The published lists of SimCLR are such files.

    Args:
      path: the text file.
      source: the images; the folders in front of a name need not be in the list.

    Returns:
      int64 [n] ids in rising order.

    Raises:
      ValueError: for a list that cannot be read, or a name that is not there, or there twice.
    """
    try:
        lines = pathlib.Path(path).read_text().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(
            f"expected a text file with an image's name in each line in --label_ids, got {error}"
        ) from error
    names = [line.strip() for line in lines if line.strip()]
    ids: dict[str, list[int]] = {}
    for i in range(len(source)):
        ids.setdefault(os.path.basename(source.path(i)), []).append(i)
    for name in names:
        found = ids.get(os.path.basename(name), [])
        if len(found) != 1:
            raise ValueError(
                f"expected each name in {str(path)!r} to be that of one image of {source.name}, "
                f"got {name!r}, which is that of {len(found)}: "
                "use the list of this data set, or --label_fraction"
            )
    if not names:
        raise ValueError(f"expected names of images in {str(path)!r}, got an empty file")
    return np.unique([ids[os.path.basename(name)][0] for name in names])
