"""Draw features of images as points of a plane, coloured by class.

    python -m pic_tf.look.feature_map --model=RUN --dataset=FOLDER --output=map.png
    python -m pic_tf.look.feature_map --model=RUN --dataset=FOLDER --method=pca --images=5000

Held-out images are drawn where there are some, otherwise training images; map.csv beside the
picture has every point.
"""

import functools

import pic_tf.files.quiet  # noqa: F401  (first: TensorFlow then starts quietly)
from pic_tf.files import command_line
from pic_tf.look.feature_points import draw_map
from pic_tf.look.settings import FeatureMapSettings, check_feature_map
from pic_tf.settings import flag_files
from pic_tf.settings.help import help_text


def main() -> None:
    settings = flag_files.from_flags(settings=FeatureMapSettings)
    check_feature_map(settings)
    print(draw_map(settings))


if __name__ == "__main__":
    flag_files.define_flags(settings=FeatureMapSettings)
    command_line.run(
        main,
        functools.partial(help_text, FeatureMapSettings),
        no_memory="lower --image_size or --images",
    )
