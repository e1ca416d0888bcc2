"""Choose images that cover all others, by k-centre greedy."""

import numpy as np
from tqdm.auto import tqdm

from pic_tf.files.progress import drawing_interval

_BLOCK = 65536  # rows in memory at once


def k_centres(rows: np.ndarray, count: int, progress: str = "") -> tuple[np.ndarray, np.ndarray]:
    """Choose rows one after another, each the farthest from those chosen before.

        i_1 = argmax_i cos(x_i, mean of x / |x|),   i_n = argmax_i min_{j < n} |u_i - u_{i_j}|,
        u = x / |x|

    The largest distance that remains, max_i min_j |u_i - u_{i_j}|, is at most twice the smallest
    possible one for as many rows. A choice of fewer is the beginning of one of more. Every choice
    reads all rows once.

    Args:
      rows: float32 [n, C], which may be mapped from a file; rows with NaN are left out.
      count: rows to choose, at most those without NaN.
      progress: title of a progress bar; "" for none.

    Returns:
      (int64 [count] rows in the order of their choice, the first one among equals; float64 [count]
      the largest distance that remains behind each choice, between 0 and 2).

    Source: Gonzalez 1985 (https://doi.org/10.1016/0304-3975(85)90224-5); for images Sener and
    Savarese 2018 (https://arxiv.org/abs/1708.00489).
    """
    mean = sum(np.nansum(_unit(rows, first, _BLOCK), axis=0) for first in _starts(rows))
    # The largest cosine with the mean is the smallest distance from it.
    towards = _cosines(rows, mean)
    chosen, remaining = [int(np.nanargmax(towards))], []
    nearest = np.full(len(rows), -np.inf)  # largest cosine with a chosen row
    nearest[np.isnan(towards)] = np.inf
    options = {"disable": not progress, "mininterval": drawing_interval(), "unit": " images"}
    for _ in tqdm(range(count), progress, **options):
        centre = _unit(rows, chosen[-1], 1)[0]
        nearest = np.fmax(nearest, _cosines(rows, centre))
        nearest[chosen[-1]] = np.inf  # by rounding it may be at some distance from itself
        chosen.append(int(nearest.argmin()))
        remaining.append(np.sqrt(max(2 - 2 * min(nearest[chosen[-1]], 1.0), 0.0)))
    return np.array(chosen[:count], np.int64), np.array(remaining)


def _cosines(rows: np.ndarray, direction: np.ndarray) -> np.ndarray:
    """float64 [n], u . direction of all rows; NaN for a row with NaN."""
    return np.concatenate([_unit(rows, first, _BLOCK) @ direction for first in _starts(rows)])


def _starts(rows: np.ndarray) -> range:
    return range(0, len(rows), _BLOCK)


def _unit(rows: np.ndarray, first: int, count: int) -> np.ndarray:
    """float64 [m, C], some rows brought to length 1; a row of zeros stays one."""
    some = rows[first : first + count].astype(np.float64)
    length = np.linalg.norm(some, axis=1, keepdims=True)
    return some / np.where(length > 0, length, 1.0)
