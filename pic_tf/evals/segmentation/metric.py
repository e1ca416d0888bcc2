"""Intersection over union of classes of pixels."""

import numpy as np

from pic_tf.evals.segmentation.masks import IGNORED


def confusion(labels: np.ndarray, told: np.ndarray, classes: int) -> np.ndarray:
    """Count the pixels of every class that were taken for every class.

    Args:
      labels: uint8 [H, W], classes, or `IGNORED` for pixels that do not count.
      told: integer [H, W], classes.
      classes: C.

    Returns:
      int64 [C, C]; n[i, j] pixels of class i were taken for class j.
    """
    counts = labels != IGNORED
    pairs = classes * labels[counts].astype(np.int64) + told[counts]
    return np.bincount(pairs, minlength=classes**2).reshape(classes, classes)


def intersection_over_union(matrix: np.ndarray) -> np.ndarray:
    """Compare the pixels of a class with those that were taken for it.

    IoU_i = n_ii / (sum_j n_ij + sum_j n_ji - n_ii).

    Args:
      matrix: int64 [C, C], n, as of `confusion`, summed over images.

    Returns:
      float64 [C]; NaN for a class that neither was there nor was told.

    Source: Everingham et al. 2015 (the VOC challenge), Section 4.2.3.
    """
    right = np.diag(matrix)
    union = matrix.sum(0) + matrix.sum(1) - right
    with np.errstate(invalid="ignore"):
        return right / np.where(union, union, np.nan)
