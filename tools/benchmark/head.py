"""Compare a PIC step without backbone with its matrix products and the full soft-max."""

if __name__ == "__main__":
    raise SystemExit("error: expected python tools/benchmark, got a part of it: see its --help")

import dataclasses
import os
import resource
import sys
import time
from collections.abc import Callable

import numpy as np
import tensorflow as tf
from absl import flags
from tqdm import tqdm

from pic_tf import LazySGD, WarmupCosine

from .processes import fail, in_own_process
from .step import TRAINING_STEPS, Sizes, full_softmax_step, pic_step

FLAT = 0.10  # target: spread of a PIC step's time over N, (max - min) / min
PRODUCTS = 1.3  # target: PIC step / its three matrix products
GAIN = 15.0  # target: full soft-max / PIC step
WARM_UP_ROUNDS = 2  # rounds that are not counted


@dataclasses.dataclass(frozen=True)
class Variant:
    """A variant of a step to measure.

    Attributes:
      name: name in the table.
      build: from (sizes, N, number of steps to come), a function that takes one step and returns a
        tensor to wait for.
      num_instances: N.
    """

    name: str
    build: Callable[[Sizes, int, int], Callable[[], tf.Tensor]]
    num_instances: int = 0


@dataclasses.dataclass(frozen=True)
class Timing:
    """Milliseconds of each counted step: elapsed, and of all cores together."""

    wall: list[float]
    cpu: list[float]


def matrix_products(sizes: Sizes, num_instances: int, steps: int) -> Callable[[], tf.Tensor]:
    """Make the products of a PIC step's forward and backward pass; N plays no part."""
    queries = tf.random.stateless_normal([sizes.batch_size, sizes.embedding_dim], [0, 0])
    weights = tf.random.stateless_normal([sizes.num_negatives, sizes.embedding_dim], [0, 1])

    @tf.function
    def products(queries: tf.Tensor, weights: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        logits = tf.matmul(queries, weights, transpose_b=True)  # [B, D] x [D, K]
        of_queries = tf.matmul(logits, weights)  # [B, K] x [K, D]
        of_weights = tf.matmul(logits, queries, transpose_a=True)  # [K, B] x [B, D]
        return of_queries, of_weights

    return lambda: products(queries, weights)[0]


def full_softmax(sizes: Sizes, num_instances: int, steps: int) -> Callable[[], tf.Tensor]:
    """Make the authors' published step: logits of all N rows, automatic gradient, dense update."""
    b, d = sizes.batch_size, sizes.embedding_dim
    embedding = tf.Variable(tf.random.stateless_normal([b, d], [0, 0]))
    weights = tf.Variable(lambda: 0.01 * tf.random.stateless_normal([num_instances, d], [0, 1]))
    optimizer = LazySGD(WarmupCosine(0.03 * b / 256, TRAINING_STEPS, TRAINING_STEPS // 40))
    optimizer.build([embedding, weights])

    @tf.function
    def train_step(ids: tf.Tensor) -> tf.Tensor:
        return full_softmax_step(embedding, weights, optimizer, ids)

    draws = np.random.default_rng(0)
    return lambda: train_step(tf.constant(draws.integers(num_instances, size=b)))


def take_turns(variants: list[Variant], sizes: Sizes, rounds: int) -> list[Timing]:
    """Time every variant once a round, the first of a round changing, after a warm-up."""
    rounds += WARM_UP_ROUNDS
    total, bar_format = len(variants) * (1 + rounds), "{l_bar}{bar:20}| {elapsed}{postfix}"
    progress = tqdm(total=total, unit="step", bar_format=bar_format)
    steps = []
    for variant in variants:
        progress.set_postfix_str(f"preparing {variant.name}")
        steps.append(variant.build(sizes, variant.num_instances, rounds))
        progress.update()
    timings = [Timing([], []) for _ in variants]
    for turn in range(rounds):
        for i in np.roll(np.arange(len(variants)), -turn):
            progress.set_postfix_str(variants[i].name)
            wall, cpu = time.perf_counter(), time.process_time()
            steps[i]().numpy()
            cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
            if turn >= WARM_UP_ROUNDS:
                timings[i].wall.append(1e3 * wall)
                timings[i].cpu.append(1e3 * cpu)
            progress.update()
    progress.close()
    return timings


def peak_memory(variant: Variant | None, sizes: Sizes) -> int:
    """Largest resident bytes of this process after a few steps of a variant, or of none."""
    if variant is not None:
        step = variant.build(sizes, variant.num_instances, WARM_UP_ROUNDS)
        for _ in range(WARM_UP_ROUNDS):
            step()
    unit = 1 if sys.platform == "darwin" else 1024
    return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def head() -> None:
    """Compare PIC steps over N, with their matrix products and with the full soft-max."""
    values = flags.FLAGS
    sizes = Sizes(values.batch_size, values.embedding_dim, values.num_negatives)
    counts, dense = checked_counts(sizes), values.dense_instances
    products = Variant("three matrix products", matrix_products)
    ours = [Variant(f"PIC step, N = {n:,}", pic_step, n) for n in counts]
    same = Variant(f"PIC step, N = {dense:,}", pic_step, dense)
    full = Variant(f"full soft-max, N = {dense:,}", full_softmax, dense)
    groups = [([products, *ours], values.repeats), ([products, same, full], values.dense_repeats)]
    print(
        f"head: B {sizes.batch_size}, D {sizes.embedding_dim}, K {sizes.num_negatives}; TensorFlow "
        f"{tf.__version__}, {os.cpu_count()} CPU cores",
        flush=True,
    )
    timings = [in_own_process(take_turns, variants, sizes, rounds) for variants, rounds in groups]
    variants = dict.fromkeys(variant for group, _ in groups for variant in group)
    bar = tqdm([None, *variants], "memory")
    peaks = {variant: in_own_process(peak_memory, variant, sizes) for variant in bar}

    print(
        f"\n{'variant':30}{'median ms':>10}{'quartiles':>22}{'CPU ms':>9}{'/ products':>12}"
        f"{'peak MiB':>10}"
    )
    for (group, rounds), timing in zip(groups, timings):
        for variant, of_variant in zip(group, timing):
            low, middle, high = np.percentile(of_variant.wall, [25, 50, 75])
            ratio, peak = middle / np.median(timing[0].wall), (peaks[variant] - peaks[None]) / 2**20
            quartiles, cpu = f"{low:,.1f} .. {high:,.1f}", np.median(of_variant.cpu)
            print(
                f"{variant.name:30}{middle:10,.1f}{quartiles:>22}{cpu:9,.1f}{ratio:12.2f}"
                f"{peak:10,.0f}"
            )
        print(f"  ({rounds} rounds)")
    print(
        f"peak MiB is resident memory beyond that of TensorFlow alone ({peaks[None] / 2**20:,.0f})"
    )
    # By elapsed time, which counts, and by CPU time, which other programs disturb less.
    verdicts = []
    for clock in ("wall", "cpu"):
        base, *ours = (np.median(getattr(timing, clock)) for timing in timings[0])
        _, same_n, dense_n = (np.median(getattr(timing, clock)) for timing in timings[1])
        verdicts.append((max(ours) / min(ours) - 1, max(ours) / base, dense_n / same_n))
    flat, ratio, gain = zip(*verdicts)  # each (elapsed, CPU)
    _print_verdict(
        "PIC step, (max - min) / min over N", flat, ".1%", f"<= {FLAT:.0%}", flat[0] <= FLAT
    )
    _print_verdict(
        "PIC step / matrix products", ratio, ".2f", f"<= {PRODUCTS}", ratio[0] <= PRODUCTS
    )
    _print_verdict("full soft-max / PIC step", gain, ".1f", f">= {GAIN:.0f}", gain[0] >= GAIN)


def _print_verdict(
    name: str, values: tuple[float, float], form: str, target: str, met: bool
) -> None:
    """Print a ratio by elapsed time and by CPU time, and whether the target is met."""
    wall, cpu = (format(value, form) for value in values)
    print(f"{name}: {wall}, target {target}: {'met' if met else 'NOT met'} (by CPU time {cpu})")


def checked_counts(sizes: Sizes) -> list[int]:
    """Read the numbers of --instances; fail for flags of `head` out of their range."""
    values = flags.FLAGS
    for name in "batch_size embedding_dim num_negatives repeats dense_repeats".split():
        if values[name].value < 1:
            fail(f"expected --{name} >= 1, got {values[name].value}")
    try:
        counts = [int(count) for count in values.instances]
    except ValueError:
        counts = []
    if not counts:
        fail(
            "expected --instances to be whole numbers with commas between, "
            f"got {','.join(values.instances)!r}"
        )
    if not sizes.batch_size <= sizes.num_negatives:
        fail(
            f"expected --num_negatives >= --batch_size ({sizes.batch_size}), "
            f"got {sizes.num_negatives}"
        )
    named = [("instances", count) for count in counts]
    for name, count in [*named, ("dense_instances", values.dense_instances)]:
        if count < sizes.num_negatives:
            fail(f"expected --{name} >= --num_negatives ({sizes.num_negatives}), got {count}")
    return counts


def define_flags() -> None:
    """Define the flags of `head`, and the sizes in common with `replicas` and `store`."""
    flags.DEFINE_integer("batch_size", 512, "Views a step, B. For head, replicas and store.")
    flags.DEFINE_integer(
        "embedding_dim",
        128,
        "Size of an embedding and of an instance row, D. For head, replicas and store.",
    )
    flags.DEFINE_integer(
        "num_negatives", 65536, "Recent instances in the soft-max, K. For head, replicas and store."
    )
    flags.DEFINE_list(
        "instances",
        "100000,1000000,4000000",
        "Numbers N of training images whose PIC steps head compares; each image takes about 1 KiB "
        "of memory.",
    )
    flags.DEFINE_integer(
        "dense_instances",
        1_280_000,
        "Training images N of the full soft-max in head; each takes about 5 KiB of memory.",
    )
    flags.DEFINE_integer(
        "repeats",
        25,
        "Rounds over the PIC steps, each one step of every variant; of head, and steps of store.",
    )
    flags.DEFINE_integer("dense_repeats", 3, "Rounds of head with the full soft-max.")
