"""Find pairs of rows that are nearly the same."""

import numpy as np
from tqdm.auto import tqdm

from pic_tf.files.progress import drawing_interval

MOST = 1_000_000  # pairs
_BLOCK = 2048  # rows compared at once: 16 MiB of cosines
# Of a cosine in float32: that of two equal rows may come out below 1.
_ROUNDING = 1e-6


def pairs_above(
    rows: np.ndarray, least: float, progress: str = ""
) -> tuple[np.ndarray, np.ndarray]:
    """Find all pairs of rows whose cosine is at least `least`; every row meets every other one.

    Args:
      rows: float32 [n, C], which may be mapped from a file; rows with NaN are in no pair.
      least: cosine from which on a pair counts, but for the rounding of float32.
      progress: title of a progress bar; "" for none.

    Returns:
      (int64 [p, 2] rows (i, j) with i < j, in falling order of the cosine, the first ones first
      among equals; float32 [p] cosines).

    Raises:
      ValueError: for more than a million pairs.
    """
    starts, count = range(0, len(rows), _BLOCK), 0
    found: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
    options = {"disable": not progress, "mininterval": drawing_interval()}
    with tqdm(total=len(starts) * (len(starts) + 1) // 2, desc=progress, **options) as bar:
        for first in starts:
            block = _unit(rows[first : first + _BLOCK])
            for second in range(first, len(rows), _BLOCK):
                cosines = block @ _unit(rows[second : second + _BLOCK]).T
                if second == first:
                    cosines = np.where(np.tri(len(block), dtype=bool), np.nan, cosines)
                i, j = np.nonzero(cosines >= least - _ROUNDING)  # NaN is not
                found.append((first + i, second + j, cosines[i, j]))
                count += len(i)
                if count > MOST:
                    raise ValueError(
                        f"expected at most {MOST:,} pairs of images with a cosine of at least "
                        f"{least} (--duplicates), got more: raise it"
                    )
                bar.update()
    i, j, cosines = (np.concatenate(parts) for parts in zip(*found))
    order = np.lexsort([j, i, -cosines])
    return np.stack([i, j], axis=1)[order], cosines[order]


def _unit(rows: np.ndarray) -> np.ndarray:
    """float32 [m, C], rows brought to length 1; a row of zeros stays one."""
    length = np.linalg.norm(rows.astype(np.float64), axis=1, keepdims=True)
    return (rows / np.where(length > 0, length, 1.0)).astype(np.float32)
