"""COCO's average precision: its own code on our boxes, against a loop and cases by hand."""

import pathlib
import sys

import numpy as np
import pytest

from pic_tf.evals.detection.annotations import Picture
from pic_tf.evals.detection.coco_metric import FIGURES, coco_ap
from pic_tf.evals.detection.voc_metric import THRESHOLDS, Detections, Objects
from pic_tf.evals.transfer.datasets import PictureSet
from tests.evals.detection.test_boxes import overlap


def test_nothing_is_computed_without_pycocotools(monkeypatch):
    monkeypatch.setitem(sys.modules, "pycocotools.coco", None)
    assert coco_ap([], PictureSet("x", (), ())) is None


def annotated(objects, classes=2):
    file = pathlib.Path("x")
    pictures = tuple(Picture(file, file, 100, 100, each, file.open) for each in objects)
    return PictureSet("x", pictures, tuple(f"class{i}" for i in range(classes)))


def oracle(found, objects, threshold):
    """The mean over 101 recalls and all classes; of one class an answer takes the object that is
    still free and overlaps it most.
    """
    of_class = []
    for c in range(2):
        answers = [(-s, i, box) for i, d in enumerate(found) for box, s, k in zip(*d) if k == c]
        answers.sort(key=lambda answer: answer[0])
        free = {
            (i, g)
            for i, o in enumerate(objects)
            for g in range(len(o.classes))
            if o.classes[g] == c
        }
        total, right, curve = len(free), 0, []
        for n, (_, i, box) in enumerate(answers, 1):
            mine = [
                (overlap(box.tolist(), objects[i].boxes[g].tolist()), g) for j, g in free if j == i
            ]
            best = max(mine, default=(0, None))
            if best[0] >= threshold:
                free.remove((i, best[1]))
                right += 1
            curve.append((right / total, right / n))
        steps = [max((p for r, p in curve if r >= k / 100 - 1e-12), default=0) for k in range(101)]
        of_class.append(np.mean(steps))
    return 100 * np.mean(of_class)


def test_against_a_loop():
    pytest.importorskip("pycocotools", reason="COCO's metric: pip install pycocotools")
    rng = np.random.default_rng(0)
    found, objects = [], []
    for _ in range(8):
        low = rng.uniform(0, 50, [4, 2])
        boxes = np.concatenate([low, low + rng.uniform(10, 40, [4, 2])], 1)
        kinds = rng.integers(0, 2, 4)
        objects.append(Objects(boxes, kinds, np.zeros(4, bool)))
        twice = np.repeat(np.arange(4), 2)
        moved = boxes[twice] + rng.normal(0, 2, [8, 4])
        found.append(Detections(moved, rng.random(8), kinds[twice]))
    got = coco_ap(found, annotated(objects))
    assert tuple(got) == FIGURES
    # The same rule, in float64 on both sides.
    assert got["COCO_AP50"] == pytest.approx(oracle(found, objects, 0.5), abs=1e-6)
    assert got["COCO_AP75"] == pytest.approx(oracle(found, objects, 0.75), abs=1e-6)
    mean = np.mean([oracle(found, objects, t) for t in THRESHOLDS])
    assert got["COCO_AP"] == pytest.approx(mean, abs=1e-6) and 0 < mean < 100


def test_crowds_and_areas_are_those_of_coco():
    """What is found in a crowd is forgiven, however small its share; a size is the object's own."""
    pytest.importorskip("pycocotools", reason="COCO's metric: pip install pycocotools")
    boxes = np.array([[0, 0, 40, 40]], float)
    [picture] = annotated([Objects(boxes, np.zeros(1, int), np.zeros(1, bool))], 1).pictures
    crowd = Objects(np.array([[50, 0, 100, 100]], float), np.zeros(1, int), np.ones(1, bool))
    within = np.array([[60, 10, 70, 20], [80, 50, 90, 60]], float)
    found = Detections(np.concatenate([within, boxes]), np.array([0.9, 0.8, 0.7]), np.zeros(3, int))
    data = PictureSet("x", (picture,), ("class0",))
    got = coco_ap([found], data)
    assert got["COCO_AP"] == pytest.approx(100 / 3)  # the two surest of three are wrong
    assert got["COCO_AP_medium"] is not None and got["COCO_AP_small"] is None  # 1,600 pixels
    data = PictureSet("x", (picture._replace(crowds=crowd, areas=np.array([900.0])),), ("class0",))
    got = coco_ap([found], data)
    assert got["COCO_AP"] == got["COCO_AP_small"] == pytest.approx(100)
    assert got["COCO_AP_medium"] is None


def test_difficult_objects_do_not_count():
    pytest.importorskip("pycocotools", reason="COCO's metric: pip install pycocotools")
    boxes = np.array([[0, 0, 20, 20], [50, 50, 80, 80]], float)
    objects = [Objects(boxes, np.zeros(2, int), np.array([False, True]))]
    sure = Detections(boxes[::-1], np.array([0.9, 0.8]), np.zeros(2, int))
    got = coco_ap([sure], annotated(objects, 1))
    assert got["COCO_AP"] == pytest.approx(100) and got["COCO_AP_large"] is None
    nothing = Detections(np.zeros([0, 4]), np.zeros(0), np.zeros(0, int))
    assert coco_ap([nothing], annotated(objects, 1))["COCO_AP"] == 0
