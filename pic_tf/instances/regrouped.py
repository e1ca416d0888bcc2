"""Blocks that another number of replicas has written, read as those of this one."""

import dataclasses
import pathlib
import re
from collections.abc import Callable

import numpy as np

from pic_tf.data.order import SlidingWindow
from pic_tf.instances.blocks import Blocks

_FOLDER = re.compile(r"replica-(\d{5})-of-(\d{5})")


@dataclasses.dataclass(frozen=True)
class Regrouped:
    """The blocks of one replica, whose shards lie in blocks of replicas of another number.

    Place p of a replica belongs to its shard p mod m (`data.order.SlidingWindow`), so row k m + j of a block is the
    k-th of shard j. With the same virtual shards, the blocks of a number hold the same instances whatever the
    number of replicas is; only who has which shards changes.

    Attributes:
      order: of the replica that reads.
      count: how many replicas there were.
      blocks: of those that have shards of this one, by their number.
    """

    order: SlidingWindow
    count: int
    blocks: dict[int, Blocks]

    def has(self, number: int) -> bool:
        """Whether all parts of a block are there."""
        return all(blocks.has(number) for blocks in self.blocks.values())

    def numbers(self) -> set[int]:
        """Which blocks are there, all parts of them."""
        return set.intersection(*(set(blocks.numbers()) for blocks in self.blocks.values()))

    def read(self, number: int) -> dict[str, np.ndarray]:
        """The arrays of a block, [S / R, ...] by name; raises ValueError as `Blocks.read` does."""
        shards, found = self.order.shards, {}
        for replica, blocks in self.blocks.items():
            theirs = np.arange(replica, self.order.virtual_shards, self.count)
            mine = shards % self.count == replica
            for name, table in blocks.read(number).items():
                if name not in found:
                    found[name] = np.empty([self.order.own_stride, *table.shape[1:]], table.dtype)
                columns = table.reshape(-1, len(theirs), *table.shape[1:])[:, np.searchsorted(theirs, shards[mine])]
                found[name].reshape(-1, len(shards), *table.shape[1:])[:, mine] = columns
        return found

    def remove(self, unwanted: Callable[[int], bool]) -> None:
        """Forget the blocks whose number is unwanted, for all replicas that read them, and parts of such."""
        for blocks in self.blocks.values():
            blocks.remove(unwanted)


def counts(rows: pathlib.Path, virtual_shards: int) -> list[int]:
    """How many replicas wrote to a folder of rows; several numbers where that has changed."""
    folder = _of_shards(rows, virtual_shards)
    names = [path.name for path in folder.iterdir()] if folder.is_dir() else []
    return sorted({int(match[2]) for name in names if (match := _FOLDER.fullmatch(name))})


def open_blocks(rows: pathlib.Path, order: SlidingWindow) -> Blocks:
    """The blocks of a replica on disk, also those that other numbers of replicas have written.

    Args:
      rows: folder of the rows of a worker's replicas.
      order: of the replica.

    Returns:
      Its blocks; they are written to a folder of its own.

    Raises:
      OSError: where that cannot be made.
    """
    folder, others = _of_shards(rows, order.virtual_shards), []
    for count in counts(rows, order.virtual_shards) if order.virtual_shards else []:
        sources = {int(replica): folder / _name(int(replica), count) for replica in np.unique(order.shards % count)}
        if count != order.num_replicas and all(source.is_dir() for source in sources.values()):
            others.append(Regrouped(order, count, {replica: Blocks(source) for replica, source in sources.items()}))
    return Blocks(folder / _name(order.replica, order.num_replicas), others)


def _of_shards(rows: pathlib.Path, virtual_shards: int) -> pathlib.Path:
    return rows / f"{virtual_shards}-shards" if virtual_shards else rows


def _name(replica: int, count: int) -> str:
    return f"replica-{replica:05d}-of-{count:05d}"
