"""Find duplicates and outliers among the training images by the instance weights of a run."""

import pathlib

import numpy as np
import tensorflow as tf

from pic_tf.data.sources.named import open_dataset
from pic_tf.evals.knn import nearest
from pic_tf.look.instance_rows import check_images, most_alike, open_rows
from pic_tf.look.nearest_images import check_neighbours
from pic_tf.look.neighbour_tables import (
    NeighbourTable,
    draw_neighbours,
    draw_pairs,
    write_neighbours,
    write_pairs,
)
from pic_tf.look.settings import RetrievalSettings

# Copies end at nearly the same row. Without any, the most alike of 1,500 digits (120 epochs) came
# to 0.990, those of 8,000 photographs (20 epochs) to 0.956.
_COPIES = 0.995


def find_duplicates_and_outliers(settings: RetrievalSettings) -> str:
    """Write down duplicates and outliers among the training images, by a run's instance weights.

    Args:
      settings: as `check_retrieval` passes them; `model` is a run with checkpoints.

    Returns:
      A line about the files.

    Raises:
      ValueError: for a run or images that cannot be used.
      OSError: where a file cannot be written.
    """
    tf.config.experimental.enable_op_determinism()
    rows, of_run, checkpoint = open_rows(settings.model)
    dataset = settings.dataset or of_run.dataset
    eval_dataset = "" if settings.dataset else of_run.eval_dataset
    split_folders = (settings if settings.dataset else of_run).split_folders
    limits = settings.max_broken, split_folders, of_run.pixels
    train, _ = open_dataset(dataset, eval_dataset, *limits)
    check_images(checkpoint, train)
    check_neighbours(settings.neighbours, len(rows))
    pairs, alike, best = most_alike(rows, settings.count, "pairs of instances")
    where = f"among {len(rows):,} instances at step {rows.step:,}"
    table = pathlib.Path(settings.output + "_duplicates.csv")
    write_pairs(train, rows.ids[pairs], alike, table)
    draw_pairs(train, rows.ids[pairs], alike, title_of(alike, where), table.with_suffix(".png"))
    lonely = np.argsort(best, kind="stable")[: settings.count]
    cosines, found = nearest(rows, rows[lonely], settings.neighbours + 1)
    outliers = NeighbourTable(train, rows.ids[lonely], train, rows.ids[found], cosines)
    outliers = outliers.without_themselves()
    write_neighbours(outliers, pathlib.Path(settings.output + "_outliers.csv"))
    title = f"Outliers {where}: images whose instance weights are far from all others"
    draw_neighbours(outliers, title, pathlib.Path(settings.output + "_outliers.png"))
    unvisited = rows.total - len(rows)
    left_out = f" ({unvisited:,} not visited so far left out)" if unvisited else ""
    return (
        f"{len(rows):,} instances at step {rows.step:,}{left_out}: {len(pairs)} pairs of cosine "
        f"{alike[-1]:.4f} to {alike[0]:.4f} in {settings.output}_duplicates.png and .csv, "
        f"{len(lonely)} images with no other nearer than {best[lonely[0]]:.4f} to "
        f"{best[lonely[-1]]:.4f} in {settings.output}_outliers.png and .csv"
    )


def title_of(alike: np.ndarray, where: str) -> str:
    """Title a picture of pairs: duplicates, or the most alike where some need not be copies.

    Args:
      alike: float64 [p], the pairs' cosines in falling order, p at least 1.
      where: words about the rows.

    Returns:
      The title, with the cosines.
    """
    copies = int((alike >= _COPIES).sum())
    name = "Duplicates" if copies == len(alike) else "Most alike"
    title = f"{name} {where}: pairs of instance weights with cosines of "
    title += f"{alike[-1]:.4f} to {alike[0]:.4f}"
    if copies < len(alike):
        title += f"; below {_COPIES} they need not be copies"
    return title
