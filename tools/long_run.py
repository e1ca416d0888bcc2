"""Train a toy for many sweeps of the window, with and without the norm floor, and see what becomes of the rows.

    python tools/long_run.py                   # rows shrink at rest as they do among 1e8 images
    python tools/long_run.py --shrink=0.34     # as in the ImageNet recipe at the peak rate

A row that rests keeps `--shrink` of its norm, and its cosine gradient grows as 1 / |w|. The toy keeps what matters
then: the recipe's angle by which a view turns a new row (B and learning rate in proportion, tau, m) and W / S visits
a sweep; what a row loses in the long rests of many images is put into few steps by a larger weight decay of the rows
alone. An image is a random vector, a view adds noise to it, the encoder is a small MLP. Each arm trains the same
encoder on the same views in the same order, with another norm floor.
"""

import itertools
import pathlib
import sys

import numpy as np
from absl import app, flags
from tqdm import tqdm

from pic_tf.files.quiet import import_tensorflow

import_tensorflow()

import matplotlib
import tensorflow as tf
from long_run_toy import Arm, Measurement, Problem

from pic_tf.files.replaced import replaced
from pic_tf.settings.config import Config
from pic_tf.settings.defaults import resolve
from pic_tf.settings.quantities import resting_steps

MEASUREMENTS = 8  # a sweep
COLORS = ["tab:blue", "tab:red", "black", "tab:green", "tab:purple"]


def run(problem: Problem, min_row_norm: float | None, progress: tqdm) -> tuple[str, list[Measurement]]:
    """Train one arm.

    Args:
      problem: what to train on.
      min_row_norm: the floor; None for the default.
      progress: bar to move by a step for each.

    Returns:
      What to call the arm, and measurements, 8 a sweep.
    """
    arm, measurements = Arm(problem, min_row_norm), []
    floor = arm.classifier.min_row_norm
    name = f"floor {floor:.3g}" if floor else "no floor"
    ends = np.linspace(0, problem.sweeps * problem.steps_per_sweep, problem.sweeps * MEASUREMENTS + 1).astype(np.int64)
    for first, end in itertools.pairwise(ends):
        measurements.append(arm.measure(int(end), *arm.train(tf.constant(first), tf.constant(end - first))))
        progress.set_postfix_str(f"{name}, loss {measurements[-1].loss:.3f}", refresh=False)
        progress.update(int(end - first))
    return name, measurements


def in_sweep(measurements: list[Measurement], sweep: int) -> Measurement:
    """All measurements of a sweep (0, 1, ...) as one: means, but the sum of `floored` and the norms of all."""
    part = measurements[sweep * MEASUREMENTS : (sweep + 1) * MEASUREMENTS]
    means = {name: float(np.mean([getattr(m, name) for m in part])) for name in ("own_row", "own_image", "loss")}
    norms, floored = np.concatenate([m.norms for m in part]), sum(m.floored for m in part)
    return Measurement(part[-1].step, norms, floored=floored, broken=max(m.broken for m in part), **means)


def print_table(arms: dict[str, list[Measurement]], sweeps: int) -> None:
    """Every arm after every sweep."""
    print(
        f"{'sweep':>5} {'arm':16}{'median norm':>12}{'99th perc.':>11}{'own row':>9}{'own image':>11}{'loss':>7}"
        f"{'floored':>9}{'not finite':>12}"
    )
    for sweep in range(sweeps):
        for i, (name, measurements) in enumerate(arms.items()):
            m = in_sweep(measurements, sweep)
            median, high = np.percentile(m.norms, [50, 99])
            print(
                f"{'' if i else sweep + 1:>5} {name:16}{median:12.3g}{high:11.3g}{m.own_row:9.3f}{m.own_image:11.3f}"
                f"{m.loss:7.3f}{m.floored:9,}{m.broken:12,}"
            )


def conclusion(arms: dict[str, list[Measurement]], problem: Problem) -> str:
    """The last sweep in one line."""
    parts = []
    for name, measurements in arms.items():
        m = in_sweep(measurements, problem.sweeps - 1)
        parts.append(
            f"with {name} {m.own_row:.1%} find their own row and {m.own_image:.1%} their own image, 99 % of norms are "
            f"below {np.percentile(m.norms, 99):.3g}"
        )
    broken = max(m.broken for measurements in arms.values() for m in measurements)
    return (
        f"conclusion: of views among {problem.config.num_instances:,}, in sweep {problem.sweeps}, "
        f"{'; '.join(parts)}; {'no' if not broken else f'{broken:,}'} rows are NaN or infinite"
    )


def plot(arms: dict[str, list[Measurement]], problem: Problem, picture: pathlib.Path) -> None:
    """Norms of the rows in the ring, and accuracies, against the step.

    Args:
      arms: name -> measurements.
      problem: what they were trained on.
      picture: PNG file to write.
    """
    matplotlib.use("Agg")  # no screen needed
    import matplotlib.pyplot as plt

    figure, (norms, accuracy) = plt.subplots(1, 2, figsize=(10, 3.8), layout="constrained")
    for i, (name, measurements) in enumerate(arms.items()):
        # The third arm and those after it are drawn thinly over what they may coincide with.
        look = {"color": COLORS[i % len(COLORS)], "linewidth": 1.5 if i < 2 else 0.8}
        steps = [m.step for m in measurements]
        low, median, high = np.transpose([np.percentile(m.norms, [1, 50, 99]) for m in measurements])
        norms.plot(steps, median, label=name, **look)
        norms.fill_between(steps, low, high, color=look["color"], alpha=0.2, linewidth=0)
        accuracy.plot(steps, [m.own_row for m in measurements], label=f"{name}: own row", **look)
        accuracy.plot(steps, [m.own_image for m in measurements], linestyle=":", label=f"{name}: own image", **look)
    norms.set_yscale("log")
    norms.set_title("norms of rows in use: median, 1st to 99th percentile")
    accuracy.set_ylim(0, 1)
    accuracy.set_title(f"views that find their own among {problem.config.num_instances:,}")
    for axis in (norms, accuracy):
        axis.set_xlabel(f"step (a sweep takes {problem.steps_per_sweep:,})")
        axis.grid(alpha=0.3)
    norms.margins(y=0.15)  # room for the legend below the curves
    norms.legend(fontsize="small", loc="lower center", ncols=3)
    accuracy.legend(fontsize="small", loc="center right")
    with replaced(picture, "wb") as file:
        figure.savefig(file, format="png", dpi=110)
    plt.close(figure)


def floor_of(text: str) -> float | None:
    """A part of --floors; None for 'default'."""
    try:
        floor = None if text == "default" else float(text)
    except ValueError:
        floor = -1.0
    if floor is not None and not 0 <= floor < float("inf"):
        raise ValueError(f"expected --floors to be numbers >= 0 or 'default', got {text!r}")
    return floor


def define_flags() -> None:
    flags.DEFINE_integer("num_instances", 8192, "images, N")
    flags.DEFINE_integer("batch_size", 16, "views a step, B")
    flags.DEFINE_integer("window_size", 128, "images in a window, W")
    flags.DEFINE_integer("window_stride", 16, "images by which the window moves, S")
    flags.DEFINE_integer("num_negatives", 64, "recent images in the soft-max, K")
    flags.DEFINE_integer("embedding_dim", 32, "size of an embedding and of a row, D")
    flags.DEFINE_float("temperature", 0.2, "of the soft-max, tau")
    flags.DEFINE_float("learning_rate", 0.03, "for 256 views a step, in proportion to --batch_size; constant")
    flags.DEFINE_float("momentum", 0.9, "m")
    flags.DEFINE_float("noise", 0.8, "standard deviation of a view about its image, whose own is 1")
    flags.DEFINE_integer("sweeps", 8, "of the window over all images", lower_bound=1)
    flags.DEFINE_float(
        "shrink",
        4e-21,
        "share of its norm that a row has left after its rest; --plan_only of a training run tells it. At the paper's "
        "settings 0.58 on average and 0.34 at the peak rate for 1.28e6 images, 4e-21 and 2e-41 for 1e8",
        lower_bound=5e-324,
        upper_bound=0.999,
    )
    flags.DEFINE_list(
        "floors",
        ["default", "0", "1e-18"],
        "norm floors to compare; 0 for none, 'default' for that of training, 1e-18 for the shortest row that float32 "
        "can normalise",
    )
    flags.DEFINE_integer("seed", 0, "of everything", lower_bound=0)
    flags.DEFINE_string("output", "row_norms.png", "picture to write")


def main(_) -> None:
    values, picture = flags.FLAGS, pathlib.Path(flags.FLAGS.output)
    names = "batch_size window_size window_stride num_negatives embedding_dim temperature learning_rate momentum seed"
    try:
        if not picture.parent.is_dir():
            raise ValueError(f"expected a folder to write --output to, got {str(picture.parent)!r}")
        floors = [floor_of(text) for text in values.floors]
        config = resolve(Config(**{name: values[name].value for name in names.split()}), values.num_instances)
        problem = Problem(config, values.sweeps, values.shrink, values.noise)
        print(
            f"N {config.num_instances:,}, W {config.window_size}, S {config.window_stride}, B {config.batch_size}, "
            f"K {config.num_negatives}, D {config.embedding_dim}; {problem.sweeps} sweeps of "
            f"{problem.steps_per_sweep:,} steps; a rest of {resting_steps(config):,.0f} steps leaves a row "
            f"{problem.shrink:g} of its norm (weight decay {problem.row_decay:.3g})",
            flush=True,
        )
    except ValueError as error:
        sys.exit(f"error: {error}")
    total = len(floors) * problem.sweeps * problem.steps_per_sweep
    with tqdm(total=total, unit="step", bar_format="{l_bar}{bar:20}| {elapsed}, {remaining} left{postfix}") as progress:
        arms = dict(run(problem, floor, progress) for floor in floors)
    print_table(arms, problem.sweeps)
    plot(arms, problem, picture)
    print(conclusion(arms, problem))


if __name__ == "__main__":
    define_flags()
    app.run(main)
