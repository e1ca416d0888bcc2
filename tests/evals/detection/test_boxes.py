"""Boxes, anchors, matches and RoIAlign against loops in NumPy."""

import math

import numpy as np
import pytest
import tensorflow as tf

from pic_tf.evals.detection.boxes import anchors, areas, clip, decode, encode, overlaps
from pic_tf.evals.detection.matching import IGNORED, NEGATIVE, POSITIVE, match, sample
from pic_tf.evals.detection.roi_align import roi_align


def drawn(rng, *shape, extent=40.0, least=1.0) -> np.ndarray:
    """float32 [*shape, 4] boxes inside of a square."""
    size = rng.uniform(least, extent / 2, [*shape, 2])
    low = rng.uniform(0, extent - size)
    return np.concatenate([low, low + size], -1).astype(np.float32)


def overlap(a, b) -> float:
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    shared = max(width, 0) * max(height, 0)
    own = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1])
    return shared / (own - shared)


def test_overlaps_of_all_pairs():
    rng = np.random.default_rng(0)
    one, other = drawn(rng, 2, 5), drawn(rng, 2, 7)
    found = overlaps(tf.constant(one), tf.constant(other)).numpy()
    expected = [
        [[overlap(a, b) for b in y] for a in x] for x, y in zip(one.tolist(), other.tolist())
    ]
    np.testing.assert_allclose(found, expected, atol=1e-6)  # float32 against float64
    assert (found > 0).any() and (found == 0).any()
    golden = overlaps(tf.constant([[0.0, 0, 2, 2]]), tf.constant([[1.0, 0, 3, 2], [2, 0, 4, 2]]))
    np.testing.assert_allclose(golden, [[1 / 3, 0]])
    empty = tf.zeros([1, 4])
    assert overlaps(empty, empty).numpy() == 0
    np.testing.assert_array_equal(areas(tf.constant([[0.0, 0, 3, 2], [3.0, 0, 0, 2]])), [6, 0])


def test_anchors_of_every_cell():
    found = anchors(2, 3, 16, (32, 64), (0.5, 1.0, 2.0)).numpy()
    expected = []
    for y in range(2):
        for x in range(3):
            for size in (32, 64):
                for ratio in (0.5, 1.0, 2.0):
                    w, h = size / math.sqrt(ratio), size * math.sqrt(ratio)
                    expected.append(
                        [16 * x - w / 2, 16 * y - h / 2, 16 * x + w / 2, 16 * y + h / 2]
                    )
    np.testing.assert_allclose(found, expected, rtol=1e-6)  # float32
    width, height = (found[:, 2:] - found[:, :2]).T
    np.testing.assert_allclose(width[::3], height[2::3], rtol=1e-5)  # 1 / 2 and 2 are each other's


def test_differences_and_back():
    rng = np.random.default_rng(1)
    boxes, references = drawn(rng, 3, 6), drawn(rng, 3, 6)
    weights = (10.0, 10.0, 5.0, 5.0)
    found = encode(tf.constant(boxes), tf.constant(references), weights)
    (a, b), w = (boxes[1, 2].tolist(), references[1, 2].tolist()), b_sizes(references[1, 2])
    expected = [
        10 * ((a[0] + a[2]) / 2 - (b[0] + b[2]) / 2) / w[0],
        10 * ((a[1] + a[3]) / 2 - (b[1] + b[3]) / 2) / w[1],
        5 * math.log((a[2] - a[0]) / w[0]),
        5 * math.log((a[3] - a[1]) / w[1]),
    ]
    np.testing.assert_allclose(found[1, 2], expected, rtol=1e-4, atol=1e-5)  # float32, logarithms
    back = decode(found, tf.constant(references), weights)
    np.testing.assert_allclose(back, boxes, atol=1e-4)  # of 40 pixels in float32
    grown = decode(tf.constant([[0.0, 0, 100, 0]]), tf.constant([[0.0, 0, 16, 16]]))
    np.testing.assert_allclose(grown[0, 2] - grown[0, 0], 1000, rtol=1e-5)
    cut = clip(tf.constant([[[-5.0, 2, 50, 60]]]), tf.constant([[20.0, 30.0]]))
    np.testing.assert_array_equal(cut, [[[0, 2, 30, 20]]])


def b_sizes(box) -> list[float]:
    return [float(box[2]) - float(box[0]), float(box[3]) - float(box[1])]


@pytest.mark.parametrize("each_object", [False, True])
def test_matches(each_object):
    rng = np.random.default_rng(2)
    boxes, objects = drawn(rng, 2, 30), drawn(rng, 2, 4)
    boxes[0, 3] = objects[0, 1]
    boxes[1, 5] = objects[1, 0] + 0.5
    objects[0, 0] += 100  # that no box overlaps
    there = np.array([[True, True, False, True], [True, False, False, False]])
    found = match(*map(tf.constant, (boxes, objects, there)), 0.2, 0.5, each_object)
    kinds = set()
    for b in range(2):
        real = [g for g in range(4) if there[b, g]]
        table = {
            (i, g): overlap(boxes[b, i].tolist(), objects[b, g].tolist())
            for i in range(30)
            for g in real
        }
        for i in range(30):
            best = max(real, key=lambda g: table[i, g])
            value = table[i, best]
            kind = POSITIVE if value >= 0.5 else NEGATIVE if value < 0.2 else IGNORED
            if each_object and any(
                table[i, g] > 0 and table[i, g] == max(table[j, g] for j in range(30)) for g in real
            ):
                kind = POSITIVE
            assert found.kind[b, i] == kind, (b, i)
            if value > 0:
                assert found.index[b, i] == best
            kinds.add(kind)
    assert kinds == {POSITIVE, NEGATIVE, IGNORED}


def test_an_image_without_objects_has_negative_boxes_alone():
    boxes = tf.constant(drawn(np.random.default_rng(3), 1, 5))
    found = match(boxes, tf.zeros([1, 1, 4]), tf.constant([[False]]), 0.3, 0.7, each_object=True)
    assert (found.kind.numpy() == NEGATIVE).all()


def test_samples():
    """All kinds of shortages: of positive boxes, of negative ones, of both."""
    rng = np.random.default_rng(4)
    kind = np.full([4, 20], NEGATIVE, np.int32)
    kind[0, :10] = POSITIVE  # enough of both
    kind[1, :2] = POSITIVE  # few positive ones
    kind[2, :18] = POSITIVE  # few negative ones
    kind[3, 3:] = IGNORED
    random = rng.random([4, 20], np.float32)
    ids, fine = (x.numpy() for x in sample(tf.constant(kind), tf.constant(random), 8, 0.5))
    for b, positive, negative in ((0, 4, 4), (1, 2, 6), (2, 4, 2), (3, 0, 3)):
        chosen = ids[b][fine[b]]
        assert len(set(chosen)) == len(chosen) == positive + negative
        assert kind[b][chosen].tolist() == [POSITIVE] * positive + [NEGATIVE] * negative
        for value, count in ((POSITIVE, positive), (NEGATIVE, negative)):
            of_kind = np.flatnonzero(kind[b] == value)
            largest = of_kind[np.argsort(-random[b][of_kind])][:count]
            assert set(chosen[kind[b][chosen] == value]) == set(largest)


def feature_at(image, y, x):
    """Bilinear between the centres of pixels, those at the border reaching beyond it."""
    height, width = image.shape[:2]
    y, x = min(max(y - 0.5, 0), height - 1), min(max(x - 0.5, 0), width - 1)
    y0, x0 = min(int(y), height - 1), min(int(x), width - 1)
    y1, x1 = min(y0 + 1, height - 1), min(x0 + 1, width - 1)
    dy, dx = y - y0, x - x0
    upper = (1 - dx) * image[y0, x0] + dx * image[y0, x1]
    lower = (1 - dx) * image[y1, x0] + dx * image[y1, x1]
    return (1 - dy) * upper + dy * lower


def test_roi_align():
    rng = np.random.default_rng(5)
    maps = rng.normal(size=[2, 5, 7, 3]).astype(np.float32)
    boxes = drawn(rng, 2, 4, extent=20.0)  # stride 4: 28 x 20 pixels
    boxes[0, 0], boxes[1, 0] = (0, 0, 28, 20), (27, 19, 28, 20)  # all; a corner
    found = roi_align(tf.constant(maps), tf.constant(boxes), 4, 3).numpy()
    expected = np.zeros([8, 3, 3, 3])
    for n in range(8):
        x1, y1, x2, y2 = boxes[n // 4, n % 4].astype(np.float64) / 4
        for i in range(3):
            for j in range(3):
                points = [
                    feature_at(
                        maps[n // 4], y1 + (y2 - y1) * (i + u) / 3, x1 + (x2 - x1) * (j + v) / 3
                    )
                    for u in (0.25, 0.75)
                    for v in (0.25, 0.75)
                ]
                expected[n, i, j] = np.mean(points, axis=0)
    np.testing.assert_allclose(found, expected, atol=1e-5)  # float32 weights of interpolation
