"""Draw images and their augmented views, as training makes them."""

import dataclasses
import pathlib

import numpy as np

from pic_tf.data.crops import Crop, total
from pic_tf.data.normalisation import IMAGENET, Normalisation, unit_range
from pic_tf.data.order import SlidingWindow, epoch_order
from pic_tf.data.pipeline import evaluation_batches, naming_unreadable, pretraining_batches
from pic_tf.data.presets import Preset, augmentation_of
from pic_tf.data.sources.source import Source
from pic_tf.look.figures import DPI, save_figure

_GAP = 4  # pixels between two views
_LEFT, _TOP = 300, 40  # pixels, room for titles
_MIN_ROW = 40  # pixels a row, for its title


def augmented_views(
    source: Source, preset: Preset, crops: tuple[Crop, ...], count: int, views: int, seed: int
) -> np.ndarray:
    """Picture images and their views in training, a row an image: its middle, then the views.

    Args:
      source: the images; `count` of them are drawn by `seed`.
      preset: augmentation of the views.
      crops: kinds of views of each image in a step.
      count: rows.
      views: columns, at least; whole steps are shown.
      seed: seed of the draw, the crops and the augmentation.

    Returns:
      float32 [H, W, 3] in [0, 1]; smaller views have narrower columns.

    Raises:
      ValueError: for an image that cannot be read.
    """
    channels, side = source.pixels.channels, max(crop.size for crop in crops)
    mean, stddev = normalisation = _to_draw(channels)
    augmentation = augmentation_of(preset, normalisation)
    order = epoch_order(len(source), count, seed)
    options = {"crops": crops, "seed": seed, "start_step": 0}
    with naming_unreadable(source, order.instance_ids(0).numpy()):
        _, ids, _ = next(iter(pretraining_batches(source, order, stop_step=1, **options)))
        middles = evaluation_batches(source, ids, image_size=side, crop_fraction=1.0)
        columns = [_in_colours(unit_range(next(iter(middles))).numpy())]
        same, steps = SameImages(order), -(-views // total(crops))
        for groups, _, _ in pretraining_batches(source, same, stop_step=steps, **options):
            for (images, random), crop in zip(groups, crops):
                augmented = _in_colours(augmentation(images, random).numpy() * stddev + mean)
                of_image = augmented.reshape(count, crop.count, crop.size, crop.size, 3)
                columns += [of_image[:, i] for i in range(crop.count)]
    strips = [_with_margin(column, side) for column in columns]
    return np.clip(np.concatenate(strips, axis=1)[:-_GAP, :-_GAP], 0.0, 1.0)


def _to_draw(channels: int) -> Normalisation:
    """ImageNet's, which is undone in the picture; none for other than three channels."""
    return IMAGENET if channels == 3 else Normalisation((0.0,) * channels, (1.0,) * channels)


def _in_colours(images: np.ndarray) -> np.ndarray:
    """[..., C] -> [..., 3]: the first three channels, or the last one for those missing."""
    return images[..., np.minimum(np.arange(3), images.shape[-1] - 1)]


def _with_margin(column: np.ndarray, side: int) -> np.ndarray:
    """[count, s, s, 3] -> [count (side + gap), s + gap, 3], white below and right of each."""
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


def save_views(picture: np.ndarray, titles: list[str], title: str, path: pathlib.Path) -> None:
    """Write a picture pixel by pixel, with a title above and the rows' titles at the left.

    Args:
      picture: float [H, W, 3] in [0, 1], as of `augmented_views`.
      titles: titles of the rows.
      title: title of the picture.
      path: PNG file to write.

    Raises:
      OSError: where it cannot be written.
    """
    import matplotlib.pyplot as plt

    height, width = picture.shape[:2]
    zoom = -(-_MIN_ROW * len(titles) // height)  # whole, so that all pixels stay equal
    shape = _LEFT + zoom * width + 10, _TOP + zoom * height + 10
    figure = plt.figure(figsize=(shape[0] / DPI, shape[1] / DPI), dpi=DPI)
    right, up = figure.get_figwidth() * DPI, figure.get_figheight() * DPI  # pixels
    axis = figure.add_axes((_LEFT / right, 10 / up, zoom * width / right, zoom * height / up))
    axis.imshow(picture, interpolation="nearest", aspect="auto")
    middles = (np.arange(len(titles)) + 0.5) * height / len(titles)
    axis.set_yticks(middles, titles, fontsize=7, parse_math=False)  # "$" would begin a formula
    axis.set_xticks([])
    axis.tick_params(length=0)
    axis.spines[:].set_visible(False)
    figure.text(10 / right, 1 - 10 / up, title, fontsize=9, va="top", parse_math=False)
    save_figure(figure, path)
