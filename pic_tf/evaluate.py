"""Judge an exported backbone by the protocols of the literature.

    python -m pic_tf.evaluate --protocol=knn --model=RUN --dataset=FOLDER
    python -m pic_tf.evaluate --protocol=linear --model=RUN --dataset=FOLDER
    python -m pic_tf.evaluate --protocol=finetune --model=RUN --dataset=FOLDER --label_fraction=0.01
    python -m pic_tf.evaluate --protocol=knn --model=pixels --dataset=FOLDER

It prints a row of a table. In the output folder: the numbers as JSON, a picture of what is taken for what, and the
features, which the next evaluation of the same backbone finds there. An interrupted training goes on with the same
command.
"""

import functools
import sys

import pic_tf.files.quiet  # noqa: F401
from pic_tf.evals import protocols
from pic_tf.evals import settings as evaluation
from pic_tf.evals.report import HEADER
from pic_tf.files import command_line
from pic_tf.settings import flag_files
from pic_tf.settings.help import help_text


def main() -> None:
    found, folder = protocols.run(flag_files.from_flags(settings=evaluation.Settings))
    print(HEADER)
    print(found.line())
    print(f"results in {folder}", file=sys.stderr)


if __name__ == "__main__":
    flag_files.define_flags(settings=evaluation.Settings)
    command_line.run(
        main,
        functools.partial(help_text, evaluation.Settings),
        output="output_dir",
        no_memory="lower --batch_size or --image_size",
    )
