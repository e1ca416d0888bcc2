"""What rows in host memory and on disk cost: a step for each number of images, and the disk by itself."""

import dataclasses
import os
import pathlib
import shutil
import tempfile
import time
from collections.abc import Callable

import matplotlib
import numpy as np
import tensorflow as tf
import tf_keras as keras
from absl import flags
from benchmark_step import TEMPERATURE, TRAINING_STEPS, GivenEmbedding, Sizes
from pic_tf.instances.pager import TABLES
from tqdm import tqdm

from pic_tf import PIC, LazySGD, SlidingWindow, WarmupCosine
from pic_tf.data.order import default_shards, default_window
from pic_tf.files.replaced import replaced
from pic_tf.instances.paging.blocks import Blocks
from pic_tf.instances.paging.pager import Pager
from pic_tf.instances.paging.schedule import Pages
from pic_tf.instances.paging.segments import Lineage
from pic_tf.settings.plan import as_text

FLAT, RESIDENT_FLAT, OVERHEAD = 0.10, 0.05, 1.10  # targets: spread over N of time and memory, disk over device
_TURNS = 5  # of the window, that are timed


@dataclasses.dataclass(frozen=True)
class Costs:
    """What a variant costs.

    Attributes:
      name: what the table calls it.
      count: N.
      window: W; a window of other length moves other numbers of bytes a step.
      step: milliseconds of each counted step.
      turn: milliseconds that training waits where the window moves on, of each turn.
      turn_cpu: CPU milliseconds of a turn, of all threads, until all is written and read.
      moved: bytes written in a step, and as many read.
      resident: bytes of this process.
    """

    name: str
    count: int
    window: int
    step: list[float]
    turn: list[float]
    turn_cpu: list[float]
    moved: float
    resident: int

    def steps_per_turn(self, batch_size: int) -> int:
        return self.window // batch_size

    def mean_step(self, batch_size: int) -> float:
        """Milliseconds a step with its share of a turn."""
        return float(np.median(self.step) + np.median(self.turn or [0.0]) / self.steps_per_turn(batch_size))


def prepared(
    sizes: Sizes, count: int, store: str, folder: pathlib.Path, rounds: int
) -> tuple[Callable, Pager | None, int]:
    """A model in its second sweep over N images: the blocks that it will read are there, rows have been visited.

    Returns:
      (a function that takes a step and returns its milliseconds, the pager or None, W).
    """
    b, d, k = sizes.batch_size, sizes.embedding_dim, sizes.num_negatives
    window, stride = default_window(count, b)
    order = SlidingWindow(count, b, window, stride, virtual_shards=default_shards(count, window, stride))
    pages = None if store == "device" else Pages(order, k)
    inputs = keras.Input([d], batch_size=b)
    backbone = keras.Model(inputs, GivenEmbedding()(inputs))
    places = pages.places if pages else None
    model = PIC(backbone, count, k, head="none", temperature=TEMPERATURE, rows_on_device=places)
    rate = WarmupCosine(0.03 * b / 256, TRAINING_STEPS, TRAINING_STEPS // 40)
    model.compile(LazySGD(rate, max_updates=TRAINING_STEPS))
    model.optimizer.build(model.trainable_variables)
    model.optimizer.iterations.assign(1)
    begin = (-(-count // stride) + 2 * window // stride) * order.steps_per_window  # behind it lies a whole sweep
    pager = None
    if pages:
        blocks = Lineage(order, folder if store == "disk" else None)
        first = pages.window_of(begin)
        blocks.begin(begin, range(0, 0), [])
        rows = {name: np.random.default_rng(0).normal(size=[stride, d]).astype(np.float32) / 100 for name in TABLES[:2]}
        rows["stamp"] = np.ones(stride, np.int64)
        windows = _TURNS + 4 + (k // b + rounds) // order.steps_per_window
        stops = [pages.here(first + turn).stop for turn in range(windows)]
        for number in {number for stop in stops for number, *_ in pages.earlier(range(stop, stop + stride))}:
            blocks.write(number, rows)
        pager = Pager(model.classifier, [pages], [blocks], tf.distribute.get_strategy(), store == "host")
        pager.open(begin, blocks.writers)
    model.classifier.store.stamp.assign(tf.ones_like(model.classifier.store.stamp))

    ids_of = tf.function(order.instance_ids)
    steps = iter(range(begin, begin + 10_000_000))
    fill = tf.function(lambda ids: model.classifier.admit(ids, model.optimizer)[0])
    train = tf.function(lambda ids: model.train_step((tf.zeros([b, d]), ids))["loss"])

    def visited() -> tf.Tensor:
        number = next(steps)
        if pager:
            pager.follow(number)
        return ids_of(tf.constant(number, tf.int64))

    def step() -> float:
        ids, start = visited(), time.perf_counter()
        train(ids).numpy()
        return 1e3 * (time.perf_counter() - start)

    for _ in range(-(-k // b)):  # the ring is full
        fill(visited())
    return step, pager, window


def costs(name: str, sizes: Sizes, count: int, store: str, rounds: int, folder: str) -> Costs:
    """Measure a variant; to be called in a process of its own."""
    rounds += 3  # the first ones trace, and warm up
    step, pager, window = prepared(sizes, count, store, pathlib.Path(folder), rounds)
    times, turns, turns_cpu = [step() for _ in range(rounds)][3:], [], []
    resident = 0
    if pager:
        for number in range(_TURNS + 1):
            pager._coming.result()  # in training it has had hundreds of steps for that
            begin, cpu = time.perf_counter(), time.process_time()
            pager.turn()
            waited = 1e3 * (time.perf_counter() - begin)
            pager.flush()
            pager._coming.result()
            if number:
                turns.append(waited)
                turns_cpu.append(1e3 * (time.process_time() - cpu))
        resident = resident_bytes()
        pager.close()
    stride = window // 8
    moved = stride * (8 * sizes.embedding_dim + 8) / (window // sizes.batch_size) if pager else 0.0
    return Costs(name, count, window, times, turns, turns_cpu, moved, resident or resident_bytes())


def resident_bytes() -> int:
    """Memory of this process that is in use now."""
    return int(pathlib.Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def store(in_own_process: Callable) -> None:
    """A step for each N and store; then the disk: cold, warm, in another layout, by other means."""
    values = flags.FLAGS
    sizes = Sizes(values.batch_size, values.embedding_dim, values.num_negatives)
    folder = pathlib.Path(tempfile.mkdtemp(dir=values.store_folder or None))
    kinds = [("disk", int(n)) for n in values.store_instances]
    kinds += [(kind, n) for kind in ("host", "device") for _, n in kinds if n <= values.store_most_in_memory]
    print(
        f"store: B {sizes.batch_size}, D {sizes.embedding_dim}, K {sizes.num_negatives}; TensorFlow {tf.__version__}, "
        f"{os.cpu_count()} CPU cores"
    )
    try:
        merged: dict[tuple, Costs] = {}
        turns = [kind for _ in range(values.store_turns) for kind in kinds]  # so that a slow minute meets all of them
        for number, (kind, count) in enumerate(tqdm(turns, "variants", unit="variant")):
            here = folder / f"{number}"
            name = f"{kind}, N = {count:,}"
            found = in_own_process(costs, name, sizes, count, kind, values.repeats, str(here))
            shutil.rmtree(here, ignore_errors=True)
            before = merged.get((kind, count))
            if before:
                lists = {
                    field: getattr(before, field) + getattr(found, field) for field in ("step", "turn", "turn_cpu")
                }
                found = dataclasses.replace(found, **lists)
            merged[kind, count] = found
        _report(merged, sizes, values.backbone_ms)
        if values.store_output:
            _plot(merged, sizes, values.store_output)
        _report_disk(sizes, folder)
    finally:
        shutil.rmtree(folder)


def _report(found: dict[tuple, Costs], sizes: Sizes, backbone_ms: float) -> None:
    b = sizes.batch_size
    columns = f"{'W':>9}{'step ms':>9}{'quartiles':>18}{'turn ms':>9}{'CPU':>7}{'a step':>9}{'moved':>10}{'MiB':>8}"
    print(f"\n{'variant':26}{columns}")
    for of in found.values():
        low, middle, high = np.percentile(of.step, [25, 50, 75])
        turn, cpu = (np.median(x) if x else 0.0 for x in (of.turn, of.turn_cpu))
        print(
            f"{of.name:26}{of.window:9,}{middle:9.1f}{f'{low:.1f} .. {high:.1f}':>18}{turn:9.1f}{cpu:7.0f}"
            f"{of.mean_step(b):9.1f}{as_text(of.moved):>10}{of.resident / 2**20:8,.0f}"
        )
    print("turn: what training waits where the window moves on, once in W / B steps; CPU: of all threads for it")
    print("moved: written a step, and as much read; MiB: resident memory of the whole process")
    disk = [of for (kind, _), of in found.items() if kind == "disk"]
    widest = [of for of in disk if of.window == max(x.window for x in disk)]
    for what, values, target in (
        ("step on disk, (max - min) / min over N", [of.mean_step(b) for of in disk], FLAT),
        ("resident memory, the same over N of one window", [of.resident for of in widest], RESIDENT_FLAT),
    ):
        spread = max(values) / min(values) - 1
        print(f"{what}: {spread:.1%}, target <= {target:.0%}: {'met' if spread <= target else 'NOT met'}")
    for (kind, count), of in found.items():
        beside = found.get(("disk", count))
        if kind == "device" and beside:
            alone = beside.mean_step(b) / of.mean_step(b)
            hidden = (backbone_ms + beside.mean_step(b)) / (backbone_ms + of.mean_step(b))
            print(
                f"disk / device, N = {count:,}: {alone:.3f}, with a backbone of {backbone_ms:g} ms {hidden:.3f}, "
                f"target <= {OVERHEAD}: {'met' if hidden <= OVERHEAD else 'NOT met'}"
            )


def _plot(found: dict[tuple, Costs], sizes: Sizes, path: str) -> None:
    matplotlib.use("Agg")  # no screen needed
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
    for kind, colour, marker in (("device", "tab:orange", "s"), ("host", "tab:green", "^"), ("disk", "tab:blue", "o")):
        of_kind = sorted((of for (k, _), of in found.items() if k == kind), key=lambda of: of.count)
        counts = [of.count for of in of_kind]
        for axis, values in (
            (axes[0], [of.mean_step(sizes.batch_size) for of in of_kind]),
            (axes[1], [of.resident / 2**20 for of in of_kind]),
        ):
            axis.loglog(counts, values, marker=marker, color=colour, label=f"rows: {kind}")
    for axis, title, unit in zip(axes, ("time of a step without backbone", "resident memory"), ("ms", "MiB")):
        axis.set_title(title, fontsize=11)
        axis.set_xlabel("images N")
        axis.set_ylabel(unit)
        axis.grid(True, which="both", alpha=0.3)
        axis.legend()
    axes[0].set_ylim(10, 10_000)
    axes[1].set_ylim(100, 10_000)
    with replaced(pathlib.Path(path), "wb") as file:
        figure.savefig(file, format="png", dpi=130)
    plt.close(figure)


def _report_disk(sizes: Sizes, folder: pathlib.Path) -> None:
    """A block cold and warm; rows one by one instead; and other ways to keep a block."""
    stride, dim = 16384, sizes.embedding_dim
    rng = np.random.default_rng(0)
    rows = {name: rng.normal(size=[stride, dim]).astype(np.float32) for name in TABLES[:2]} | {
        "stamp": np.ones(stride, np.int64)
    }
    record = np.dtype([("weights", np.float32, dim), ("momentum", np.float32, dim), ("stamp", np.int64)])
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

    def read_random(i: int) -> None:
        with open(raw, "rb", buffering=0) as file:
            for place in rng.integers(stride * _ROUNDS * 4, size=sizes.batch_size):
                os.pread(file.fileno(), record.itemsize, int(place) * record.itemsize)

    ways = {
        "block, .npz (ours)": (lambda i: blocks.write(i, rows), blocks.read, lambda i: blocks._path(i)),
        "block, plain file": (write_plain, read_plain, lambda i: folder / f"plain-{i}"),
        "block, numpy.memmap": (
            write_mapped,
            lambda i: np.array(mapped[i * stride : (i + 1) * stride]),
            lambda i: folder / "rows.npy",
        ),
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
    print("written: on the disk (fsync). Random rows are those of one step: a block serves W / B steps")


_ROUNDS = 9


def _tensorstore(folder: pathlib.Path, rows: dict[str, np.ndarray]) -> dict:
    """The same block as one uncompressed zarr chunk in tensorstore, where that is installed."""
    try:
        import tensorstore
    except ImportError:
        print("tensorstore is not installed, so not measured (pip install tensorstore)")
        return {}
    values = np.concatenate([rows["weights"], rows["momentum"], rows["stamp"][:, None].view(np.float32)], axis=1)

    def block(i: int, **options) -> tensorstore.TensorStore:
        spec = {
            "driver": "zarr",
            "kvstore": {"driver": "file", "path": str(folder / f"zarr-{i}")},
            "metadata": {"dtype": "<f4", "shape": values.shape, "chunks": values.shape, "compressor": None},
        }
        return tensorstore.open(spec, **options).result()

    def write(i: int) -> None:
        block(i, create=True, delete_existing=True).write(values).result()

    return {
        "block, tensorstore": (
            write,
            lambda i: block(i, open=True).read().result(),
            lambda i: folder / f"zarr-{i}" / "0.0",
        )
    }


def _lmdb(folder: pathlib.Path, table: np.ndarray) -> dict:
    """The same block by row in LMDB, where that is installed."""
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


def define_flags() -> None:
    flags.DEFINE_list(
        "store_instances", "100000,1000000,10000000,100000000,1000000000", "store: training images N with rows on disk"
    )
    flags.DEFINE_integer("store_most_in_memory", 1_000_000, "store: up to this N also in host memory and on the device")
    flags.DEFINE_integer("store_turns", 3, "store: processes of each variant, one after the other", 1)
    flags.DEFINE_float(
        "backbone_ms", 500.0, "store: milliseconds of the backbone in a step, beside which rows move", 0.0
    )
    flags.DEFINE_string("store_folder", "", "store: where to put rows; '' for the system's choice")
    flags.DEFINE_string("store_output", "", "store: PNG file of time and memory against N; '' for none")
