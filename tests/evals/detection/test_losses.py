"""Losses and suppression of a detector against loops in NumPy."""

import numpy as np
import tensorflow as tf

from pic_tf.evals.detection.boxes import encode
from pic_tf.evals.detection.losses import assign, box_losses, proposal_losses
from pic_tf.evals.detection.suppression import best_objects, propose
from tests.evals.detection.test_boxes import drawn, overlap


def sigmoid_entropy(logit, target):
    p = 1 / (1 + np.exp(-logit))
    return -np.log(p) if target else -np.log(1 - p)


def test_proposal_losses():
    """Every anchor is drawn, so that the sum is over all that are positive or negative."""
    rng = np.random.default_rng(0)
    anchors, objects = drawn(rng, 12), drawn(rng, 2, 3)
    anchors[0], anchors[1] = objects[0, 0], objects[1, 1]
    there = np.array([[True, True, False], [True, True, False]])
    objects[:, 2] = 0  # padding
    logits = rng.normal(size=[2, 12]).astype(np.float32)
    differences = rng.normal(size=[2, 12, 4]).astype(np.float32)
    random = rng.random([2, 12], np.float32)
    got = proposal_losses(
        *map(tf.constant, (logits, differences, anchors, objects, there, random)), 24
    )
    entropy = distance = 0.0
    for b in range(2):
        table = np.array(
            [[overlap(a, o) for o in objects[b, :2].tolist()] for a in anchors.tolist()]
        )
        for i in range(12):
            best = table[i].argmax()
            first = any(table[i, g] == table[:, g].max() and table[i, g] > 0 for g in range(2))
            positive = table[i].max() >= 0.7 or first
            if not positive and table[i].max() >= 0.3:
                continue
            entropy += sigmoid_entropy(logits[b, i].astype(float), positive)
            if positive:
                aim = encode(tf.constant(objects[b, best]), tf.constant(anchors[i])).numpy()
                distance += np.abs(differences[b, i] - aim).sum()
    # Sums of some 30 terms in float32.
    np.testing.assert_allclose(got, [entropy / 48, distance / 48], rtol=1e-5)


def test_losses_of_an_image_without_objects_have_gradients():
    differences = tf.Variable(tf.zeros([1, 5, 4]))
    anchors = tf.constant(drawn(np.random.default_rng(1), 5))
    arguments = anchors, tf.zeros([1, 1, 4]), tf.constant([[False]]), tf.random.uniform([1, 5])
    with tf.GradientTape() as tape:
        entropy, distance = proposal_losses(tf.zeros([1, 5]), differences, *arguments, 4)
    np.testing.assert_allclose(entropy, np.log(2), rtol=1e-6)
    assert distance == 0 and (tape.gradient(distance, differences).numpy() == 0).all()


def test_proposals_get_classes_and_aims():
    rng = np.random.default_rng(2)
    proposals, objects = drawn(rng, 1, 9), drawn(rng, 1, 3)
    proposals[0, 0] = objects[0, 1] + [0.5, 0, 0, 0]
    valid = np.arange(9)[None] < 7
    there, classes = np.array([[True, True, False]]), np.array([[4, 2, 7]], np.int32)
    random = rng.random([1, 12], np.float32)
    boxes, aims, told, fine = assign(
        *map(tf.constant, (proposals, valid, objects, classes, there, random)),
        12,
        20,
        (10.0, 10.0, 5.0, 5.0),
    )
    assert fine.numpy().sum() == 9  # 7 proposals and 2 objects, no padding
    everything = [*proposals[0, :7].tolist(), *objects[0, :2].tolist()]
    for box, aim, label in zip(
        boxes[0].numpy()[fine[0]], aims[0].numpy()[fine[0]], told[0].numpy()[fine[0]]
    ):
        assert box.tolist() in everything
        values = [overlap(box.tolist(), o) for o in objects[0, :2].tolist()]
        best = int(np.argmax(values))
        if values[best] < 0.5:
            assert label == 20 and (aim == 0).all()
            continue
        assert label == classes[0, best]
        expected = encode(tf.constant(objects[0, best]), tf.constant(box), (10.0, 10.0, 5.0, 5.0))
        np.testing.assert_allclose(aim, expected, atol=1e-5)  # in another order of float32
    assert {2, 4, 20} == set(told.numpy()[fine])
    few = assign(
        *map(tf.constant, (proposals, valid, objects, classes, there, random)), 8, 20, (1.0,) * 4
    )
    assert (few[2].numpy() < 20).sum() == 2  # a quarter of 8


def test_box_losses():
    rng = np.random.default_rng(3)
    logits, differences = rng.normal(size=[6, 4]), rng.normal(size=[6, 3, 4])
    aims, classes = rng.normal(size=[6, 4]), np.array([0, 2, 3, 3, 1, 0], np.int32)
    fine = np.array([True, True, True, True, True, False])
    floats = [tf.constant(x, tf.float32) for x in (logits, differences, aims)]
    got = box_losses(*floats, tf.constant(classes), tf.constant(fine))
    entropy = [np.log(np.exp(logits[i]).sum()) - logits[i, classes[i]] for i in range(5)]
    distance = [np.abs(differences[i, classes[i]] - aims[i]).sum() for i in (0, 1, 4)]
    np.testing.assert_allclose(got, [np.mean(entropy), np.sum(distance) / 5], rtol=1e-5)  # float32


def suppressed(boxes, scores, limit):
    """Ids that remain, the best first: the loop of non-maximum suppression."""
    kept = []
    for i in sorted(range(len(boxes)), key=lambda i: -scores[i]):
        if all(overlap(boxes[i].tolist(), boxes[j].tolist()) <= limit for j in kept):
            kept.append(i)
    return kept


def test_proposals():
    rng = np.random.default_rng(4)
    anchors, scores = drawn(rng, 40), rng.normal(size=[2, 40]).astype(np.float32)
    anchors[5] += [100, 0, 100, 0]  # outside of both images
    scores[:, 5] = 9
    sizes = np.array([[40, 40], [30, 35]], np.float32)
    zero = np.zeros([2, 40, 4], np.float32)
    boxes, valid = propose(*map(tf.constant, (scores, zero, anchors, sizes)), 30, 12, 0.3)
    for b in range(2):
        cut = np.minimum(anchors, [sizes[b, 1], sizes[b, 0]] * 2)
        first = np.argsort(-scores[b])[:30]
        first = np.array([i for i in first if i != 5 and (cut[i, 2:] > cut[i, :2]).all()])
        expected = cut[first[suppressed(cut[first], scores[b, first], 0.3)]][:12]
        assert valid[b].numpy().sum() == len(expected)
        np.testing.assert_allclose(
            boxes[b, : len(expected)], expected, atol=1e-4
        )  # through exp and log
    few, valid = propose(*map(tf.constant, (scores, zero, anchors, sizes)), 4, 12, 0.3)
    assert few.shape == (2, 12, 4) and (valid.numpy().sum(1) <= 3).all()


def test_objects_are_told_class_by_class():
    rng = np.random.default_rng(5)
    boxes = drawn(rng, 1, 20, 2)
    probabilities = rng.random([1, 20, 2], np.float32)
    probabilities[0, :6, 0] = 0.01
    found, scores, classes, count = best_objects(
        tf.constant(probabilities), tf.constant(boxes), 8, 0.3, 0.05
    )
    expected = []
    for c in range(2):
        ids = [i for i in range(20) if probabilities[0, i, c] > 0.05]
        kept = suppressed(boxes[0, ids, c], probabilities[0, ids, c], 0.3)
        expected += [(probabilities[0, ids[k], c], c, ids[k]) for k in kept]
    expected = sorted(expected, reverse=True)[:8]
    assert count == [8] == [len(expected)]
    np.testing.assert_array_equal(scores[0], [e[0] for e in expected])
    np.testing.assert_array_equal(classes[0], [e[1] for e in expected])
    np.testing.assert_array_equal(found[0], [boxes[0, i, c] for _, c, i in expected])
