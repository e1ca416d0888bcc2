"""Average precision of Pascal VOC 2007, as the published detectors are judged."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

THRESHOLDS = tuple(t / 100 for t in range(50, 100, 5))  # of the IoU


class Detections(NamedTuple):
    """Objects that a detector tells in an image.

    Attributes:
      boxes: float [n, 4], edges (x1, y1, x2, y2) in pixels.
      scores: float [n].
      classes: int [n].
    """

    boxes: np.ndarray
    scores: np.ndarray
    classes: np.ndarray


class Objects(NamedTuple):
    """Objects that are in an image.

    Attributes:
      boxes: float [g, 4], edges (x1, y1, x2, y2) in pixels.
      classes: int [g].
      difficult: bool [g], true for objects that count neither when found nor when missed.
    """

    boxes: np.ndarray
    classes: np.ndarray
    difficult: np.ndarray


def voc_ap(
    found: Sequence[Detections],
    there: Sequence[Objects],
    classes: int,
    thresholds: Sequence[float] = THRESHOLDS,
) -> np.ndarray:
    """Compute the average precision of each class at each threshold.

    A detection is right where the object of its class that it overlaps most, by more than the
    threshold, has not been found by a surer one. With precision and recall after each detection,
    the surest first,

        AP = sum_{r = 0, 0.1 ... 1} max(precision where recall >= r) / 11.

    The boxes are of edges: a box from pixel i to pixel j is j - i + 1 wide, as VOC's devkit has it.

    Args:
      found: detections of each image.
      there: objects of each image.
      classes: their number.
      thresholds: of the IoU.

    Returns:
      float64 [len(thresholds), classes]; NaN for a class without objects.

    Source: Everingham et al. 2010 (https://doi.org/10.1007/s11263-009-0275-4), Section 4.2; the
    mean over thresholds 0.5 to 0.95 is COCO's, and detectron2's for VOC.
    """
    result = np.full([len(thresholds), classes], np.nan)
    for c in range(classes):
        objects = [(o.boxes[o.classes == c], o.difficult[o.classes == c]) for o in there]
        total = sum(int((~difficult).sum()) for _, difficult in objects)
        if not total:
            continue
        image = np.concatenate([np.full((d.classes == c).sum(), i) for i, d in enumerate(found)])
        scores = np.concatenate([d.scores[d.classes == c] for d in found])
        boxes = np.concatenate([d.boxes[d.classes == c] for d in found])
        order = np.argsort(-scores, kind="stable")
        best = [_most_overlapped(objects[int(image[i])][0], boxes[i]) for i in order]
        for t, threshold in enumerate(thresholds):
            right, counts = _right(image[order].astype(int), best, objects, threshold)
            result[t, c] = eleven_points(right[counts], total)
    return result


def eleven_points(right: np.ndarray, total: int) -> float:
    """Average the precision over eleven recalls.

    Args:
      right: bool [n] of detections, the surest first.
      total: number of objects, >= 1.
    """
    hits = np.cumsum(right)
    recall, precision = hits / total, hits / np.arange(1, len(hits) + 1)
    steps = np.arange(11) / 10
    return float(np.mean([precision[recall >= r].max(initial=0) for r in steps]))


def _most_overlapped(objects: np.ndarray, box: np.ndarray) -> tuple[int, float]:
    """The object that a box overlaps most, and their IoU; (-1, 0) where there is none."""
    if not len(objects):
        return -1, 0.0
    low, high = np.maximum(objects[:, :2], box[:2]), np.minimum(objects[:, 2:], box[2:])
    shared = np.prod(np.maximum(high - low, 0), axis=1)
    own = np.prod(objects[:, 2:] - objects[:, :2], axis=1) + np.prod(box[2:] - box[:2])
    overlap = shared / np.maximum(own - shared, 1e-12)
    best = int(overlap.argmax())
    return best, float(overlap[best])


def _right(
    image: np.ndarray,
    best: list[tuple[int, float]],
    objects: list[tuple[np.ndarray, np.ndarray]],
    threshold: float,
) -> tuple[np.ndarray, np.ndarray]:
    """Tell the right detections, and those that count: not those of difficult objects."""
    taken = set()
    right, counts = np.zeros(len(image), bool), np.ones(len(image), bool)
    for i, (of_image, (index, overlap)) in enumerate(zip(image.tolist(), best)):
        if overlap <= threshold:
            continue
        if objects[of_image][1][index]:
            counts[i] = False
        elif (of_image, index) not in taken:
            taken.add((of_image, index))
            right[i] = True
    return right, counts
