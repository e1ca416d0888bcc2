"""Bring all rows of a run with --instance_store=disk into one checkpoint, of a new run.

    python tools/collect_rows.py --run=RUN --output=NEW
    python -m pic_tf.train --flagfile=NEW/flags.txt --output_dir=NEW --instance_store=disk

The new run goes on where the newest checkpoint of the old one is, with any number of replicas and
any --instance_store. The tables are filled on disk, so memory does not limit their size; the disk
of --output has to hold them twice for a while.
"""

from absl import flags

import pic_tf.files.quiet  # noqa: F401  (first: TensorFlow then starts quietly)
from pic_tf.files import command_line
from pic_tf.runs.collect_rows import collect


def main() -> None:
    values = flags.FLAGS
    path = collect(values.run, values.output, values.rows_dir)
    print(f"all rows in {path}: train with --output_dir={values.output}")


if __name__ == "__main__":
    flags.DEFINE_string(
        "run", None, "Output folder of a run with --instance_store=disk.", required=True
    )
    flags.DEFINE_string("output", None, "Output folder of the new run, to be made.", required=True)
    flags.DEFINE_string(
        "rows_dir",
        "",
        "Folder with the folders of all replicas. The default '' takes the run's own.",
    )
    command_line.run(main)
