"""Draw images with the objects told in them."""

import pathlib
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from PIL import Image

from pic_tf.evals.detection.annotations import Picture
from pic_tf.evals.detection.voc_metric import Detections
from pic_tf.evals.transfer.datasets import PictureSet
from pic_tf.evals.transfer.sheet import draw_sheet, evenly

_LEAST = 0.5  # score of an object that is drawn


def draw_detections(
    data: PictureSet[Picture], found: Sequence[Detections], count: int, path: pathlib.Path
) -> None:
    """Draw some images, evenly chosen, with true boxes dashed and told ones in full.

    Args:
      data: the images.
      found: detections of each image.
      count: images to draw.
      path: PNG file to write.

    Raises:
      OSError: where it cannot be written.
    """
    chosen = evenly(len(found), count)
    draw_sheet(chosen, lambda axis, i: _draw(axis, data, found[i], i), path)


def _draw(axis: Axes, data: PictureSet[Picture], told: Detections, i: int) -> None:
    import matplotlib.pyplot as plt
    from matplotlib.patches import Rectangle

    picture = data.pictures[i]
    with picture.open() as file, Image.open(file) as image:
        axis.imshow(np.asarray(image.convert("RGB")))
    for x1, y1, x2, y2 in picture.objects.boxes - 0.5:  # the centre of a pixel is at 0
        style = {"fill": False, "edgecolor": "white", "linestyle": ":", "linewidth": 1}
        axis.add_patch(Rectangle((x1, y1), x2 - x1, y2 - y1, **style))
    for box, score, kind in zip(told.boxes - 0.5, told.scores, told.classes):
        if score >= _LEAST:
            colour = plt.get_cmap("tab20")(int(kind) % 20)
            size = (box[2] - box[0], box[3] - box[1])
            axis.add_patch(Rectangle(box[:2], *size, fill=False, edgecolor=colour, linewidth=1.5))
            behind = {"facecolor": colour, "linewidth": 0, "pad": 0.5, "alpha": 0.8}
            words = f"{data.class_names[kind]} {score:.2f}"
            axis.text(*box[:2], words, fontsize=7, parse_math=False, bbox=behind)
