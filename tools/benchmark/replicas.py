"""Measure the cost of a PIC step without backbone to a replica, on CPU cores."""

if __name__ == "__main__":
    raise SystemExit("error: expected python tools/benchmark, got a part of it: see its --help")

import dataclasses
import math
import multiprocessing
import os
import time
from multiprocessing.connection import Connection

import numpy as np
import tensorflow as tf
from absl import flags
from tqdm import tqdm

from . import accelerators, step_time
from .processes import fail
from .step import Sizes, pic_step

OVERHEAD = 0.10  # target: what R replicas use together beyond what one uses
WARM_UP_ROUNDS = 2  # rounds that are not counted


@dataclasses.dataclass(frozen=True)
class Steps:
    """Steps of one number of replicas.

    Attributes:
      wall: elapsed milliseconds of each counted step.
      cpu: milliseconds of each counted step on all cores together.
    """

    wall: list[float]
    cpu: list[float]


def replicas() -> None:
    """Measure PIC steps without backbone over R replicas, then print a model of step time."""
    values = flags.FLAGS
    training, accelerator = accelerators.checked_model()
    if not values.model_only:
        counts = checked_counts()
        sizes = Sizes(values.batch_size, values.embedding_dim, values.num_negatives)
        steps = take_turns(counts, sizes, values.replica_instances, values.replica_rounds)
        print_measured(counts, sizes, steps)
        print()
    accelerators.print_model(training, accelerator)


def take_turns(counts: list[int], sizes: Sizes, num_instances: int, rounds: int) -> list[Steps]:
    """Time a step of every number of replicas once a round, the first of a round changing.

    Each has a process of its own, because strategies of different sizes do not work together in
    one. All live at the same time and only one is told to take a step, so that what else the
    machine does disturbs all alike.

    Args:
      counts: the R to compare.
      sizes: B, D and K over all replicas.
      num_instances: N.
      rounds: rounds that count.

    Returns:
      The steps of each of `counts`.
    """
    rounds += WARM_UP_ROUNDS
    total, bar_format = len(counts) * (1 + rounds), "{l_bar}{bar:20}| {elapsed}{postfix}"
    progress = tqdm(total=total, unit="step", bar_format=bar_format)
    context = multiprocessing.get_context("spawn")
    connections, steps = [], [Steps([], []) for _ in counts]
    for count in counts:
        progress.set_postfix_str(f"preparing R = {count}")
        connection, theirs = context.Pipe()
        arguments = (theirs, count, sizes, num_instances, rounds)
        context.Process(target=serve_steps, args=arguments, daemon=True).start()
        theirs.close()  # so that the end of the process is the end of the pipe
        connections.append(connection)
        receive(connection, count)
        progress.update()
    for turn in range(rounds):
        for i in np.roll(np.arange(len(counts)), -turn):
            progress.set_postfix_str(f"R = {counts[i]}")
            connections[i].send("step")
            wall, cpu = receive(connections[i], counts[i])
            if turn >= WARM_UP_ROUNDS:
                steps[i].wall.append(wall)
                steps[i].cpu.append(cpu)
            progress.update()
    for connection in connections:
        connection.close()
    progress.close()
    return steps


def receive(connection: Connection, count: int) -> tuple[float, float]:
    """Receive an answer of the process of R = count; fail after its end."""
    try:
        return connection.recv()
    except (EOFError, ConnectionResetError):
        fail(
            f"expected a process with {count} replicas to live until it is stopped, got its end: "
            "see above, or, if nothing is said there, the system had too little memory: "
            "use smaller --replica_instances"
        )


def serve_steps(
    connection: Connection, count: int, sizes: Sizes, num_instances: int, steps: int
) -> None:
    """Prepare `count` replicas in this process, then take a step whenever one is asked for.

    Args:
      connection: where an empty message says that all is ready, and each step is asked for and
        answered with its (elapsed, CPU) milliseconds; its end ends the process.
      count: R.
      sizes: B, D and K over all replicas.
      num_instances: N.
      steps: number of steps to come.
    """
    # A replica is one core: each operation runs on one, as many at once as there are replicas.
    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(count)
    cpu, *_ = tf.config.list_physical_devices("CPU")
    core = tf.config.LogicalDeviceConfiguration()
    tf.config.set_logical_device_configuration(cpu, [core] * count)
    with tf.distribute.MirroredStrategy([f"CPU:{i}" for i in range(count)]).scope():
        step = pic_step(sizes, num_instances, steps)
    connection.send(None)
    for _ in range(steps):
        connection.recv()
        wall, cpu = time.perf_counter(), time.process_time()
        step().numpy()
        cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
        connection.send((1e3 * wall, 1e3 * cpu))


def print_measured(counts: list[int], sizes: Sizes, measured: list[Steps]) -> None:
    """Print the table of measurements, and whether the cost of a replica falls as 1 / R."""
    values = flags.FLAGS
    rows = sizes.embedding_dim, sizes.num_negatives, values.replica_instances
    training = step_time.Training(0, *rows, 0)
    print(
        f"replicas: B {sizes.batch_size:,}, D {sizes.embedding_dim}, K {sizes.num_negatives:,} "
        f"over all replicas, N {values.replica_instances:,}; TensorFlow {tf.__version__}, "
        f"a replica is one core, cores here: {os.cpu_count()}\n"
    )
    print(
        f"{'R':>4}{'elapsed ms':>12}{'quartiles':>18}{'CPU ms':>10}{'CPU ms / R':>12}"
        f"{'to R = 1':>10}{'rows MiB / R':>14}"
    )
    wall = [float(np.median(steps.wall)) for steps in measured]
    cpu = [float(np.median(steps.cpu)) for steps in measured]
    base = counts.index(1)
    for i, count in enumerate(counts):
        low, high = np.percentile(measured[i].wall, [25, 75])
        each, rows = cpu[i] / count, step_time.row_memory(training, count) / 2**20
        quartiles = f"{low:,.1f} .. {high:,.1f}"
        print(
            f"{count:4}{wall[i]:12,.1f}{quartiles:>18}{cpu[i]:10,.1f}{each:12,.1f}"
            f"{each / cpu[base]:10.3f}{rows:14,.0f}"
        )
    print(f"  (medians of {values.replica_rounds} rounds; CPU ms: of all replicas together)\n")
    for i, count in enumerate(counts):
        if i == base:
            continue
        product = cpu[i] / cpu[base]  # (cpu / R) R / cpu of one
        verdict = "met" if product <= 1 + OVERHEAD else "NOT met"
        cores = f" ({os.cpu_count()} cores for {count} replicas)" if count > os.cpu_count() else ""
        print(
            f"R = {count}: CPU per replica x R / CPU at R = 1: {product:.2f} (1.0 is perfect, "
            f"target <= {1 + OVERHEAD:.1f}): {verdict}; elapsed speed-up "
            f"{wall[base] / wall[i]:.2f} of {count}, by the fastest steps "
            f"{min(measured[base].wall) / min(measured[i].wall):.2f}{cores}"
        )


def checked_counts() -> list[int]:
    """Read the numbers of --replicas; fail for flags out of their range."""
    values = flags.FLAGS
    b, k, n = values.batch_size, values.num_negatives, values.replica_instances
    accelerators.check_positive("batch_size", "embedding_dim", "num_negatives", "replica_rounds")
    try:
        counts = [int(count) for count in values.replicas]
    except ValueError:
        counts = []
    if 1 not in counts or min(counts) < 1:
        fail(
            "expected --replicas to be whole numbers from 1 with commas between, 1 among them, got "
            f"{','.join(values.replicas)!r}: use for example 1,2,4"
        )
    multiple = math.lcm(*counts)
    for name, size in (("batch_size", b), ("num_negatives", k)):
        if size % multiple:
            fail(
                f"expected --{name} to be a multiple of all --replicas "
                f"({','.join(values.replicas)}), got {size}: "
                f"use {-(-size // multiple) * multiple}, or other --replicas"
            )
    if k < b:
        fail(
            f"expected --num_negatives >= --batch_size ({b}), got {k}: "
            "use more negatives or smaller batches"
        )
    if n < k:
        fail(f"expected --replica_instances >= --num_negatives ({k}), got {n}: use fewer negatives")
    return counts


def define_flags() -> None:
    """Define the flags of the measurement of `replicas`."""
    flags.DEFINE_list(
        "replicas",
        "1,2,4",
        "Numbers of replicas R that replicas compares, 1 among them; each replica takes a core.",
    )
    flags.DEFINE_integer(
        "replica_instances",
        1_000_000,
        "Training images N of replicas; each takes about 1 KiB of memory for every R.",
    )
    flags.DEFINE_integer("replica_rounds", 15, "Rounds of replicas, each one step of every R.")
    flags.DEFINE_bool(
        "model_only", False, "Let replicas print the model of step time and measure nothing."
    )
