"""Compare a packed data set with its checksums."""

import functools
import pathlib
from concurrent.futures import ThreadPoolExecutor

from tqdm import tqdm

from pic_tf.data.sources.packed import damaged_records, is_packed, open_packed


def verify(output: pathlib.Path, workers: int) -> None:
    """Read all records of a packed data set, or of its `train` and `val`, and name damaged ones.

    Args:
      output: the folder.
      workers: threads that read.

    Raises:
      ValueError: for a folder without a packed data set, one that cannot be opened, or damaged
        records.
    """
    folders = [folder for folder in (output, output / "train", output / "val") if is_packed(folder)]
    if not folders:
        raise ValueError(f"expected a packed data set at {str(output)!r}, got none: check the path")
    damaged = 0
    for folder in folders:
        source = open_packed(folder)
        read = functools.partial(damaged_records, source)
        with ThreadPoolExecutor(workers) as executor:
            results = executor.map(read, range(len(source.shards)))
            for ids in tqdm(results, folder.name, len(source.shards), unit=" shards"):
                damaged += len(ids)
                for instance_id in ids:
                    tqdm.write(f"damaged: {source.path(instance_id)!r}")
        print(f"{len(source):,} images read from {folder}")
    if damaged:
        raise ValueError(
            "expected all records as they were packed, "
            f"got {damaged:,} that differ: restore the data set"
        )
