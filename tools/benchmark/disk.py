"""Measure a block of rows on a disk: cold, warm, in another layout, by other means."""

if __name__ == "__main__":
    raise SystemExit("error: expected python tools/benchmark, got a part of it: see its --help")

import os
import pathlib
import time
from collections.abc import Callable

import numpy as np

from pic_tf.files.replaced import replaced
from pic_tf.instances.paging.blocks import TABLES, Blocks
from pic_tf.settings.plan import as_text

from .step import Sizes

_ROUNDS = 9


def report(sizes: Sizes, folder: pathlib.Path) -> None:
    """Measure a block cold and warm, rows one by one instead, and other ways to keep a block."""
    stride, dim = 16384, sizes.embedding_dim
    rng = np.random.default_rng(0)
    rows = {name: rng.normal(size=[stride, dim]).astype(np.float32) for name in TABLES[:2]}
    rows["stamp"] = np.ones(stride, np.int64)
    record = np.dtype([*((name, np.float32, dim) for name in TABLES[:2]), ("stamp", np.int64)])
    table = np.empty(stride, record)
    for name in TABLES:
        table[name] = rows[name]
    (folder / "blocks").mkdir()
    blocks, raw = Blocks(folder / "blocks"), folder / "rows.bin"
    with open(raw, "wb") as file:
        for _ in range(_ROUNDS * 4):
            file.write(table.tobytes())
        file.flush()
        os.fsync(file.fileno())
    mapped = np.lib.format.open_memmap(folder / "rows.npy", "w+", record, [stride * _ROUNDS])

    def write_plain(i: int) -> None:
        with replaced(folder / f"plain-{i}", "wb", durable=True) as file:
            for name in TABLES:
                file.write(rows[name].data)

    def read_plain(i: int) -> None:
        with open(folder / f"plain-{i}", "rb") as file:
            for name in TABLES:
                file.readinto(np.empty_like(rows[name]))

    def write_mapped(i: int) -> None:
        mapped[i * stride : (i + 1) * stride] = table
        mapped.flush()

    def read_mapped(i: int) -> None:
        np.array(mapped[i * stride : (i + 1) * stride])

    def read_random(i: int) -> None:
        with open(raw, "rb", buffering=0) as file:
            for number in rng.integers(stride * _ROUNDS * 4, size=sizes.batch_size):
                os.pread(file.fileno(), record.itemsize, int(number) * record.itemsize)

    ways = {
        "block, .npz (ours)": (lambda i: blocks.write(i, rows), blocks.read, blocks._path),
        "block, plain file": (write_plain, read_plain, lambda i: folder / f"plain-{i}"),
        "block, numpy.memmap": (write_mapped, read_mapped, lambda i: folder / "rows.npy"),
        f"{sizes.batch_size} rows at random": (None, read_random, lambda i: raw),
    }
    ways |= _tensorstore(folder, rows) | _lmdb(folder, table)
    columns = f"{'write ms':>10}{'read cold':>11}{'read warm':>11}"
    print(f"\n{'medians of ' + str(_ROUNDS):24}{columns}   of {as_text(table.nbytes)}")
    for name, (write, read, path) in ways.items():
        times: dict[str, list[float]] = {"write": [], "cold": [], "warm": []}
        for i in range(_ROUNDS):
            if write:
                times["write"].append(_milliseconds(write, i))
            _forget(path(i))
            times["cold"].append(_milliseconds(read, i))
            times["warm"].append(_milliseconds(read, i))
        write, cold, warm = (f"{np.median(x):.1f}" if x else "" for x in times.values())
        print(f"{name:24}{write:>10}{cold:>11}{warm:>11}")
    print("written: on the disk (fsync). Random rows: of one step; a block serves W / B steps")


def _tensorstore(folder: pathlib.Path, rows: dict[str, np.ndarray]) -> dict:
    """Make the way by tensorstore, one uncompressed zarr chunk, where that is installed."""
    try:
        import tensorstore
    except ImportError:
        print("tensorstore is not installed, so not measured (pip install tensorstore)")
        return {}
    stamp = rows["stamp"][:, None].view(np.float32)
    values = np.concatenate([rows["weights"], rows["momentum"], stamp], axis=1)
    chunk = {"dtype": "<f4", "shape": values.shape, "chunks": values.shape, "compressor": None}

    def block(i: int, **options) -> tensorstore.TensorStore:
        files = {"driver": "file", "path": str(folder / f"zarr-{i}")}
        spec = {"driver": "zarr", "kvstore": files, "metadata": chunk}
        return tensorstore.open(spec, **options).result()

    def write(i: int) -> None:
        block(i, create=True, delete_existing=True).write(values).result()

    def read(i: int) -> None:
        block(i, open=True).read().result()

    return {"block, tensorstore": (write, read, lambda i: folder / f"zarr-{i}" / "0.0")}


def _lmdb(folder: pathlib.Path, table: np.ndarray) -> dict:
    """Make the way by LMDB, row by row, where that is installed."""
    try:
        import lmdb
    except ImportError:
        print("lmdb is not installed, so not measured (pip install lmdb)")
        return {}
    (folder / "lmdb").mkdir()
    environment = lmdb.open(str(folder / "lmdb"), map_size=2**33)

    def write(i: int) -> None:
        with environment.begin(write=True) as transaction:
            for j, row in enumerate(table):
                transaction.put(b"%12d" % (i * len(table) + j), row.tobytes())
        environment.sync(True)

    def read(i: int) -> None:
        with environment.begin() as transaction:
            for j in range(len(table)):
                np.frombuffer(transaction.get(b"%12d" % (i * len(table) + j)), table.dtype)

    return {"rows, LMDB": (write, read, lambda i: folder / "lmdb" / "data.mdb")}


def _milliseconds(function: Callable, i: int) -> float:
    begin = time.perf_counter()
    function(i)
    return 1e3 * (time.perf_counter() - begin)


def _forget(path: pathlib.Path) -> None:
    """Take a file out of the page cache."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(descriptor)
