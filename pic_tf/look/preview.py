"""Preview the input of training: augmented views of some images, and the order of visits.

python -m pic_tf.look.preview --images=FOLDER --augmentation=simclr --output=views.png
python -m pic_tf.look.preview --order_output=order.png --num_instances=4000 --batch_size=40
"""

import os
import pathlib

from absl import flags

import pic_tf.files.quiet  # noqa: F401  (first: TensorFlow then starts quietly)
from pic_tf.data.crops import Crop, parse_crops
from pic_tf.data.order import SlidingWindow, default_stride, default_window, epoch_order
from pic_tf.data.presets import PRESETS, without_colours
from pic_tf.data.sources.layout import SPLIT_FOLDERS
from pic_tf.data.sources.named import open_dataset
from pic_tf.data.sources.pixel_format import PixelFormat
from pic_tf.files import command_line
from pic_tf.look.augmented_views import augmented_views, save_views
from pic_tf.look.figures import shortened
from pic_tf.look.visits import save_order, visits

_MAX_POINTS = 200_000  # that a picture can show
_MAX_PIXELS = 50_000_000  # of a picture of views


def _draw_views(values: flags.FlagValues) -> None:
    preset = PRESETS[values.augmentation]()
    preset = preset if values.channels == 3 else without_colours(preset)
    one = Crop(values.image_size, preset.crop_scale)
    crops = parse_crops(values.crops) if values.crops else (one,)
    pixels = values.count * (1 + values.views) * max(crop.size for crop in crops) ** 2
    if pixels > _MAX_PIXELS:
        raise ValueError(
            f"expected at most {_MAX_PIXELS:,} pixels, got {pixels:,}: "
            "lower --count, --views or the size of views"
        )
    pixels = PixelFormat(values.channels, values.bit_depth)
    source = open_dataset(values.images, split_folders=values.split_folders, pixels=pixels)[0]
    count = min(values.count, len(source))
    picture = augmented_views(source, preset, crops, count, values.views, values.seed)
    ids = epoch_order(len(source), count, values.seed).instance_ids(0).numpy()
    titles = [shortened(os.path.basename(source.path(i))) for i in ids]
    sizes = " and ".join(str(crop.size) for crop in crops)
    title = f"{values.augmentation}: the image, then views of {sizes} pixels"
    save_views(picture, titles, title, pathlib.Path(values.output))
    print(f"{count} images in {values.output}")


def _draw_order(values: flags.FlagValues) -> None:
    n, b = values.num_instances, values.batch_size
    window, stride = default_window(n, b)
    if values.window_size:
        window, stride = values.window_size, default_stride(values.window_size)
    order = SlidingWindow(n, b, window, values.window_stride or stride, values.seed)
    steps = values.epochs * (n // b)
    if steps * b > _MAX_POINTS:
        raise ValueError(
            f"expected at most {_MAX_POINTS:,} visits to draw, "
            f"got {steps * b:,}: lower --num_instances or --epochs"
        )
    name = f"sliding window, W {order.window_size:,}, S {order.window_stride:,}"
    epochs = epoch_order(n, b, values.seed)
    orders = {name: visits(order, steps), "epochs": visits(epochs, steps)}
    save_order(orders, pathlib.Path(values.order_output))
    print(f"{steps:,} steps in {values.order_output}")


def main() -> None:
    values = flags.FLAGS
    if bool(values.output) != bool(values.images) or not (values.output or values.order_output):
        raise ValueError("expected --images and --output, or --order_output, got less: see --help")
    for output in filter(None, (values.output, values.order_output)):
        if not (output.endswith(".png") and pathlib.Path(output).absolute().parent.is_dir()):
            raise ValueError(
                f"expected a PNG file in a folder that is there, got {output!r}: name another one"
            )
    if values.output:
        _draw_views(values)
    if values.order_output:
        _draw_order(values)


def define_flags() -> None:
    flags.DEFINE_string(
        "images", "", "Images to draw views of: a folder, a packed data set, or tfds:NAME."
    )
    flags.DEFINE_enum(
        "split_folders",
        "auto",
        SPLIT_FOLDERS,
        "Folders such as train and val inside of --images: its parts, of which the training part "
        "is drawn (auto), or classes as all others (none).",
    )
    flags.DEFINE_integer(
        "channels", 3, "Channels of the images, 1 to 256.", lower_bound=1, upper_bound=256
    )
    flags.DEFINE_integer(
        "bit_depth", 8, "Bits of a level of the images, 8 or 16.", lower_bound=8, upper_bound=16
    )
    flags.DEFINE_string("output", "", "PNG file to write the views to. The default '' draws none.")
    flags.DEFINE_enum(
        "augmentation", "simclr", list(PRESETS), "Published augmentation of the views."
    )
    flags.DEFINE_string(
        "crops",
        "",
        "Several views of an image in a step, in the form of pic_tf.train. The default '' takes "
        "one view.",
    )
    flags.DEFINE_integer(
        "image_size", 224, "Side of a view in pixels, 1 to 2048.", lower_bound=1, upper_bound=2048
    )
    flags.DEFINE_integer(
        "count", 6, "Number of images to draw, 1 to 100.", lower_bound=1, upper_bound=100
    )
    flags.DEFINE_integer(
        "views",
        8,
        "Views of each image, 1 to 100. The last step is drawn as a whole, so there may be more.",
        lower_bound=1,
        upper_bound=100,
    )
    flags.DEFINE_integer(
        "seed", 0, "Seed of the draw of images, of their views and of the order of visits."
    )
    flags.DEFINE_string(
        "order_output", "", "PNG file to write the order of visits to. The default '' draws none."
    )
    flags.DEFINE_integer(
        "num_instances", 4000, "Number of images N in the order of visits, >= 1.", lower_bound=1
    )
    flags.DEFINE_integer(
        "batch_size", 40, "Images a step, B, in the order of visits, >= 1.", lower_bound=1
    )
    flags.DEFINE_integer(
        "window_size",
        0,
        "Window W of the order in images. The default 0 takes the one of training.",
        lower_bound=0,
    )
    flags.DEFINE_integer(
        "window_stride",
        0,
        "Stride S of the window in images. The default 0 takes the one of training.",
        lower_bound=0,
    )
    flags.DEFINE_integer(
        "epochs", 10, "Length of the order to draw, in epochs, >= 1.", lower_bound=1
    )


if __name__ == "__main__":
    define_flags()
    command_line.run(main)
