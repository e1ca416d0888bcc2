"""Train a toy for many sweeps of the window, with and without the norm floor for its rows.

    python tools/long_run                   # rows shrink at rest as they do among 1e8 images
    python tools/long_run --shrink=0.34     # as in the ImageNet recipe at the peak rate

After `pip install pic_tf`, outside of a clone: python -m pic_tf.tools.long_run

A row that rests keeps `--shrink` of its norm, and its cosine gradient grows as 1 / |w|. The toy
keeps the facts that matter then: the recipe's angle by which a view turns a new row (B and learning
rate in proportion, tau, m) and W / S visits a sweep. The losses of rows in the long rests of many
images are put into few steps by a larger weight decay of the rows alone. An image is a random
vector, a view adds noise to it, the encoder is a small MLP. Each arm trains the same encoder on the
same views in the same order, with another norm floor.
"""

import pathlib
import sys

from absl import flags
from tqdm import tqdm

import pic_tf.files.quiet  # noqa: F401  (first: TensorFlow then starts quietly)
from pic_tf.files import command_line
from pic_tf.settings.config import Config
from pic_tf.settings.defaults import resolve
from pic_tf.settings.quantities import resting_steps

if not __package__:  # started as `python tools/long_run`
    sys.path[0] = str(pathlib.Path(__file__).parents[1])
    __package__ = "long_run"

from . import report
from .toy import Problem, run


def floor_of(text: str) -> float | None:
    """Read a part of --floors; None for 'default'."""
    try:
        floor = None if text == "default" else float(text)
    except ValueError:
        floor = -1.0
    if floor is not None and not 0 <= floor < float("inf"):
        raise ValueError(f"expected --floors to be numbers >= 0 or 'default', got {text!r}")
    return floor


def define_flags() -> None:
    """Define the flags of the toy and of the arms."""
    flags.DEFINE_integer("num_instances", 8192, "Number of images, N.")
    flags.DEFINE_integer("batch_size", 16, "Views a step, B.")
    flags.DEFINE_integer("window_size", 128, "Images in a window, W.")
    flags.DEFINE_integer("window_stride", 16, "Images by which the window moves, S.")
    flags.DEFINE_integer("num_negatives", 64, "Recent images in the soft-max, K.")
    flags.DEFINE_integer("embedding_dim", 32, "Size of an embedding and of a row, D.")
    flags.DEFINE_float("temperature", 0.2, "Temperature of the soft-max, tau.")
    flags.DEFINE_float(
        "learning_rate",
        0.03,
        "Constant learning rate for 256 views a step; it grows in proportion to --batch_size.",
    )
    flags.DEFINE_float("momentum", 0.9, "Momentum of SGD, m.")
    flags.DEFINE_float(
        "noise", 0.8, "Standard deviation of a view about its image, whose own is 1."
    )
    flags.DEFINE_integer("sweeps", 8, "Sweeps of the window over all images.", lower_bound=1)
    flags.DEFINE_float(
        "shrink",
        4e-21,
        "Share of its norm that a row has left after its rest, which --plan_only of a training run "
        "prints: at the paper's settings 0.58 on average and 0.34 at the peak rate for 1.28e6 "
        "images, 4e-21 and 2e-41 for 1e8.",
        lower_bound=5e-324,
        upper_bound=0.999,
    )
    flags.DEFINE_list(
        "floors",
        ["default", "0", "1e-18"],
        "Norm floors to compare: 0 for none, 'default' for that of training, 1e-18 for the "
        "shortest row that float32 can normalise.",
    )
    flags.DEFINE_integer("seed", 0, "Seed of images, views, order and weights.", lower_bound=0)
    flags.DEFINE_string("output", "row_norms.png", "PNG file to draw the norms and accuracies in.")


def main() -> None:
    values, picture = flags.FLAGS, pathlib.Path(flags.FLAGS.output)
    names = (
        "batch_size window_size window_stride num_negatives embedding_dim temperature "
        "learning_rate momentum seed"
    )
    if not picture.parent.is_dir():
        raise ValueError(f"expected a folder to write --output to, got {str(picture.parent)!r}")
    floors = [floor_of(text) for text in values.floors]
    config = Config(**{name: values[name].value for name in names.split()})
    config = resolve(config, values.num_instances)
    problem = Problem(config, values.sweeps, values.shrink, values.noise)
    print(
        f"N {config.num_instances:,}, W {config.window_size}, S {config.window_stride}, "
        f"B {config.batch_size}, K {config.num_negatives}, D {config.embedding_dim}; "
        f"{problem.sweeps} sweeps of {problem.steps_per_sweep:,} steps; "
        f"a rest of {resting_steps(config):,.0f} steps leaves a row {problem.shrink:g} of its norm "
        f"(weight decay {problem.row_decay:.3g})",
        flush=True,
    )
    total = len(floors) * problem.sweeps * problem.steps_per_sweep
    bar_format = "{l_bar}{bar:20}| {elapsed}, {remaining} left{postfix}"
    with tqdm(total=total, unit="step", bar_format=bar_format) as progress:
        arms = dict(run(problem, floor, progress) for floor in floors)
    report.print_table(arms, problem.sweeps)
    report.plot(arms, problem, picture)
    print(report.conclusion(arms, problem))


if __name__ == "__main__":
    define_flags()
    command_line.run(main)
