"""Measure rows on disk: a step for each number of images, then the disk by itself."""

if __name__ == "__main__":
    raise SystemExit("error: expected python tools/benchmark, got a part of it: see its --help")

import dataclasses
import os
import pathlib
import shutil
import tempfile
import time
from collections.abc import Callable

import numpy as np
import tensorflow as tf
import tf_keras as keras
from absl import flags
from tqdm import tqdm

from pic_tf import PIC, LazySGD, SlidingWindow, WarmupCosine
from pic_tf.data.order import default_shards, default_window
from pic_tf.instances.paging.blocks import TABLES
from pic_tf.instances.paging.pager import Pager
from pic_tf.instances.paging.schedule import WindowSchedule
from pic_tf.instances.paging.segments import BlockStore

from . import disk, store_report
from .processes import in_own_process
from .step import TEMPERATURE, TRAINING_STEPS, GivenEmbedding, Sizes
from .store_report import Costs

_TURNS = 5  # of the window, that are timed


def prepared(
    sizes: Sizes, count: int, store: str, folder: pathlib.Path, rounds: int
) -> tuple[Callable, Pager | None, int]:
    """Make a model in its second sweep over N images: its blocks are there, its rows visited.

    Returns:
      (a function that takes a step and returns its milliseconds, the pager or None, W).
    """
    b, d, k = sizes.batch_size, sizes.embedding_dim, sizes.num_negatives
    window, stride = default_window(count, b)
    shards = default_shards(count, window, stride)
    order = SlidingWindow(count, b, window, stride, virtual_shards=shards)
    schedule = None if store == "device" else WindowSchedule(order, k)
    inputs = keras.Input([d], batch_size=b)
    backbone = keras.Model(inputs, GivenEmbedding()(inputs))
    locations = schedule.rows_on_device if schedule else None
    model = PIC(backbone, count, k, head="none", temperature=TEMPERATURE, rows_on_device=locations)
    rate = WarmupCosine(0.03 * b / 256, TRAINING_STEPS, TRAINING_STEPS // 40)
    model.compile(LazySGD(rate, max_updates=TRAINING_STEPS))
    model.optimizer.build(model.trainable_variables)
    model.optimizer.iterations.assign(1)
    passed = -(-count // stride) + 2 * window // stride  # windows: a whole sweep lies behind
    begin = passed * order.steps_per_window
    pager = None
    if schedule:
        blocks = BlockStore(order, folder)
        first = schedule.window_of(begin)
        blocks.begin(begin, range(0, 0), [])
        normal = np.random.default_rng(0).normal(size=[stride, d]).astype(np.float32) / 100
        rows = {name: normal for name in TABLES[:2]}
        rows["stamp"] = np.ones(stride, np.int64)
        windows = _TURNS + 4 + (k // b + rounds) // order.steps_per_window
        stops = [schedule.here(first + turn).stop for turn in range(windows)]
        coming = [part for stop in stops for part in schedule.earlier(range(stop, stop + stride))]
        for number in {number for number, *_ in coming}:
            blocks.write(number, rows)
        pager = Pager(model.classifier, [schedule], [blocks], tf.distribute.get_strategy())
        pager.open(begin, blocks.segments)
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
    """Measure a variant; call it in a process of its own."""
    rounds += 3  # the first ones trace, and warm up
    step, pager, window = prepared(sizes, count, store, pathlib.Path(folder), rounds)
    times, turns, turns_cpu = [step() for _ in range(rounds)][3:], [], []
    resident = 0
    if pager:
        for number in range(_TURNS + 1):
            pager._thread.result()  # in training it has had hundreds of steps for that
            begin, cpu = time.perf_counter(), time.process_time()
            pager.turn()
            waited = 1e3 * (time.perf_counter() - begin)
            pager.flush()
            pager._thread.result()
            if number:
                turns.append(waited)
                turns_cpu.append(1e3 * (time.process_time() - cpu))
        resident = resident_bytes()
        pager.close()
    stride = window // 8
    moved = stride * (8 * sizes.embedding_dim + 8) / (window // sizes.batch_size) if pager else 0.0
    return Costs(name, count, window, times, turns, turns_cpu, moved, resident or resident_bytes())


def resident_bytes() -> int:
    """Bytes of memory in use by this process now."""
    return int(pathlib.Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def store() -> None:
    """Measure steps for each N and store; then the disk: cold, warm, in other layouts and ways."""
    values = flags.FLAGS
    sizes = Sizes(values.batch_size, values.embedding_dim, values.num_negatives)
    folder = pathlib.Path(tempfile.mkdtemp(dir=values.store_folder or None))
    kinds = [("disk", int(n)) for n in values.store_instances]
    kinds += [("device", n) for _, n in kinds if n <= values.store_most_in_memory]
    print(
        f"store: B {sizes.batch_size}, D {sizes.embedding_dim}, K {sizes.num_negatives}; "
        f"TensorFlow {tf.__version__}, {os.cpu_count()} CPU cores"
    )
    try:
        merged: dict[tuple, Costs] = {}
        turns = kinds * values.store_turns  # one after the other: a slow minute meets all of them
        for number, (kind, count) in enumerate(tqdm(turns, "variants", unit="variant")):
            here = folder / f"{number}"
            name = f"{kind}, N = {count:,}"
            found = in_own_process(costs, name, sizes, count, kind, values.repeats, str(here))
            shutil.rmtree(here, ignore_errors=True)
            before = merged.get((kind, count))
            if before:
                found = dataclasses.replace(
                    found,
                    step=before.step + found.step,
                    turn=before.turn + found.turn,
                    turn_cpu=before.turn_cpu + found.turn_cpu,
                )
            merged[kind, count] = found
        store_report.print_table(merged, sizes, values.backbone_ms)
        if values.store_output:
            store_report.plot(merged, sizes, values.store_output)
        disk.report(sizes, folder)
    finally:
        shutil.rmtree(folder)


def define_flags() -> None:
    """Define the flags of `store`."""
    flags.DEFINE_list(
        "store_instances",
        "100000,1000000,10000000,100000000,1000000000",
        "Numbers N of training images that store measures with rows on disk.",
    )
    flags.DEFINE_integer(
        "store_most_in_memory", 1_000_000, "Largest N that store also measures on the device."
    )
    flags.DEFINE_integer(
        "store_turns", 3, "Processes of each variant of store, one after the other.", 1
    )
    flags.DEFINE_float(
        "backbone_ms",
        500.0,
        "Milliseconds of a step's backbone, beside which store lets rows move.",
        0.0,
    )
    flags.DEFINE_string(
        "store_folder",
        "",
        "Folder where store puts rows; '' for the system's folder of temporary files.",
    )
    flags.DEFINE_string(
        "store_output", "", "PNG file of time and memory against N that store draws; '' for none."
    )
