"""Average precision against loops in the devkit's manner, and cases by hand."""

import numpy as np
import pytest

from pic_tf.evals.detection.voc_metric import Detections, Objects, eleven_points, voc_ap


def inclusive(box) -> list[float]:
    """Corners that count pixels from 1 and belong to the box, as VOC's files have them."""
    return [box[0] + 1, box[1] + 1, box[2], box[3]]


def oracle(found, there, c, threshold) -> float:
    """The devkit's loops, with its boxes that include both corners."""
    total = sum(1 for o in there for k, d in zip(o.classes, o.difficult) if k == c and not d)
    if total == 0:
        return np.nan
    answers = [
        (-score, i, inclusive(box))
        for i, d in enumerate(found)
        for box, score, k in zip(d.boxes, d.scores, d.classes)
        if k == c
    ]
    answers.sort(key=lambda answer: answer[0])
    taken, right, wrong, curve = set(), 0, 0, []
    for _, i, box in answers:
        best, index = -1.0, None
        for g, (other, k) in enumerate(zip(there[i].boxes, there[i].classes)):
            if k != c:
                continue
            other = inclusive(other)
            width = max(min(box[2], other[2]) - max(box[0], other[0]) + 1, 0)
            height = max(min(box[3], other[3]) - max(box[1], other[1]) + 1, 0)
            own = (box[2] - box[0] + 1) * (box[3] - box[1] + 1)
            own += (other[2] - other[0] + 1) * (other[3] - other[1] + 1)
            value = width * height / (own - width * height)
            if value > best:
                best, index = value, g
        if best > threshold and there[i].difficult[index]:
            continue
        if best > threshold and (i, index) not in taken:
            taken.add((i, index))
            right += 1
        else:
            wrong += 1
        curve.append((right / total, right / (right + wrong)))
    return sum(max([p for r, p in curve if r >= k / 10], default=0) for k in range(11)) / 11


def scenes(rng, images, classes):
    found, there = [], []
    for _ in range(images):
        count = rng.integers(0, 6)
        low = rng.integers(0, 50, [count, 2]).astype(float)
        boxes = np.concatenate([low, low + rng.integers(5, 40, [count, 2])], 1)
        labels = rng.integers(0, classes, count)
        there.append(Objects(boxes, labels, rng.random(count) < 0.2))
        again = np.repeat(np.arange(count), 2)
        moved = boxes[again] + rng.normal(0, 3, [len(again), 4])
        strangers = rng.integers(0, 50, [2, 2]).astype(float)
        moved = np.concatenate([moved, np.concatenate([strangers, strangers + 20], 1)])
        told = np.concatenate([labels[again], rng.integers(0, classes, 2)])
        found.append(Detections(moved, rng.random(len(told)), told))
    return found, there


@pytest.mark.parametrize("seed", range(4))
def test_against_the_loops_of_the_devkit(seed):
    found, there = scenes(np.random.default_rng(seed), 12, 3)
    thresholds = (0.5, 0.75, 0.95)
    got = voc_ap(found, there, 4, thresholds)
    expected = [[oracle(found, there, c, t) for c in range(4)] for t in thresholds]
    np.testing.assert_allclose(got, expected, rtol=1e-12)  # both in float64
    assert np.isnan(got[:, 3]).all() and 0 < np.nanmean(got[0]) < 1


def one(boxes, scores):
    boxes = np.array(boxes, float).reshape(-1, 4)
    return Detections(boxes, np.array(scores, float), np.zeros(len(boxes), int))


def objects(boxes, difficult=None):
    boxes = np.array(boxes, float).reshape(-1, 4)
    hard = np.zeros(len(boxes), bool) if difficult is None else np.array(difficult)
    return Objects(boxes, np.zeros(len(boxes), int), hard)


BOX, FAR = [0, 0, 10, 10], [50, 50, 60, 60]
CASES = {
    "found": ([one([BOX], [0.9])], [objects([BOX])], 1.0),
    "missed": ([one([], [])], [objects([BOX])], 0.0),
    "found twice": ([one([BOX, BOX], [0.9, 0.8])], [objects([BOX])], 1.0),  # recall is full before
    "a surer mistake": ([one([FAR, BOX], [0.9, 0.8])], [objects([BOX])], 0.5),
    "half": ([one([BOX], [0.9])], [objects([BOX, FAR])], 6 / 11),  # recalls 0 ... 0.5
    "difficult, found": ([one([FAR, BOX], [0.9, 0.8])], [objects([BOX, FAR], [False, True])], 1.0),
    "difficult, missed": ([one([BOX], [0.9])], [objects([BOX, FAR], [False, True])], 1.0),
    "another image": ([one([], []), one([BOX], [1])], [objects([BOX]), objects([])], 0.0),
    "exactly the threshold": ([one([[0, 0, 10, 5]], [1])], [objects([BOX])], 0.0),
}


@pytest.mark.parametrize("case", CASES)
def test_cases_by_hand(case):
    found, there, expected = CASES[case]
    assert voc_ap(found, there, 1, (0.5,))[0, 0] == pytest.approx(expected, abs=1e-12)


def test_eleven_points():
    # Precision 1, 1/2, 2/3 at recalls 1/3, 1/3, 2/3.
    got = eleven_points(np.array([True, False, True]), 3)
    assert got == pytest.approx((4 * 1 + 3 * 2 / 3) / 11, abs=1e-12)
