"""Find the blocks of a run, in a folder for every start of the run and number of replicas."""

import contextlib
import dataclasses
import math
import pathlib
import re

import numpy as np

from pic_tf.data.order import SlidingWindow
from pic_tf.files.replaced import sync_folder
from pic_tf.instances.paging.blocks import Blocks

_FOLDER = re.compile(r"from-step-\d{12}/replica-(\d{5})-of-(\d{5})")


@dataclasses.dataclass(frozen=True)
class RunSegment:
    """Blocks that one start of a run has written, from a number up to those of the next segment.

    Attributes:
      first: number of the first block.
      step: from which the run went on.
      replicas: R.
    """

    first: int
    step: int
    replicas: int


class BlockStore:
    """Blocks of one replica on disk.

    A run that goes on from a checkpoint writes its blocks beside those that are there, and the
    checkpoints that follow know from which start on, and with how many replicas, each was written
    (`segments`). So a block that was written after the checkpoint is not taken for the one that is
    written in its stead, whoever left it there.

    Another number of replicas is no obstacle. Position p of a replica belongs to its shard p mod m
    (`data.order.SlidingWindow`), so row k m + j of a block is the k-th of shard j. With the same
    virtual shards, the blocks of a number hold the same instances for all numbers of replicas; only
    who has which shards changes.

    Args:
      order: of the replica.
      rows: folder of the rows of a worker's replicas.

    Attributes:
      segments: in ascending order of their blocks; the last one is this.
    """

    def __init__(self, order: SlidingWindow, rows: pathlib.Path):
        self.segments: list[RunSegment] = []
        self._order, self._rows = order, rows

    def begin(self, step: int, needed: range, segments: list[RunSegment]) -> None:
        """Go on from a checkpoint.

        Args:
          step: of the checkpoint; 0 for a new run.
          needed: the blocks that are read from then on, beside those to be written.
          segments: of the checkpoint.

        Raises:
          OSError: where there cannot be a folder for the blocks.
        """
        ends = [segment.first for segment in segments[1:]] + [needed.stop]
        self.segments = [
            segment
            for segment, end in zip(segments, ends)
            if segment.first < needed.stop and end > needed.start
        ]
        self.segments.append(RunSegment(needed.stop, step, self._order.num_replicas))
        self.folder.mkdir(parents=True, exist_ok=True)

    def begin_anew(self, step: int, first: int) -> None:
        """Begin at a step with no blocks, not even those of an earlier try from this step.

        Args:
          step: of a checkpoint that holds all rows.
          first: number of the first block to be written.

        Raises:
          OSError: where there cannot be a folder for the blocks, or an old one cannot be deleted.
        """
        self.begin(step, range(first, first), [])
        self._own.remove(lambda _: True)

    @property
    def folder(self) -> pathlib.Path:
        """Folder to which blocks are written."""
        return self._own.folder

    def write(self, number: int, rows: dict[str, np.ndarray]) -> None:
        """Write a block, arrays [S / R, ...] by name; raises OSError as `Blocks.write` does."""
        self._own.write(number, rows)

    def read(self, number: int) -> dict[str, np.ndarray]:
        """Read a block, arrays [S / R, ...] by name; raises ValueError as `Blocks.read` does."""
        order, count, found = self._order, self._segment_of(number).replicas, {}
        for replica, blocks in self._parts(number):
            theirs = np.arange(replica, order.num_shards, count)
            mine = order.shards % count == replica
            for name, table in blocks.read(number).items():
                if name not in found:
                    found[name] = np.empty([order.own_stride, *table.shape[1:]], table.dtype)
                by_shard = table.reshape(-1, len(theirs), *table.shape[1:])
                of_shards = found[name].reshape(-1, len(order.shards), *table.shape[1:])
                of_shards[:, mine] = by_shard[:, np.searchsorted(theirs, order.shards[mine])]
        return found

    def missing(self, numbers: range) -> list[tuple[int, str]]:
        """List (number, folder in which it should be) of blocks that are not there."""
        return [
            (number, str(blocks.folder))
            for number in numbers
            for _, blocks in self._parts(number)
            if not blocks.has(number)
        ]

    def rows_there(self) -> float:
        """Count the rows of this replica on disk, with those that nothing needs any more."""
        order, r = self._order, self._order.num_replicas
        return sum(
            len(blocks.numbers()) * order.window_stride / math.lcm(r, count)
            for replica, count, blocks in self._all()
            if (replica - order.replica) % math.gcd(r, count) == 0
        )

    def sync(self) -> None:
        """Bring the names of the files and folders to the disk too."""
        self._own.sync()
        sync_folder(self.folder.parent)
        sync_folder(self._rows)

    def forget(self, stop: int) -> None:
        """Delete blocks from a number on of other starts of the run: this one writes its own."""
        for replica, count, blocks in self._all():
            if not self._is_of_this_start(replica, count, blocks):
                blocks.remove(lambda number: number >= stop)

    def release(self, first: int) -> None:
        """Delete the blocks before a number, whoever has written them.

        Raises:
          OSError: where one cannot be deleted.
        """
        for replica, count, blocks in self._all():
            blocks.remove(lambda number: number < first)
            if not self._is_of_this_start(replica, count, blocks) and not blocks.numbers():
                with contextlib.suppress(OSError):  # another worker was quicker
                    blocks.folder.rmdir()

    def _is_of_this_start(self, replica: int, count: int, blocks: Blocks) -> bool:
        this = self._blocks(self.segments[-1].step, replica, count)
        return count == self._order.num_replicas and blocks.folder == this.folder

    @property
    def _own(self) -> Blocks:
        return self._blocks(self.segments[-1].step, self._order.replica, self._order.num_replicas)

    def _blocks(self, step: int, replica: int, count: int) -> Blocks:
        start = self._rows / f"from-step-{step:012d}"
        return Blocks(start / f"replica-{replica:05d}-of-{count:05d}")

    def _segment_of(self, number: int) -> RunSegment:
        begun = [segment for segment in self.segments if segment.first <= number]
        return begun[-1] if begun else self.segments[0]

    def _parts(self, number: int) -> list[tuple[int, Blocks]]:
        """List the replicas that wrote the shards of this one, with the blocks of each."""
        segment = self._segment_of(number)
        return [
            (int(replica), self._blocks(segment.step, int(replica), segment.replicas))
            for replica in np.unique(self._order.shards % segment.replicas)
        ]

    def _all(self) -> list[tuple[int, int, Blocks]]:
        """List (replica, number of replicas, blocks) of every start of the run in the folder."""
        found = []
        for path in sorted(self._rows.glob("from-step-*/replica-*")):
            if match := _FOLDER.fullmatch(f"{path.parent.name}/{path.name}"):
                found.append((int(match[1]), int(match[2]), Blocks(path)))
        return found
