"""Find the nearest training images of some images by their features."""

import fnmatch
import pathlib

import numpy as np
import tensorflow as tf

from pic_tf.data.sources.source import Source
from pic_tf.evals.knn import nearest
from pic_tf.look.neighbour_tables import NeighbourTable, draw_neighbours, write_neighbours
from pic_tf.look.session import open_session
from pic_tf.look.settings import MAX_IMAGES, RetrievalSettings


def retrieve(settings: RetrievalSettings) -> str:
    """Write down the nearest training images as `draw_nearest` does, and name the files too."""
    return f"{draw_nearest(settings)}: {settings.output}.png, {settings.output}.csv"


def draw_nearest(settings: RetrievalSettings) -> str:
    """Write down the nearest training images of some images, by the cosine of their features.

    Args:
      settings: as `check_retrieval` passes them.

    Returns:
      A line about what was found.

    Raises:
      ValueError: for a model, images or queries that cannot be used.
      OSError: where a file cannot be written.
    """
    tf.config.experimental.enable_op_determinism()
    session = open_session(settings)
    train = session.train
    asked = session.held_out or train
    among_themselves = asked is train
    check_neighbours(settings.neighbours, len(train))
    ids = choose_queries(asked, settings.queries, settings.count, settings.seed)
    if len(ids) * (settings.neighbours + 1) > MAX_IMAGES:
        raise ValueError(
            f"expected at most {MAX_IMAGES:,} images in a contact sheet, "
            "got more: name fewer --queries"
        )
    ids, features = session.features_of(asked, ids)
    bank, decoded = session.features()
    bank_ids = np.flatnonzero(decoded)
    bank = bank if decoded.all() else bank[decoded]
    k = settings.neighbours + among_themselves
    cosines, found = nearest(bank, features, k, "nearest images")
    neighbours = NeighbourTable(asked, ids, train, bank_ids[found], cosines)
    if among_themselves:
        neighbours = neighbours.without_themselves()
    write_neighbours(neighbours, pathlib.Path(settings.output + ".csv"))
    asked_for = f"{len(ids)} {'training' if among_themselves else 'held-out'} images"
    all_images = f"{len(bank):,} training images"
    title = f"{asked_for} and the nearest of {all_images}, by {session.name}"
    draw_neighbours(neighbours, title, pathlib.Path(settings.output + ".png"))
    text = f"{asked_for} with their {neighbours.found.shape[1]} nearest of {all_images}"
    share = neighbours.agreement()
    return text + ("" if share is None else f", {share:.1%} of the same class")


def choose_queries(source: Source, queries: str, count: int, seed: int) -> np.ndarray:
    """Choose the images to search for.

    Args:
      source: the images.
      queries: ids separated by commas; a pattern for the end of their paths; or "" for any.
      count: images to draw where they are not named one by one.
      seed: seed of the draw.

    Returns:
      int64 [n] ids, in the order of their names in `queries`, otherwise in rising order.

    Raises:
      ValueError: for an id that is not there, or a pattern that fits none.
    """
    parts = [part.strip() for part in queries.split(",")]
    if all(part.isascii() and part.isdecimal() for part in parts):
        unknown = next((part for part in parts if len(part) > 18 or int(part) >= len(source)), None)
        if unknown:
            raise ValueError(
                f"expected ids from 0 to {len(source) - 1} in --queries, those of {source.name}, "
                f"got {unknown}"
            )
        return np.array(list(dict.fromkeys(map(int, parts))), np.int64)
    ids = np.arange(len(source))
    if queries:
        patterns = (queries, f"*/{queries}")
        paths = [source.path(i) for i in range(len(source))]
        ids = ids[[any(fnmatch.fnmatchcase(path, p) for p in patterns) for path in paths]]
    if not len(ids):
        raise ValueError(
            f"expected ids or a pattern of names of {source.name} in --queries, got {queries!r}, "
            f"which fits none of {len(source):,}, such as {source.path(0)!r}"
        )
    return np.sort(np.random.default_rng(seed).choice(ids, min(count, len(ids)), replace=False))


def check_neighbours(neighbours: int, images: int) -> None:
    """Raise ValueError unless fewer neighbours are asked for than there are images to search."""
    if neighbours >= images:
        raise ValueError(
            f"expected --neighbours below the number of images to search ({images:,}), "
            f"got {neighbours}"
        )
