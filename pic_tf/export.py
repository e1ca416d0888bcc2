"""Hand the backbone on: a SavedModel that serves, and that TF Hub fine-tunes.

python -m pic_tf.export --run=runs/pic --output=backbone
"""

from absl import flags

import pic_tf.files.quiet  # noqa: F401
from pic_tf.files import command_line
from pic_tf.serving import of_run


def main() -> None:
    output = flags.FLAGS.output
    step = of_run.export_run(flags.FLAGS.run, output, flags.FLAGS.untrained)
    print(f"backbone {f'after {step:,} steps' if step else 'at its random initialisation'} written to {output}")


if __name__ == "__main__":
    flags.DEFINE_string("run", None, "output folder of a training run", required=True)
    flags.DEFINE_string("output", None, "folder to write the SavedModel to; replaced if it is there", required=True)
    flags.DEFINE_bool(
        "untrained", False, "export the network as it was at random initialisation, a baseline for evaluations"
    )
    command_line.run(main)
