"""Judge an exported backbone by the protocols of the literature.

    python -m pic_tf.evaluate --protocol=knn --model=RUN --dataset=FOLDER
    python -m pic_tf.evaluate --protocol=linear --model=RUN --dataset=FOLDER
    python -m pic_tf.evaluate --protocol=finetune --model=RUN --dataset=FOLDER --label_fraction=0.01
    python -m pic_tf.evaluate --protocol=knn --model=pixels --dataset=FOLDER
    python -m pic_tf.evaluate --flagfile=configs/voc_detection.flags --model=RUN

It prints a row of a table. The output folder holds the numbers as JSON, a picture of the confusions
between classes, and the features, which the next evaluation of the same backbone takes from there.
The same command again goes on with an interrupted training.
"""

import functools
import sys

if __name__ == "pic_tf.evaluate":
    # An import would put this module in the place of the function of its name.
    raise ImportError(
        "expected `python -m pic_tf.evaluate` or `pic_tf.evaluate(...)`, got an import"
    )

import pic_tf.files.quiet  # noqa: F401  (first: TensorFlow then starts quietly)
from pic_tf.evals import protocols
from pic_tf.evals.settings import EvaluationSettings
from pic_tf.files import command_line
from pic_tf.settings import flag_files
from pic_tf.settings.help import help_text


def main() -> None:
    report, folder = protocols.run(flag_files.from_flags(settings=EvaluationSettings))
    print(report.table())
    print(f"results in {folder}", file=sys.stderr)


if __name__ == "__main__":
    flag_files.define_flags(settings=EvaluationSettings)
    command_line.run(
        main,
        functools.partial(help_text, EvaluationSettings),
        output="output_dir",
        no_memory="lower --batch_size or --image_size",
    )
