"""Add images to a run, or take some away: a new run that goes on where the old one was.

    cp -al OLD NEW  # links, so it takes no space; then add and remove in NEW
    python tools/change_images.py --run=RUN --dataset=NEW --output=NEW_RUN
    python -m pic_tf.train --flagfile=NEW_RUN/flags.txt

An image is known by its name, the path below the folder: its row goes with it, whatever its number
is now. New ones begin with untouched rows; rows whose image is gone retire, also from among the
negatives. Network, momentum, step and the history of learning rates stay, and rows are caught up
with exactly as before; the order of visits is that of the new number of images. --epochs count the
new images, also those that lie behind the run.
"""

import pathlib

from absl import flags

import pic_tf.files.quiet  # noqa: F401  (first: TensorFlow then starts quietly)
from pic_tf.files import command_line
from pic_tf.runs import run_folder
from pic_tf.runs.change_images import change
from pic_tf.settings import quantities


def main() -> None:
    values = flags.FLAGS
    changed = change(values.run, values.dataset, values.output, values.old_dataset, values.epochs)
    config = changed.config
    epoch = changed.step / quantities.steps_per_epoch(config)
    flagfile = pathlib.Path(values.output) / run_folder.FLAGS_FILE
    print(
        f"{config.num_instances:,} images: {changed.kept:,} keep their rows, "
        f"{changed.added:,} are new; {changed.retired:,} have retired\n"
        f"step {changed.step:,} of {quantities.total_steps(config):,}, epoch {epoch:.1f} of "
        f"{config.epochs}: train with --flagfile={flagfile}"
    )


if __name__ == "__main__":
    flags.DEFINE_string("run", None, "Output folder of the run.", required=True)
    flags.DEFINE_string(
        "dataset", None, "The new images: a folder, or a packed data set.", required=True
    )
    flags.DEFINE_string("output", None, "Output folder of the new run, to be made.", required=True)
    flags.DEFINE_string(
        "old_dataset",
        "",
        "Place of the old images; of a folder, files with their names will do. The default '' "
        "takes the place that the run knows.",
    )
    flags.DEFINE_integer(
        "epochs",
        0,
        "Epochs of the new run, >= 0, counted in new images from its very beginning. The default 0 "
        "takes those of the old run.",
        lower_bound=0,
    )
    command_line.run(main)
