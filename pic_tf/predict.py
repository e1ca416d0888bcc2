"""Classify images with a classifier that an evaluation left.

    python -m pic_tf.evaluate --protocol=finetune --model=RUN --dataset=FOLDER
    python -m pic_tf.predict --model=CLASSIFIER --dataset=IMAGES --output=predictions.csv

CLASSIFIER is the folder that the first command names at its end. The CSV file has a row for each
image: its name, the most likely class and the probability of that class.
"""

import functools

import pic_tf.files.quiet  # noqa: F401  (first: TensorFlow then starts quietly)
from pic_tf.evals.predictions import PredictionSettings, predict
from pic_tf.files import command_line
from pic_tf.settings import flag_files
from pic_tf.settings.help import help_text


def main() -> None:
    print(predict(flag_files.from_flags(settings=PredictionSettings)))


if __name__ == "__main__":
    flag_files.define_flags(settings=PredictionSettings)
    command_line.run(main, functools.partial(help_text, PredictionSettings))
