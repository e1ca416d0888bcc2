"""Find images that a run takes for alike, by features or by instance weights.

    python -m pic_tf.look.retrieval --model=RUN --dataset=FOLDER --output=retrieval
    python -m pic_tf.look.retrieval --model=RUN --dataset=FOLDER --queries='cat/*' --count=5
    python -m pic_tf.look.retrieval --model=RUN --instances --count=20

The first two draw held-out images, each with its nearest training images: retrieval.png, with all
numbers in retrieval.csv. A data set without held-out images is searched for its own. The third
needs no features: pairs of training images whose instance weights are nearly the same in
retrieval_duplicates.png and .csv, and images whose weights are far from all others in
retrieval_outliers.png and .csv. Weights tell most where images have come often: at the end of a run
a copy is the nearest of its original, after a few epochs colours are.
"""

import functools

import pic_tf.files.quiet  # noqa: F401  (first: TensorFlow then starts quietly)
from pic_tf.files import command_line
from pic_tf.look.duplicates import find_duplicates_and_outliers
from pic_tf.look.nearest_images import retrieve
from pic_tf.look.settings import RetrievalSettings, check_retrieval
from pic_tf.settings import flag_files
from pic_tf.settings.help import help_text


def main() -> None:
    settings = flag_files.from_flags(settings=RetrievalSettings)
    check_retrieval(settings)
    print(find_duplicates_and_outliers(settings) if settings.instances else retrieve(settings))


if __name__ == "__main__":
    flag_files.define_flags(settings=RetrievalSettings)
    command_line.run(
        main,
        functools.partial(help_text, RetrievalSettings),
        no_room="make room, or name another --output or --cache_dir",
        no_memory="lower --image_size or --count",
    )
