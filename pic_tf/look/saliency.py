"""Draw the places of an image that a network looks at, and compare two networks.

    python -m pic_tf.look.saliency --model=RUN --dataset=FOLDER
    python -m pic_tf.look.saliency --model=RUN --other=OTHER --dataset=FOLDER
    python -m pic_tf.look.saliency --model=RUN --other=OTHER --predictions=predictions.csv

The saliency of a place is the length of the last feature map there, as a share of the sum over all
places. The first command draws some images with their maps: saliency.png. With another network,
both maps stand beside each image, saliency_least.png has the images on which the two agree least,
saliency_similarity.png counts the images by the similarity of their two maps (and draws the
accuracy, where predictions of one of them are given), and saliency.csv has all numbers.
"""

import functools

import pic_tf.files.quiet  # noqa: F401  (first: TensorFlow then starts quietly)
from pic_tf.files import command_line
from pic_tf.look.saliency_sheets import draw_saliency
from pic_tf.look.settings import SaliencySettings, check_saliency
from pic_tf.settings import flag_files
from pic_tf.settings.help import help_text


def main() -> None:
    settings = flag_files.from_flags(settings=SaliencySettings)
    check_saliency(settings)
    print(draw_saliency(settings))


if __name__ == "__main__":
    flag_files.define_flags(settings=SaliencySettings)
    command_line.run(
        main,
        functools.partial(help_text, SaliencySettings),
        no_memory="lower --image_size or --images",
    )
