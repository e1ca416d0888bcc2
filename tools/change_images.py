"""Add images to a run, or take some away: a new run that goes on where the old one was.

    cp -al OLD NEW                                       # links, so it takes no space; then add and remove in NEW
    python tools/change_images.py --run=RUN --dataset=NEW --output=NEW_RUN
    python -m pic_tf.train --flagfile=NEW_RUN/flags.txt

An image is known by its name, the path below the folder: its row goes with it, whatever its number is now. New ones
begin with untouched rows; rows whose image is gone retire, also from among the negatives. Network, momentum, step and
the history of learning rates stay, and rows are caught up with exactly as before; the order of visits is that of the
new number of images. --epochs count the new images, also those that lie behind the run.
"""

import pathlib
import sys

from absl import app, flags, logging

if __name__ == "__main__":
    from pic_tf.files.quiet import import_tensorflow

    import_tensorflow()

from pic_tf.files.command_line import only_flags
from pic_tf.runs import run_folder
from pic_tf.runs.change_images import change
from pic_tf.settings import quantities


def main(arguments: list[str]) -> None:
    logging.set_verbosity(logging.ERROR)  # TensorFlow reports its own doings through absl
    values = flags.FLAGS
    try:
        only_flags(arguments)
        changed = change(values.run, values.dataset, values.output, values.old_dataset, values.epochs)
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")
    per_epoch, config = quantities.steps_per_epoch(changed.config), changed.config
    print(
        f"{config.num_instances:,} images: {changed.kept:,} keep their rows, {changed.added:,} are new; "
        f"{changed.retired:,} have retired\n"
        f"step {changed.step:,} of {quantities.total_steps(config):,}, epoch {changed.step / per_epoch:.1f} of "
        f"{config.epochs}: train with --flagfile={pathlib.Path(values.output) / run_folder.FLAGS_FILE}"
    )


if __name__ == "__main__":
    flags.DEFINE_string("run", None, "output folder of the run", required=True)
    flags.DEFINE_string("dataset", None, "the new images: a folder, or a packed data set", required=True)
    flags.DEFINE_string("output", None, "output folder of the new run, to be made", required=True)
    flags.DEFINE_string("old_dataset", "", "where the old images are now, of a folder at least files with their "
                        "names; '' for where they were")  # fmt: skip
    flags.DEFINE_integer("epochs", 0, "of the new run, counted in new images from its very beginning; 0 for as many "
                         "as the old one has", lower_bound=0)  # fmt: skip
    app.run(main)
