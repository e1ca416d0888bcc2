"""Compare images by the instance weights of a run, to find duplicates and outliers."""

import dataclasses
import json
import pathlib
import sys

import numpy as np
import tensorflow as tf
from tqdm.auto import tqdm

from pic_tf.data.sources.source import Source
from pic_tf.files.progress import drawing_interval
from pic_tf.runs import checkpoint_files, open_data, run_folder, state
from pic_tf.runs.run_folder import CHECKPOINTS
from pic_tf.settings import flag_files
from pic_tf.settings.config import Config

_BLOCK = 2048  # rows compared at once: 16 MiB of cosines, whatever the number of images


@dataclasses.dataclass(frozen=True, eq=False)
class InstanceRows:
    """Rows of all visited instances, as of a step, in rising order of the ids.

    Rows in the ring are those of the step. One that rests is caught up with what it missed,
    w <- a w + b u, as if it came back now (paper, Eq. 3).

    Attributes:
      step: updates applied.
      ids: int64 [n], the instances; `rows[part]` are rows of ids[part], float32 [m, D] of length 1.
      weights: float32 [N, D], w, mapped from a file.
      momentum: float32 [N, D], u, mapped from a file.
      factors: float64 [n, 2], (a, b) of each row.
      total: N.
    """

    step: int
    ids: np.ndarray
    weights: np.ndarray
    momentum: np.ndarray
    factors: np.ndarray
    total: int

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, part: slice | np.ndarray) -> np.ndarray:
        return self.exact(part).astype(np.float32)

    def exact(self, part: slice | np.ndarray) -> np.ndarray:
        """float64 [m, D] rows of length 1; a row of zeros stays one."""
        ids, (a, b) = self.ids[part], self.factors[part].T[:, :, None]
        rows = a * self.weights[ids].astype(np.float64) + b * self.momentum[ids]
        # Through the largest number of a row: the squares of one that rested for long could be 0.
        largest = np.abs(rows).max(1, keepdims=True)
        rows /= np.where(largest > 0, largest, 1.0)
        return rows / np.where(largest > 0, np.linalg.norm(rows, axis=1, keepdims=True), 1.0)


def open_rows(run_dir: str) -> tuple[InstanceRows, Config, pathlib.Path]:
    """Open the instance rows of a run's newest good checkpoint.

    Never visited ones are left out: their stamp is 0, and they are not in the ring. With all
    instances in the soft-max every row is in the ring, and moves from the first step on.

    Args:
      run_dir: output folder of the run.

    Returns:
      (rows, the run's configuration, folder of the checkpoint).

    Raises:
      ValueError: where there is no run or checkpoint, or one with fewer than two visited instances.
    """
    path, damaged = checkpoint_files.newest(pathlib.Path(run_dir) / CHECKPOINTS)
    if path is None:
        got = f"{len(damaged)} damaged ones" if damaged else "none"
        raise ValueError(
            f"expected a training run with checkpoints at {run_dir!r}, got {got}: name the output "
            "folder of a run that has reached --checkpoint_every"
        )
    for bad, reason in damaged.items():
        print(f"damaged checkpoint {bad} passed over: {reason}", file=sys.stderr)
    config = flag_files.from_flagfile(str(path / run_folder.FLAGS_FILE))
    if not config.has_rows:
        raise ValueError(
            f"expected a run with a row for each image in {run_dir!r}, got one of "
            f"--method={config.method}"
        )
    if checkpoint_files.has_table(path, state.INSTANCES):
        raise ValueError(
            f"expected rows of all images in {str(path)!r}, got those of a window: with "
            "--instance_store=disk the others are not in the checkpoint"
        )
    tables = ("weights", "momentum", "stamp", "ring")
    weights, momentum, stamp, ring = (checkpoint_files.read_table(path, name) for name in tables)
    visited = np.asarray(stamp) > 0
    visited[ring[ring >= 0]] = True
    ids = np.flatnonzero(visited)
    if len(ids) < 2:
        raise ValueError(
            f"expected at least 2 visited images in {str(path)!r}, got {len(ids)}: train for longer"
        )
    step = checkpoint_files.step_of(path)
    factors = np.tile([1.0, 0.0], [len(ids), 1])
    if config.weight_correction:
        factors = _factors(path, np.asarray(stamp)[ids], step)
    return InstanceRows(step, ids, weights, momentum, factors, len(weights)), config, path


def _factors(path: pathlib.Path, since: np.ndarray, step: int) -> np.ndarray:
    """float64 [n, 2], the first row of M_{step-1} ... M_since, of int64 [n] stamps."""
    history = state.history_of(path)
    stamps, which = np.unique(since, return_inverse=True)
    return history.between(tf.constant(stamps), tf.constant(step, tf.int64)).numpy()[which, 0]


def check_images(path: pathlib.Path, train: Source) -> None:
    """Check that the rows of a checkpoint are those of the images.

    Args:
      path: folder of the checkpoint.
      train: training images.

    Raises:
      ValueError: where they are not.
    """
    images = json.loads(checkpoint_files.read_text(path, run_folder.IMAGES_FILE))
    if images != open_data.identity(train):
        raise ValueError(
            f"expected the {images['count']:,} images whose rows are in {str(path)!r}, "
            f"got {len(train):,} of which some have other names or places: "
            "name the run's own with --dataset"
        )


def most_alike(
    rows: InstanceRows, count: int, progress: str = ""
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Compare every row with every other one, in blocks; memory grows as their number.

    Args:
      rows: n rows; anything with `len`, `rows[part]` float32 [m, D] and `rows.exact(part)` float64
        [m, D], of length 1.
      count: pairs to find, at most.
      progress: title of a progress bar; "" for none.

    Returns:
      (the pairs of highest cosine, int64 [p, 2] positions (i, j) with i < j, in falling order of
      the cosine, the first ones first among equals; their cosines float64 [p]; float32 [n], each
      row's highest cosine with another one).
    """
    starts = range(0, len(rows), _BLOCK)
    best = np.full(len(rows), -np.inf, np.float32)
    pairs, cosines = np.zeros([0, 2], np.int64), np.zeros(0, np.float32)
    options = {"disable": not progress, "mininterval": drawing_interval()}
    with tqdm(total=len(starts) * (len(starts) + 1) // 2, desc=progress, **options) as bar:
        for first in starts:
            block = rows[first : first + _BLOCK]
            for second in range(first, len(rows), _BLOCK):
                other = block if second == first else rows[second : second + _BLOCK]
                found = block @ other.T
                if second == first:  # without each row itself, and each pair once
                    found[np.tri(len(block), dtype=bool)] = -np.inf
                for start, highest in ((first, found.max(1)), (second, found.max(0))):
                    part = best[start : start + len(highest)]
                    np.maximum(part, highest, out=part)
                least = cosines[-1] if len(cosines) == count else np.float32(-2)
                i, j = _highest(found, count, least)
                pairs = np.concatenate([pairs, np.stack([first + i, second + j], axis=1)])
                cosines = np.concatenate([cosines, found[i, j]])
                kept = np.lexsort([*pairs.T[::-1], -cosines])[:count]
                pairs, cosines = pairs[kept], cosines[kept]
                bar.update()
    exact = np.sum(rows.exact(pairs[:, 0]) * rows.exact(pairs[:, 1]), axis=1)
    exact = exact.round(12)  # equals stay equals
    kept = np.lexsort([*pairs.T[::-1], -exact])
    return pairs[kept], exact[kept], best


def _highest(found: np.ndarray, count: int, least: np.float32) -> tuple[np.ndarray, np.ndarray]:
    """Positions of the `count` highest values and of equals of the last, none under `least`."""
    some = np.flatnonzero(found.max(1) >= least)  # mostly few: not all values are compared again
    i, j = np.nonzero(found[some] >= least)
    i = some[i]
    if len(i) > count:
        values = found[i, j]
        high = values >= np.partition(values, -count)[-count]
        i, j = i[high], j[high]
    return i, j
