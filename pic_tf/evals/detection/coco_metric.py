"""Average precision of COCO, computed by its own code, pycocotools."""

import contextlib
import io
import json
import pathlib
import tempfile
from collections.abc import Sequence

import numpy as np

from pic_tf.evals.detection.annotations import Picture
from pic_tf.evals.detection.voc_metric import Detections
from pic_tf.evals.transfer.datasets import PictureSet

FIGURES = ("COCO_AP", "COCO_AP50", "COCO_AP75", "COCO_AP_small", "COCO_AP_medium", "COCO_AP_large")


def coco_ap(
    found: Sequence[Detections], data: PictureSet[Picture]
) -> dict[str, float | None] | None:
    """Compute COCO's six average precisions, in percent.

    Difficult objects count as crowds do: neither when found nor when missed. Sizes are those of
    `Picture.areas`.

    Args:
      found: detections of each image.
      data: the images with their objects.

    Returns:
      Figure -> percent, None where no object is of its size; None for all without pycocotools.

    Source: https://cocodataset.org/#detection-eval.
    """
    try:
        from pycocotools.coco import COCO
        from pycocotools.cocoeval import COCOeval
    except ImportError:
        return None
    told = [
        {"image_id": i, "category_id": int(kind), "bbox": _corner_and_size(box), "score": float(s)}
        for i, (boxes, scores, classes) in enumerate(found)
        for box, s, kind in zip(boxes, scores, classes)
    ]
    if not told:
        return dict.fromkeys(FIGURES, 0.0)
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        file = pathlib.Path(folder) / "objects.json"
        file.write_text(json.dumps(_objects(data)))
        truth = COCO(str(file))
        evaluation = COCOeval(truth, truth.loadRes(told), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    figures = evaluation.stats[: len(FIGURES)]
    return {n: 100 * float(v) if v >= 0 else None for n, v in zip(FIGURES, figures)}


def _objects(data: PictureSet[Picture]) -> dict:
    """Write the objects of a data set in COCO's form."""
    annotations = []
    for i, picture in enumerate(data.pictures):
        boxes = picture.objects.boxes
        areas = np.prod(boxes[:, 2:] - boxes[:, :2], 1) if picture.areas is None else picture.areas
        objects = [*zip(*picture.objects, areas)]
        objects += [(*crowd, 0.0) for crowd in zip(*(picture.crowds or ()))]
        for box, kind, difficult, area in objects:
            annotations.append(
                {
                    "id": len(annotations) + 1,  # 0 would count as no match
                    "image_id": i,
                    "category_id": int(kind),
                    "bbox": _corner_and_size(box),
                    "area": float(area),
                    "iscrowd": int(difficult),
                }
            )
    return {
        "info": {},
        "images": [
            {"id": i, "height": p.height, "width": p.width} for i, p in enumerate(data.pictures)
        ],
        "categories": [{"id": i, "name": name} for i, name in enumerate(data.class_names)],
        "annotations": annotations,
    }


def _corner_and_size(box: np.ndarray) -> list[float]:
    x1, y1, x2, y2 = map(float, box)
    return [x1, y1, x2 - x1, y2 - y1]
