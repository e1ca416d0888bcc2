"""Accuracy against the number of labels, for features that do not change."""

import csv
import pathlib
from collections.abc import Sequence

import matplotlib
import numpy as np

from pic_tf.evals.logistic import logistic_regression
from pic_tf.evals.some_images import Extracted
from pic_tf.evals.subset import balanced
from pic_tf.files.replaced import replaced

DRAWS = 5  # of each number of labels
_STRENGTH = 1.0  # C of the regression: a few labels leave none to choose it by
_COLOURS = ("tab:blue", "tab:orange", "tab:green")

# Name of the features -> number of labels -> accuracies float [draws].
Curves = dict[str, dict[int, np.ndarray]]


def label_curve(
    bank: Extracted, queries: Extracted, counts: Sequence[int]
) -> dict[int, np.ndarray]:
    """Classify by logistic regression on the features of so many labelled images.

    The labels are drawn five times, of each class as many as of any other, by the seeds 0 to 4:
    the same ones for all features. Scaling and regularisation are those of `logistic_regression`
    with C = 1, for all features and numbers of labels.

    Args:
      bank: images with labels to draw from.
      queries: images to classify.
      counts: numbers of labels; those of all labels or more are left out, and all labels follow.

    Returns:
      Number of labels -> accuracies float64 [5], or [1] with all labels.

    Source: regression on frozen features is the linear protocol of Zhang et al. 2016
    (https://arxiv.org/abs/1603.08511).
    """
    every = len(bank.labels)
    draws = {n: [balanced(bank.labels, n, seed) for seed in range(DRAWS)] for n in counts}
    draws = {n: ids for n, ids in draws.items() if n < every} | {every: [np.arange(every)]}
    return {
        n: np.array([_accuracy(bank.features[i], bank.labels[i], queries) for i in ids])
        for n, ids in draws.items()
    }


def _accuracy(features: np.ndarray, labels: np.ndarray, queries: Extracted) -> float:
    found = logistic_regression(features, labels, queries.features, 0, _STRENGTH)
    return float(np.mean(found.probabilities.argmax(1) == queries.labels))


def table(curves: Curves) -> list[str]:
    """Tell the curves in lines: a row for each kind of features, mean and standard deviation."""
    counts = next(iter(curves.values()))
    lines = [f"{'labels':15}" + "".join(f"{n:>15,}" for n in counts)]
    for name, of_counts in curves.items():
        cells = (
            f"{x.mean():.3f} ± {x.std():.3f}" if len(x) > 1 else f"{x[0]:.3f}"
            for x in of_counts.values()
        )
        lines.append(f"{name:15}" + "".join(f"{cell:>15}" for cell in cells))
    return lines


def write_curves(curves: Curves, path: pathlib.Path) -> None:
    """Write a CSV file, a line for each draw of labels."""
    lines = (
        (name, n, draw, repr(float(accuracy)))
        for name, of_counts in curves.items()
        for n, accuracies in of_counts.items()
        for draw, accuracy in enumerate(accuracies)
    )
    with replaced(path, newline="") as file:
        csv.writer(file).writerows([("features", "labels", "draw", "accuracy"), *lines])


def draw_curves(curves: Curves, title: str, path: pathlib.Path) -> None:
    """Draw a PNG file: mean accuracy against labels, bars of a standard deviation of the draws."""
    matplotlib.use("Agg")  # no screen needed
    import matplotlib.pyplot as plt

    figure, axis = plt.subplots(figsize=(6.4, 4.2), layout="constrained")
    for (name, of_counts), colour in zip(curves.items(), _COLOURS):
        counts, found = list(of_counts), list(of_counts.values())
        means, deviations = ([f(x) for x in found] for f in (np.mean, np.std))
        axis.errorbar(
            counts, means, deviations, marker="o", markersize=4, capsize=3, color=colour, label=name
        )
    axis.set_xscale("log")
    axis.set_xticks(counts, [f"{n:,}" for n in counts])
    axis.minorticks_off()
    axis.set_xlabel("labelled images")
    axis.set_ylabel("accuracy on held-out images")
    axis.set_title(title, fontsize="medium")
    axis.grid(alpha=0.3)
    axis.legend(loc="lower right")
    with replaced(path, "wb") as file:
        figure.savefig(file, format="png", dpi=120)
    plt.close(figure)
