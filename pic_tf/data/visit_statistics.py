"""Measure an order of visits, visit by visit."""

import numpy as np
import tensorflow as tf

from pic_tf.data.order import SlidingWindow


def visit_statistics(order: SlidingWindow, num_steps: int, first_step: int = 0) -> dict[str, float]:
    """Count visits, distances between visits and the majority ratio by brute force.

    Args:
      order: the order.
      num_steps: number of steps to count; at least two windows for distances to exist.
      first_step: first step to count.

    Returns:
      views: number of visits counted.
      instances_visited: number of different instances among them.
      visits_per_instance: mean over the instances visited.
      median_distance: views between two visits of the same instance (W for the majority).
      majority_ratio: share of all visits whose instance comes again within 2 W views, which
        tends to 1 - S / W; visits in the last 2 W views, whose future is not seen, are not counted.

    Source: paper, Section 2.2 (distance D, majority ratio gamma).
    """
    ids_of = tf.function(order.instance_ids, autograph=False)
    visits = np.concatenate(
        [ids_of(tf.constant(t, tf.int64)) for t in range(first_step, first_step + num_steps)]
    )
    by_instance = np.lexsort((np.arange(len(visits)), visits))  # view numbers, grouped by instance
    same = visits[by_instance][1:] == visits[by_instance][:-1]
    distance = np.diff(by_instance)[same]
    past = by_instance[:-1][same]  # the earlier view of each pair
    horizon = 2 * order.window_size // order.num_replicas
    judged = np.count_nonzero(np.arange(len(visits)) < len(visits) - horizon)
    soon = np.count_nonzero((distance <= horizon) & (past < len(visits) - horizon))
    instances = len(np.unique(visits))
    return {
        "views": len(visits),
        "instances_visited": instances,
        "visits_per_instance": len(visits) / instances,
        "median_distance": float(np.median(distance)) if len(distance) else float("nan"),
        "majority_ratio": soon / judged if judged else float("nan"),
    }
