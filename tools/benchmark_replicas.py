"""What a PIC step without its backbone costs a replica, measured on CPU cores; step time on 8 to 1024 accelerators."""

import dataclasses
import math
import multiprocessing
import os
import time
from multiprocessing.connection import Connection

import numpy as np
import step_time
import tensorflow as tf
from absl import flags
from benchmark_step import Sizes, fail, pic_step
from tqdm import tqdm

OVERHEAD = 0.10  # target: what R replicas use together beyond what one uses
WARM_UP_ROUNDS = 2  # rounds that are not counted
ACCELERATORS = [8, 16, 32, 64, 128, 256, 512, 1024]  # R in the model


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
    """A PIC step without backbone over R replicas, then a model of step time over many accelerators."""
    values = flags.FLAGS
    training, accelerator = checked_model()
    if not values.model_only:
        counts = checked_counts()
        sizes = Sizes(values.batch_size, values.embedding_dim, values.num_negatives)
        print_measured(counts, sizes, take_turns(counts, sizes, values.replica_instances, values.replica_rounds))
        print()
    print_model(training, accelerator)


def take_turns(counts: list[int], sizes: Sizes, num_instances: int, rounds: int) -> list[Steps]:
    """Time a step of every number of replicas once a round, the first of a round changing.

    Each has a process of its own, because strategies of different sizes do not work together in one. All live
    at the same time and only one is told to take a step, so that what else the machine does disturbs all alike.

    Args:
      counts: the R to compare.
      sizes: B, D and K over all replicas.
      num_instances: N.
      rounds: rounds that count.

    Returns:
      What was measured for each of `counts`.
    """
    rounds += WARM_UP_ROUNDS
    progress = tqdm(total=len(counts) * (1 + rounds), unit="step", bar_format="{l_bar}{bar:20}| {elapsed}{postfix}")
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
    """What the process of R = count sends; fails where it has ended."""
    try:
        return connection.recv()
    except (EOFError, ConnectionResetError):
        fail(
            f"expected a process with {count} replicas to live until it is stopped, got its end: see above, or, if "
            "nothing is said there, the system had too little memory: use smaller --replica_instances"
        )


def serve_steps(connection: Connection, count: int, sizes: Sizes, num_instances: int, steps: int) -> None:
    """Prepare `count` replicas in this process, then take a step whenever one is asked for.

    Args:
      connection: where an empty message says that all is ready, and each step is asked for and answered with its
        (elapsed, CPU) milliseconds; its end ends the process.
      count: R.
      sizes: B, D and K over all replicas.
      num_instances: N.
      steps: how many will be asked for.
    """
    # A replica is one core: each operation runs on one, and as many operations at once as there are replicas.
    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(count)
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * count)
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
    """The table of what was measured, and whether the cost of a replica falls as 1 / R."""
    values = flags.FLAGS
    training = step_time.Training(0, sizes.embedding_dim, sizes.num_negatives, values.replica_instances, 0)
    print(
        f"replicas: B {sizes.batch_size:,}, D {sizes.embedding_dim}, K {sizes.num_negatives:,} over all replicas, "
        f"N {values.replica_instances:,}; TensorFlow {tf.__version__}, a replica is one core, cores here: "
        f"{os.cpu_count()}\n"
    )
    print(
        f"{'R':>4}{'elapsed ms':>12}{'quartiles':>18}{'CPU ms':>10}{'CPU ms / R':>12}{'to R = 1':>10}"
        f"{'rows MiB / R':>14}"
    )
    wall, cpu = ([float(np.median(getattr(steps, clock))) for steps in measured] for clock in ("wall", "cpu"))
    base = counts.index(1)
    for i, count in enumerate(counts):
        low, high = np.percentile(measured[i].wall, [25, 75])
        each, rows = cpu[i] / count, step_time.row_memory(training, count) / 2**20
        quartiles = f"{low:,.1f} .. {high:,.1f}"
        print(
            f"{count:4}{wall[i]:12,.1f}{quartiles:>18}{cpu[i]:10,.1f}{each:12,.1f}{each / cpu[base]:10.3f}{rows:14,.0f}"
        )
    print(f"  (medians of {values.replica_rounds} rounds; CPU ms: of all replicas together)\n")
    for i, count in enumerate(counts):
        if i == base:
            continue
        product = cpu[i] / cpu[base]  # (cpu / R) R / cpu of one
        verdict = "met" if product <= 1 + OVERHEAD else "NOT met"
        cores = f" ({os.cpu_count()} cores for {count} replicas)" if count > os.cpu_count() else ""
        print(
            f"R = {count}: CPU per replica x R / CPU at R = 1: {product:.2f} (1.0 is perfect, target <= "
            f"{1 + OVERHEAD:.1f}): {verdict}; elapsed speed-up {wall[base] / wall[i]:.2f} of {count}, by the "
            f"fastest steps {min(measured[base].wall) / min(measured[i].wall):.2f}{cores}"
        )


def print_model(training: step_time.Training, accelerator: step_time.Accelerator) -> None:
    """The assumptions, and a line for each number of accelerators."""
    b, d, k, n = training.per_replica_batch, training.embedding_dim, training.num_negatives, training.num_instances
    each = accelerator
    print(
        "model of step time on R accelerators, nothing measured:\n"
        f"  each: {each.views_per_second:,.6g} images/s through the backbone, {each.teraflops:,.6g} TFLOP/s in the "
        "soft-max's products,\n"
        f"  {each.link_gigabytes:,.6g} GB/s of bus bandwidth and {each.link_latency_us:,.6g} us a hop; "
        "an all_gather moves (R - 1) / R of its result\n"
        "  in ceil(log2 R) hops, an all_reduce twice as much in twice as many; PIC's step has "
        f"{step_time.ALL_GATHERS} and {step_time.ALL_REDUCES} of them\n"
        f"  {b:,} views on each, B = {b:,} R; D {d}, K {k:,} and N {n:,} over all; {training.parameters:,} parameters\n"
        "  with gradients in float32\n"
        "  no communication at the same time as computation (pessimistic); the input keeps up; left out: moves of\n"
        "  rows between ring and store, and passes over the B x K / R logits beside their products\n"
        "  efficiency: against R accelerators that train alone; PIC: its products and communication, all that a plain\n"
        "  data-parallel step of the backbone does not have"
    )
    fits = [count for count in ACCELERATORS if count * b <= k and k % count == 0]
    if fits:
        print(
            f"\n{'R':>5}{'B':>9}{'backbone':>10}{'products':>10}{'PIC comm':>10}{'gradients':>11}{'step ms':>9}"
            f"{'images/s':>12}{'efficiency':>12}{'PIC':>7}{'PIC MB':>9}{'rows MB':>9}"
        )
    for count in fits:
        time_ms = step_time.step_time(training, accelerator, count)
        moved = step_time.pic_bytes(count * b, training.embedding_dim, count) / 1e6
        print(
            f"{count:5}{count * b:9,}{time_ms.backbone:10.2f}{time_ms.products:10.2f}{time_ms.collectives:10.2f}"
            f"{time_ms.gradients:11.2f}{time_ms.total:9.2f}"
            f"{step_time.images_per_second(training, accelerator, count):12,.0f}"
            f"{step_time.efficiency(training, accelerator, count):12.1%}{time_ms.pic_share:7.1%}{moved:9.1f}"
            f"{step_time.row_memory(training, count) / 1e6:9,.1f}"
        )
    if fits != ACCELERATORS:
        print(f"  other R: K must be a multiple of R and at least B = {b} R")


def checked_counts() -> list[int]:
    """The numbers of --replicas; fails where a flag of the measurement is out of its range."""
    values = flags.FLAGS
    b, k, n = values.batch_size, values.num_negatives, values.replica_instances
    check_positive("batch_size", "embedding_dim", "num_negatives", "replica_rounds")
    try:
        counts = [int(count) for count in values.replicas]
    except ValueError:
        counts = []
    if 1 not in counts or min(counts) < 1:
        fail(
            f"expected --replicas to be whole numbers from 1 with commas between, 1 among them, got "
            f"{','.join(values.replicas)!r}: use for example 1,2,4"
        )
    multiple = math.lcm(*counts)
    for name, size in (("batch_size", b), ("num_negatives", k)):
        if size % multiple:
            fail(
                f"expected --{name} to be a multiple of all --replicas ({','.join(values.replicas)}), got {size}: use "
                f"{-(-size // multiple) * multiple}, or other --replicas"
            )
    if k < b:
        fail(f"expected --num_negatives >= --batch_size ({b}), got {k}: use more negatives or smaller batches")
    if n < k:
        fail(f"expected --replica_instances >= --num_negatives ({k}), got {n}: use fewer negatives")
    return counts


def checked_model() -> tuple[step_time.Training, step_time.Accelerator]:
    """The model's inputs from the flags; fails where one is out of its range."""
    values = flags.FLAGS
    check_positive("embedding_dim", "num_negatives", "views_per_second", "teraflops", "link_gigabytes")
    check_positive("per_replica_batch", "parameters")
    if values.link_latency_us < 0:
        fail(f"expected --link_latency_us >= 0, got {values.link_latency_us:g}: use 0 for none")
    if values.model_instances < values.num_negatives:
        fail(
            f"expected --model_instances >= --num_negatives ({values.num_negatives}), got {values.model_instances}: "
            "use fewer negatives"
        )
    training = step_time.Training(
        values.per_replica_batch, values.embedding_dim, values.num_negatives, values.model_instances, values.parameters
    )
    links = values.link_gigabytes, values.link_latency_us
    return training, step_time.Accelerator(values.views_per_second, values.teraflops, *links)


def check_positive(*names: str) -> None:
    """Fails for a flag that is not a number above 0."""
    for name in names:
        value = flags.FLAGS[name].value
        if not value > 0:
            fail(f"expected --{name} > 0, got {value:g}: use a positive number")


def define_flags() -> None:
    flags.DEFINE_list("replicas", "1,2,4", "replicas: numbers of replicas R compared, 1 among them; a core each")
    flags.DEFINE_integer(
        "replica_instances", 1_000_000, "replicas: training images N; about 1 KiB of memory each for every R"
    )
    flags.DEFINE_integer("replica_rounds", 15, "replicas: rounds, each one step of every R")
    flags.DEFINE_bool("model_only", False, "replicas: print the model of step time, measure nothing")
    flags.DEFINE_float("views_per_second", 2500.0, "model: images/s of backbone and head, both passes, one accelerator")
    flags.DEFINE_float("teraflops", 50.0, "model: TFLOP/s achieved in the soft-max's products on one accelerator")
    flags.DEFINE_float(
        "link_gigabytes", 100.0, "model: GB/s of all-reduce bus bandwidth per accelerator; e.g. 25 between machines"
    )
    flags.DEFINE_float("link_latency_us", 20.0, "model: microseconds a hop of a collective")
    flags.DEFINE_integer("per_replica_batch", 64, "model: views a step on each accelerator, B / R")
    # ResNet-50 and the head 2048 -> 2048 -> 128.
    flags.DEFINE_integer("parameters", 23_508_032 + 4_458_624, "model: trainable parameters of backbone and head")
    flags.DEFINE_integer("model_instances", 1_281_167, "model: training images N, for the memory of rows")
