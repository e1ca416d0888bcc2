"""Export the backbone of a run as a SavedModel, to serve or to fine-tune with TF Hub.

python -m pic_tf.export --run=runs/pic --output=backbone
"""

from absl import flags

import pic_tf.files.quiet  # noqa: F401  (first: TensorFlow then starts quietly)
from pic_tf.files import command_line
from pic_tf.serving import of_run


def main() -> None:
    output = flags.FLAGS.output
    step = of_run.export_run(flags.FLAGS.run, output, flags.FLAGS.untrained)
    state = f"after {step:,} steps" if step else "at its random initialisation"
    print(f"backbone {state} written to {output}")


if __name__ == "__main__":
    flags.DEFINE_string("run", None, "Output folder of the training run.", required=True)
    flags.DEFINE_string(
        "output",
        None,
        "Folder to write the SavedModel to. An older export in its place is replaced.",
        required=True,
    )
    flags.DEFINE_bool(
        "untrained",
        False,
        "Export the network as it was at random initialisation, a baseline of evaluations.",
    )
    command_line.run(main)
