"""Bring all rows of a run with --instance_store=disk into one checkpoint, of a new run.

    python tools/collect_rows.py --run=RUN --output=NEW
    python -m pic_tf.train --flagfile=NEW/flags.txt --output_dir=NEW --instance_store=disk

The new run goes on where the newest checkpoint of the old one is, with any number of replicas and any
--instance_store. The tables are filled on disk, so memory does not limit their size; the disk of --output has to hold
them twice for a while.
"""

import sys

from absl import app, flags, logging

if __name__ == "__main__":
    from pic_tf.files.quiet import import_tensorflow

    import_tensorflow()

from pic_tf.files.command_line import only_flags
from pic_tf.runs.collect_rows import collect


def main(arguments: list[str]) -> None:
    logging.set_verbosity(logging.ERROR)  # TensorFlow reports its own doings through absl
    values = flags.FLAGS
    try:
        only_flags(arguments)
        path = collect(values.run, values.output, values.rows_dir)
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")
    print(f"all rows in {path}: train with --output_dir={values.output}")


if __name__ == "__main__":
    flags.DEFINE_string("run", None, "output folder of a run with --instance_store=disk", required=True)
    flags.DEFINE_string("output", None, "output folder of the new run, to be made", required=True)
    flags.DEFINE_string("rows_dir", "", "folder with the folders of all replicas; '' for the run's own")
    app.run(main)
