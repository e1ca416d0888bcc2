"""Look at what training will see: augmented views of some images, and the order in which images are visited.

python -m pic_tf.look.preview --images=FOLDER --augmentation=simclr --output=views.png
python -m pic_tf.look.preview --order_output=order.png --num_instances=4000 --batch_size=40
"""

import dataclasses
import os
import pathlib
import warnings

import numpy as np
from absl import flags

import pic_tf.files.quiet  # noqa: F401
from pic_tf.data.augment import MEAN, STDDEV
from pic_tf.data.crops import Crop, parse_crops
from pic_tf.data.order import SlidingWindow, default_stride, default_window, epoch_order
from pic_tf.data.pipeline import evaluation_batches, pretraining_batches
from pic_tf.data.presets import PRESETS, Preset, augmentation_of
from pic_tf.data.sources.named import open_source
from pic_tf.data.sources.source import Source
from pic_tf.files import command_line
from pic_tf.files.replaced import replaced

_GAP = 4  # pixels between two views
_MOST_POINTS = 200_000  # that a picture can show
_MOST_PIXELS = 50_000_000  # of a sheet
_DPI, _LEFT, _TOP = 130, 300, 40  # of the picture; room for titles in pixels
_LEAST_ROW = 40  # pixels a row, for its title


def sheet(source: Source, preset: Preset, crops: tuple[Crop, ...], count: int, views: int, seed: int) -> np.ndarray:
    """Images and their views as training makes them, a row an image: the middle of the image, then the views.

    Args:
      source: the images; `count` of them are drawn by `seed`.
      preset: how views are augmented.
      crops: what a step takes of each image.
      count: rows.
      views: columns, at least; whole steps are shown.
      seed: of the draw, the crops and the augmentation.

    Returns:
      float32 [H, W, 3] in [0, 1]; smaller views have narrower columns.
    """
    augmentation, side = augmentation_of(preset), max(crop.size for crop in crops)
    order = epoch_order(len(source), count, seed)
    _, ids, _ = next(iter(pretraining_batches(source, order, crops=crops, seed=seed, start_step=0, stop_step=1)))
    once = SameImages(order)
    columns = [next(iter(evaluation_batches(source, ids, image_size=side, crop_fraction=1.0))).numpy() / 255]
    steps = -(-views // sum(crop.count for crop in crops))
    for groups, _, _ in pretraining_batches(source, once, crops=crops, seed=seed, start_step=0, stop_step=steps):
        for (images, random), crop in zip(groups, crops):
            augmented = augmentation(images, random).numpy() * STDDEV + MEAN
            of_image = augmented.reshape(count, crop.count, crop.size, crop.size, 3)
            columns += [of_image[:, i] for i in range(crop.count)]
    strips = [_with_margin(column, side) for column in columns]
    return np.clip(np.concatenate(strips, axis=1)[:-_GAP, :-_GAP], 0.0, 1.0)


def _with_margin(column: np.ndarray, side: int) -> np.ndarray:
    """[count, s, s, 3] -> [count (side + gap), s + gap, 3], white below and at the right of each."""
    count, size = column.shape[:2]
    cells = np.ones([count, side + _GAP, size + _GAP, 3], np.float32)
    cells[:, :size, :size] = column
    return cells.reshape(-1, size + _GAP, 3)


@dataclasses.dataclass(frozen=True)
class SameImages:
    """An order that visits the images of another one's first step in every step."""

    order: SlidingWindow

    def __getattr__(self, name: str):
        return getattr(self.order, name)

    def instance_ids(self, _):
        return self.order.instance_ids(0)


def visits(order: SlidingWindow, steps: int) -> np.ndarray:
    """int64 [steps, B]: where in the permutation each step's images are."""
    return np.stack([order.places(step).numpy() % order.num_instances for step in range(steps)])


def save_sheet(picture: np.ndarray, titles: list[str], title: str, path: pathlib.Path) -> None:
    """Write a `sheet`, pixel by pixel, with a title above and the rows' titles at the left."""
    import matplotlib.pyplot as plt

    height, width = picture.shape[:2]
    zoom = -(-_LEAST_ROW * len(titles) // height)  # whole, so that all pixels stay equal
    figure = plt.figure(figsize=((_LEFT + zoom * width + 10) / _DPI, (_TOP + zoom * height + 10) / _DPI), dpi=_DPI)
    whole = figure.get_figwidth() * _DPI, figure.get_figheight() * _DPI
    axis = figure.add_axes((_LEFT / whole[0], 10 / whole[1], zoom * width / whole[0], zoom * height / whole[1]))
    axis.imshow(picture, interpolation="nearest", aspect="auto")
    # As they are: "$" would begin a formula.
    axis.set_yticks((np.arange(len(titles)) + 0.5) * height / len(titles), titles, fontsize=7, parse_math=False)
    axis.set_xticks([])
    axis.tick_params(length=0)
    axis.spines[:].set_visible(False)
    figure.text(10 / whole[0], 1 - 10 / whole[1], title, fontsize=9, va="top", parse_math=False)
    _save(figure, path)


def save_order(orders: dict[str, np.ndarray], path: pathlib.Path) -> None:
    """Draw `visits` of several orders by name, position against step."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, len(orders), figsize=(5 * len(orders), 3.8), layout="constrained", sharey=True)
    for axis, (name, positions) in zip(axes, orders.items()):
        steps = np.repeat(np.arange(len(positions)), positions.shape[1])
        axis.scatter(steps, positions.ravel(), s=1, linewidths=0, color="tab:blue", alpha=0.6)
        axis.set_title(name, fontsize=10)
        axis.set_xlabel("step")
    axes[0].set_ylabel("position in the permutation")
    _save(figure, path)


def _save(figure, path: pathlib.Path) -> None:
    import matplotlib.pyplot as plt

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")  # a name in letters that matplotlib's font lacks
        with replaced(path, "wb") as file:
            figure.savefig(file, format="png", dpi=_DPI)
    plt.close(figure)


def _shortened(text: str, most: int = 24) -> str:
    text = "".join(c if c.isprintable() else "?" for c in text)
    return text if len(text) <= most else f"{text[: most - 9]}...{text[-6:]}"


def _draw_sheet(values: flags.FlagValues) -> None:
    preset = PRESETS[values.augmentation]()
    crops = parse_crops(values.crops) if values.crops else (Crop(values.image_size, preset.crop_scale),)
    pixels = values.count * (1 + values.views) * max(crop.size for crop in crops) ** 2
    if pixels > _MOST_PIXELS:
        raise ValueError(
            f"expected at most {_MOST_PIXELS:,} pixels, got {pixels:,}: lower --count, --views or the size of views"
        )
    source = open_source(values.images)
    count = min(values.count, len(source))
    picture = sheet(source, preset, crops, count, values.views, values.seed)
    ids = epoch_order(len(source), count, values.seed).instance_ids(0).numpy()
    titles = [_shortened(os.path.basename(source.path(i))) for i in ids]
    title = f"{values.augmentation}: the image, then views of {' and '.join(f'{c.size}' for c in crops)} pixels"
    save_sheet(picture, titles, title, pathlib.Path(values.output))
    print(f"{count} images in {values.output}")


def _draw_order(values: flags.FlagValues) -> None:
    n, b = values.num_instances, values.batch_size
    window, stride = default_window(n, b)
    if values.window_size:
        window, stride = values.window_size, default_stride(values.window_size)
    order = SlidingWindow(n, b, window, values.window_stride or stride, values.seed)
    steps = values.epochs * (n // b)
    if steps * b > _MOST_POINTS:
        raise ValueError(
            f"expected at most {_MOST_POINTS:,} visits to draw, got {steps * b:,}: lower --num_instances or --epochs"
        )
    names = f"sliding window, W {order.window_size:,}, S {order.window_stride:,}", "epochs"
    save_order(
        {names[0]: visits(order, steps), names[1]: visits(epoch_order(n, b, values.seed), steps)},
        pathlib.Path(values.order_output),
    )
    print(f"{steps:,} steps in {values.order_output}")


def main() -> None:
    import matplotlib

    matplotlib.use("Agg")  # no screen needed
    values = flags.FLAGS
    if bool(values.output) != bool(values.images) or not (values.output or values.order_output):
        raise ValueError("expected --images and --output, or --order_output, got less: see --help")
    for output in filter(None, (values.output, values.order_output)):
        if not (output.endswith(".png") and pathlib.Path(output).absolute().parent.is_dir()):
            raise ValueError(f"expected a PNG file in a folder that is there, got {output!r}: name another one")
    if values.output:
        _draw_sheet(values)
    if values.order_output:
        _draw_order(values)


def define_flags() -> None:
    flags.DEFINE_string("images", "", "images to draw views of: a folder, a packed data set, or tfds:NAME")
    flags.DEFINE_string("output", "", "PNG file for the views")
    flags.DEFINE_enum("augmentation", "simclr", list(PRESETS), "published augmentation")
    flags.DEFINE_string("crops", "", "several views in a step, as of pic_tf.train; '' for one")
    flags.DEFINE_integer("image_size", 224, "side of a view in pixels", lower_bound=1, upper_bound=2048)
    flags.DEFINE_integer("count", 6, "images", lower_bound=1, upper_bound=100)
    flags.DEFINE_integer("views", 8, "views of each image, at least", lower_bound=1, upper_bound=100)
    flags.DEFINE_integer("seed", 0, "of images and views, and of the order")
    flags.DEFINE_string("order_output", "", "PNG file for the order of visits")
    flags.DEFINE_integer("num_instances", 4000, "order: number of images, N", lower_bound=1)
    flags.DEFINE_integer("batch_size", 40, "order: images a step, B", lower_bound=1)
    flags.DEFINE_integer("window_size", 0, "order: W in images; 0 for what training would take", lower_bound=0)
    flags.DEFINE_integer("window_stride", 0, "order: S in images; 0 for what training would take", lower_bound=0)
    flags.DEFINE_integer("epochs", 10, "order: how long to draw, in epochs", lower_bound=1)


if __name__ == "__main__":
    define_flags()
    command_line.run(main)
