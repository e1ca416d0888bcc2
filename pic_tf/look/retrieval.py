"""Look at what a run takes for alike: nearest images in feature space, duplicates and outliers by the instance weights.

    python -m pic_tf.look.retrieval --model=RUN --dataset=FOLDER --output=retrieval
    python -m pic_tf.look.retrieval --model=RUN --dataset=FOLDER --queries='cat/*' --count=5 --neighbours=12
    python -m pic_tf.look.retrieval --model=RUN --instances --count=20

The first two draw held-out images, each with its nearest training images: retrieval.png, with all numbers in
retrieval.csv. A data set without held-out images is searched for its own. The third needs no features: pairs of
training images whose instance weights are nearly the same in retrieval_duplicates.png and .csv, and images whose
weights are far from all others in retrieval_outliers.png and .csv. Weights tell most where images have come often: at
the end of a run a copy is the nearest of its original, after a few epochs colours are.
"""

import dataclasses
import fnmatch
import functools
import pathlib

import numpy as np

import pic_tf.files.quiet  # noqa: F401
from pic_tf.data.sources.named import open_dataset
from pic_tf.data.sources.source import Source
from pic_tf.evals.knn import nearest
from pic_tf.files import command_line
from pic_tf.look.instance_rows import check_images, most_alike, open_rows
from pic_tf.look.neighbour_tables import Neighbours, draw_neighbours, draw_pairs, write_neighbours, write_pairs
from pic_tf.look.session import open_subject
from pic_tf.settings import flag_files
from pic_tf.settings.check import check_ranges
from pic_tf.settings.help import help_text
from pic_tf.settings.setting import setting

_MOST_IMAGES = 2000  # of a sheet


@dataclasses.dataclass(frozen=True)
class Settings:
    """Settings of a search; None means "as in pretraining"."""

    model: str = setting(
        "runs/pic", "a SavedModel that pic_tf exported, or the folder of a run; 'pixels' for raw pixels"
    )
    dataset: str = setting(
        "", "images in the forms of pic_tf.train, a folder with train and val inside for one; '' for those of the run"
    )
    eval_dataset: str = setting("", "images to take queries from, in the same forms; '' for those of --dataset")
    instances: bool = setting(
        False, "look for duplicates and outliers among the instance weights of the run's newest checkpoint instead"
    )
    queries: str = setting(
        "",
        "which images to search for: ids separated by commas, or a pattern for file names such as 'cat/*'; of more "
        "than --count that it fits, and where it is '', --count are drawn",
    )
    count: int = setting(8, "queries; with --instances pairs, and outliers")
    neighbours: int = setting(10, "nearest images of each")
    output: str = setting("retrieval", "what the names of the files begin with that are written")
    seed: int = setting(0, "seed of the draw of queries, >= 0", limit="x >= 0")
    image_size: int | None = setting(
        None, "side of a view in pixels; default that of pretraining (pixels: 32)", limit="1 <= x <= 8192"
    )
    eval_crop: float | None = setting(
        None, "side of the central crop, share of the short side; default that of pretraining", limit="0 < x <= 1"
    )
    max_broken: float = setting(
        0.01, "stop when more than this share of the images turns out to be broken", limit="0 <= x <= 1"
    )
    cache_dir: str = setting("", "folder of cached features; '' for pic_tf.evaluate's, beside the SavedModel")


def check(settings: Settings) -> None:
    """Check every setting that can be checked without model and data.

    Args:
      settings: the settings.

    Raises:
      ValueError: for a setting out of its range.
    """
    check_ranges(settings)
    for name in ("count", "neighbours"):
        if getattr(settings, name) < 1:
            raise ValueError(f"expected --{name} >= 1, got {getattr(settings, name)}")
    images = settings.count * (settings.neighbours + 1)
    if images > _MOST_IMAGES:
        raise ValueError(
            f"expected at most {_MOST_IMAGES:,} images in a sheet, got {images:,}: lower --count or --neighbours"
        )
    folder = pathlib.Path(settings.output).absolute().parent
    if not folder.is_dir() or settings.output.endswith("/") or not settings.output:
        raise ValueError(
            f"expected the beginning of file names in a folder that is there, got --output={settings.output!r}: name "
            "another"
        )


def retrieve(settings: Settings) -> str:
    """Find the nearest training images of some images by the cosine of their features, and write them down.

    Args:
      settings: as `check` passes them.

    Returns:
      What was found, in a line.

    Raises:
      ValueError: for a model, images or queries that cannot be used.
      OSError: where a file cannot be written.
    """
    subject = open_subject(settings)
    train = subject.train
    asked = subject.held_out or train
    among_themselves = asked is train
    _check_neighbours(settings.neighbours, len(train))
    ids = choose_queries(asked, settings.queries, settings.count, settings.seed)
    if len(ids) * (settings.neighbours + 1) > _MOST_IMAGES:
        raise ValueError(f"expected at most {_MOST_IMAGES:,} images in a sheet, got more: name fewer --queries")
    ids, features = subject.features_of(asked, ids)
    bank, decoded = subject.features()
    bank_ids = np.flatnonzero(decoded)
    bank = bank if decoded.all() else bank[decoded]
    cosines, found = nearest(bank, features, settings.neighbours + among_themselves, "nearest images")
    neighbours = Neighbours(asked, ids, train, bank_ids[found], cosines)
    if among_themselves:
        neighbours = neighbours.without_themselves()
    write_neighbours(neighbours, _file(settings, ".csv"))
    kind = "training" if among_themselves else "held-out"
    title = f"{len(ids)} {kind} images and the nearest of {len(bank):,} training images, by {subject.name}"
    draw_neighbours(neighbours, title, _file(settings, ".png"))
    text = f"{len(ids)} {kind} images with their {neighbours.found.shape[1]} nearest of {len(bank):,} training images"
    share = neighbours.agreement()
    text += "" if share is None else f", {share:.1%} of the same class"
    return f"{text}: {settings.output}.png, {settings.output}.csv"


def choose_queries(source: Source, queries: str, count: int, seed: int) -> np.ndarray:
    """Images to search for.

    Args:
      source: where to take them from.
      queries: ids separated by commas; a pattern for the end of their paths; or "" for any.
      count: how many to draw where they are not named one by one.
      seed: of the draw.

    Returns:
      int64 [n] ids, as they are named, otherwise in rising order.

    Raises:
      ValueError: for an id that is not there, or a pattern that fits none.
    """
    parts = [part.strip() for part in queries.split(",")]
    if all(part.isascii() and part.isdecimal() for part in parts):
        unknown = next((part for part in parts if len(part) > 18 or int(part) >= len(source)), None)
        if unknown:
            raise ValueError(
                f"expected ids from 0 to {len(source) - 1} in --queries, those of {source.name}, got {unknown}"
            )
        return np.array(list(dict.fromkeys(map(int, parts))), np.int64)
    ids = np.arange(len(source))
    if queries:
        patterns = (queries, f"*/{queries}")
        ids = ids[[any(fnmatch.fnmatchcase(source.path(i), pattern) for pattern in patterns) for i in range(len(ids))]]
    if not len(ids):
        raise ValueError(
            f"expected ids or a pattern of names of {source.name} in --queries, got {queries!r}, which fits none of "
            f"{len(source):,}, such as {source.path(0)!r}"
        )
    return np.sort(np.random.default_rng(seed).choice(ids, min(count, len(ids)), replace=False))


def look_at_instances(settings: Settings) -> str:
    """Find duplicates and outliers among the training images by the run's instance weights, and write them down.

    Args:
      settings: as `check` passes them; `model` is a run with checkpoints.

    Returns:
      What was found, in a line.

    Raises:
      ValueError: for a run or images that cannot be used.
      OSError: where a file cannot be written.
    """
    rows, of_run, path = open_rows(settings.model)
    dataset, eval_dataset = settings.dataset or of_run.dataset, "" if settings.dataset else of_run.eval_dataset
    train, _ = open_dataset(dataset, eval_dataset, settings.max_broken)
    check_images(path, train)
    _check_neighbours(settings.neighbours, len(rows))
    pairs, alike, best = most_alike(rows, settings.count, "pairs of instances")
    where = f"among {len(rows):,} instances at step {rows.step:,}"
    write_pairs(train, rows.ids[pairs], alike, _file(settings, "_duplicates.csv"))
    title = f"Duplicates {where}: pairs whose instance weights have the highest cosines"
    draw_pairs(train, rows.ids[pairs], alike, title, _file(settings, "_duplicates.png"))
    alone = np.argsort(best, kind="stable")[: settings.count]
    cosines, found = nearest(rows, rows[alone], settings.neighbours + 1)
    outliers = Neighbours(train, rows.ids[alone], train, rows.ids[found], cosines).without_themselves()
    write_neighbours(outliers, _file(settings, "_outliers.csv"))
    title = f"Outliers {where}: images whose instance weights are far from all others"
    draw_neighbours(outliers, title, _file(settings, "_outliers.png"))
    unvisited = rows.total - len(rows)
    left_out = f" ({unvisited:,} not visited so far left out)" if unvisited else ""
    return (
        f"{len(rows):,} instances at step {rows.step:,}{left_out}: {len(pairs)} pairs of cosine {alike[-1]:.4f} to "
        f"{alike[0]:.4f} in {settings.output}_duplicates.png and .csv, {len(alone)} images with no other nearer than "
        f"{best[alone[0]]:.4f} to {best[alone[-1]]:.4f} in {settings.output}_outliers.png and .csv"
    )


def _file(settings: Settings, end: str) -> pathlib.Path:
    return pathlib.Path(settings.output + end)


def _check_neighbours(neighbours: int, images: int) -> None:
    if neighbours >= images:
        raise ValueError(f"expected --neighbours below the number of images to search ({images:,}), got {neighbours}")


def main() -> None:
    import tensorflow as tf  # quietly by now

    settings = flag_files.from_flags(settings=Settings)
    check(settings)
    tf.config.experimental.enable_op_determinism()
    print(look_at_instances(settings) if settings.instances else retrieve(settings))


if __name__ == "__main__":
    flag_files.define_flags(settings=Settings)
    command_line.run(
        main,
        functools.partial(help_text, Settings),
        no_room="make room, or name another --output or --cache_dir",
        no_memory="lower --image_size or --count",
    )
