"""Counted visits against brute force and the paper's properties."""

import numpy as np
import pytest

from pic_tf.data.order import SlidingWindow, epoch_order
from pic_tf.data.visit_statistics import visit_statistics


def brute_force_statistics(order, num_steps, first_step):
    """`visit_statistics`, view by view with a dictionary."""
    seen, distances, judged, soon = {}, [], 0, 0
    stream = [
        int(i)
        for step in range(first_step, first_step + num_steps)
        for i in order.instance_ids(step)
    ]
    horizon = 2 * order.window_size // order.num_replicas
    for view, instance in enumerate(stream):
        if instance in seen:
            distances.append(view - seen[instance])
        seen[instance] = view
        if view + horizon < len(stream):
            judged += 1
            soon += instance in stream[view + 1 : view + horizon + 1]
    return {
        "views": len(stream),
        "instances_visited": len(seen),
        "visits_per_instance": len(stream) / len(seen),
        "median_distance": sorted(distances)[len(distances) // 2] if distances else float("nan"),
        "majority_ratio": soon / judged if judged else float("nan"),
    }


@pytest.mark.parametrize(
    ("order", "steps", "first"),
    [
        (SlidingWindow(64, 4, 16, 4, seed=0), 101, 0),
        (SlidingWindow(61, 3, 24, 5, seed=2), 120, 17),
        (SlidingWindow(64, 4, 16, 4, 1, 1, 2), 90, 5),
        (epoch_order(30, 4, seed=3), 60, 0),
        (SlidingWindow(64, 4, 16, 4, seed=0), 2, 0),  # too short for a second visit: not a number
    ],
)
def test_visit_statistics_against_brute_force(order, steps, first):
    expected = brute_force_statistics(order, steps, first)
    got = visit_statistics(order, steps, first)
    assert set(got) == set(expected)
    for key in set(got) - {"median_distance"}:
        np.testing.assert_equal(got[key], expected[key])
    # The mean of the two middle distances where their number is even, of which the loop takes the
    # upper one.
    if np.isnan(expected["median_distance"]):
        assert np.isnan(got["median_distance"])
    else:
        assert abs(got["median_distance"] - expected["median_distance"]) <= 1


def test_visit_statistics_show_the_papers_properties():
    """Distance W for the majority, which is 1 - S / W of the visits (paper, Section 2.2)."""
    order = SlidingWindow(2048, 16, 256, 32, seed=0)
    result = visit_statistics(order, 2048 // 32 * order.steps_per_window)
    # 16384 views, 14336 of them by instances that come again at once: median and ratio are known to
    # a few per cent, as windows at the start and at the end of the count are cut.
    assert abs(result["median_distance"] - 256) < 0.05 * 256
    assert abs(result["majority_ratio"] - (1 - 32 / 256)) < 0.02
    assert result["instances_visited"] == 2048 and result["visits_per_instance"] == 8
