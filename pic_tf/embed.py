"""Write the features of all images into a file.

    python -m pic_tf.embed --model=RUN --dataset=FOLDER --output=features.parquet
    python -m pic_tf.embed --model=RUN --dataset=FOLDER --output=features.npy --views=ten_crop
    python -m pic_tf.embed --model=RUN --dataset=FOLDER --diverse=100 --duplicates=0.95

A Parquet file has a row for each image: id, part (train or held_out), name, label, broken (the
reason, for an image that cannot be decoded) and features, which a broken image has not. An .npy
file has the features alone, with the other columns in NAME.csv, and NaN for a broken image.

The same command goes on after a kill. Once the file is there, it computes nothing anew: the last
command above chooses a subset and finds duplicates by the features in it.
"""

import functools

if __name__ == "pic_tf.embed":
    # An import would put this module in the place of the function of its name.
    raise ImportError("expected `python -m pic_tf.embed` or `pic_tf.embed(...)`, got an import")

import pic_tf.files.quiet  # noqa: F401  (first: TensorFlow then starts quietly)
from pic_tf.feature_files.compute import embed
from pic_tf.feature_files.settings import EmbedSettings
from pic_tf.files import command_line
from pic_tf.settings import flag_files
from pic_tf.settings.help import help_text


def main() -> None:
    print(embed(flag_files.from_flags(settings=EmbedSettings)))


if __name__ == "__main__":
    flag_files.define_flags(settings=EmbedSettings)
    command_line.run(
        main,
        functools.partial(help_text, EmbedSettings),
        no_room="make room, and the same command goes on",
        no_memory="lower --batch_size or --image_size",
    )
