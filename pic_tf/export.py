"""Hand the backbone on: a SavedModel that serves, and that TF Hub fine-tunes.

python -m pic_tf.export --run=runs/pic --output=backbone
"""

import sys

from absl import app, flags, logging

if __name__ == "__main__":
    from pic_tf.files.quiet import import_tensorflow

    import_tensorflow()


def main(_) -> None:
    logging.set_verbosity(logging.ERROR)  # TensorFlow reports its own doings through absl
    from pic_tf.serving import of_run

    output, untrained = flags.FLAGS.output, flags.FLAGS.untrained
    try:
        step = of_run.export_run(flags.FLAGS.run, output, untrained)
    except ValueError as error:
        sys.exit(f"error: {error}")
    print(f"backbone {f'after {step:,} steps' if step else 'at its random initialisation'} written to {output}")


if __name__ == "__main__":
    flags.DEFINE_string("run", None, "output folder of a training run", required=True)
    flags.DEFINE_string("output", None, "folder to write the SavedModel to; replaced if it is there", required=True)
    flags.DEFINE_bool(
        "untrained", False, "export the network as it was at random initialisation, a baseline for evaluations"
    )
    app.run(main)
