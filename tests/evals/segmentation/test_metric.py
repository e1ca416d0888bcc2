"""Mean intersection over union against loops over pixels, and windows over images."""

import numpy as np

from pic_tf.evals.segmentation.metric import confusion, intersection_over_union
from pic_tf.evals.segmentation.sheet import palette
from pic_tf.evals.segmentation.windows import average_logits, starts


def test_intersection_over_union_counts_pixels():
    rng = np.random.default_rng(0)
    labels = rng.choice([0, 1, 2, 255], [2, 9, 7]).astype(np.uint8)
    told = rng.integers(0, 4, [2, 9, 7]).astype(np.uint8)  # class 3 is told, and never there
    matrix = sum(confusion(a, b, 5) for a, b in zip(labels, told))
    for i in range(5):
        inside = union = 0
        for truth, guess in zip(labels.ravel().tolist(), told.ravel().tolist()):
            if truth != 255:
                inside += truth == i and guess == i
                union += truth == i or guess == i
        found = intersection_over_union(matrix)[i]
        assert found == inside / union if union else np.isnan(found)
    assert intersection_over_union(matrix)[3] == 0  # told alone
    assert np.isnan(intersection_over_union(matrix)[4])  # neither there nor told
    assert matrix.sum() == (labels != 255).sum()


def test_windows_cover_every_pixel():
    assert starts(1024, 769, 513) == [0, 255]
    assert starts(2048, 769, 513) == [0, 513, 1026, 1279]
    assert starts(769, 769, 513) == starts(300, 769, 513) == [0]
    for extent in range(1, 40):
        found = starts(extent, 9, 5)
        covered = np.zeros(extent, int)
        for start in found:
            covered[start : start + 9] += 1
        assert covered.all() and found == sorted(set(found)) and max(found) + 9 >= extent


def test_logits_of_windows_are_averaged():
    """A pixel of several windows gets the mean of what they say; here each says its own sum."""
    image = np.random.default_rng(0).random([11, 6, 3]).astype(np.float32)
    seen = []

    def logits_of(x):
        seen.append(x.shape[:2])
        return np.stack([np.full(x.shape[:2], x.sum()), x[..., 0]], -1)

    found = average_logits(logits_of, image, 8, 5)
    sums = [image[y : y + 8].sum() for y in (0, 3)]
    assert seen == [(8, 6), (8, 6)]
    expected = np.array([sums[0]] * 3 + [(sums[0] + sums[1]) / 2] * 5 + [sums[1]] * 3)
    # float32 sums of 144 numbers.
    np.testing.assert_allclose(found[..., 0], np.repeat(expected[:, None], 6, 1), rtol=1e-6)
    np.testing.assert_allclose(found[..., 1], image[..., 0], rtol=1e-6)


def test_colours_are_those_of_the_devkit():
    first = [[0, 0, 0], [128, 0, 0], [0, 128, 0], [128, 128, 0], [0, 0, 128], [128, 0, 128]]
    assert palette()[:6].tolist() == first
    assert palette()[[20, 255]].tolist() == [[0, 64, 128], [224, 224, 192]]
