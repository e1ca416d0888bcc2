"""Draw the order in which images are visited."""

import pathlib

import numpy as np

from pic_tf.data.order import SlidingWindow
from pic_tf.look.figures import save_figure


def visits(order: SlidingWindow, steps: int) -> np.ndarray:
    """List the positions in the permutation of each step's images: int64 [steps, B]."""
    return np.stack([order.positions(step).numpy() % order.num_instances for step in range(steps)])


def save_order(orders: dict[str, np.ndarray], path: pathlib.Path) -> None:
    """Draw `visits` of several orders by name, position against step."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(
        1, len(orders), figsize=(5 * len(orders), 3.8), layout="constrained", sharey=True
    )
    for axis, (name, positions) in zip(axes, orders.items()):
        steps = np.repeat(np.arange(len(positions)), positions.shape[1])
        axis.scatter(steps, positions.ravel(), s=1, linewidths=0, color="tab:blue", alpha=0.6)
        axis.set_title(name, fontsize=10)
        axis.set_xlabel("step")
    axes[0].set_ylabel("position in the permutation")
    save_figure(figure, path)
