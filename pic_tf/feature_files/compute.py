"""Compute the features of all images into a file, in bounded memory, and go on after a kill."""

import contextlib
import pathlib
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf
from tqdm.auto import tqdm

from pic_tf.data.decode.broken import BrokenImages
from pic_tf.data.pipeline import naming_unreadable
from pic_tf.data.sources.named import check_not_written
from pic_tf.evals.features import image_features, normalisation_of_pixels
from pic_tf.feature_files.inputs import Inputs, open_inputs
from pic_tf.feature_files.lists import write_diverse, write_duplicates
from pic_tf.feature_files.settings import EmbedSettings, check_embed
from pic_tf.feature_files.table import (
    Part,
    files_of,
    open_features,
    read_card,
    write_npy,
    write_parquet,
)
from pic_tf.feature_files.unfinished import Unfinished, folder_of, is_unfinished
from pic_tf.feature_files.views import VIEWS, averaged, view_batches
from pic_tf.files.lock import exclusive
from pic_tf.files.progress import drawing_interval


def embed(settings: EmbedSettings) -> str:
    """Write the features of all images into a file; one that has them already stays.

    Args:
      settings: the settings, as the command line has them.

    Returns:
      A line about each file.

    Raises:
      ValueError: for a setting, a backbone or images that cannot be used.
      OSError: where the file cannot be written.
    """
    check_embed(settings)
    tf.config.experimental.enable_op_determinism()
    output = pathlib.Path(settings.output)
    older = _card_in_place(output)
    inputs = open_inputs(settings)
    if settings.diverse > len(inputs.sources["train"]):
        raise ValueError(
            f"expected --diverse of at most the number of training images "
            f"({len(inputs.sources['train']):,}), got {settings.diverse:,}"
        )
    lists = [output.with_name(f"{output.stem}_{name}.csv") for name in ("diverse", "duplicates")]
    for path in lists:
        check_not_written(path, inputs.card["dataset"], inputs.card["eval_dataset"])
    card = older
    if older is None or older["key"] != inputs.card["key"]:
        card = _write(inputs, output)
    without = f", {card['broken']:,} broken ones without" if card["broken"] else ""
    lines = [f"features of {len(inputs) - card['broken']:,} images{without}: {output}"]
    if settings.diverse or settings.duplicates:
        file, sources = open_features(output), inputs.sources
        if settings.diverse:
            lines.append(write_diverse(file, sources["train"], settings.diverse, lists[0]))
        if settings.duplicates:
            lines.append(write_duplicates(file, sources, settings.duplicates, lists[1]))
    return "\n".join(lines)


def _card_in_place(output: pathlib.Path) -> dict[str, Any] | None:
    """Read the card of an older file at its place; None where there is none."""
    if is_unfinished(output):
        return None
    there = [path for path in files_of(output) if path.exists()]
    if not there:
        return None
    try:
        card = read_card(output)
    except ValueError as error:
        raise ValueError(
            f"expected a new file or an older one of pic_tf.embed at {str(there[0])!r}, got "
            "another one: name another --output"
        ) from error
    return card if output.exists() else None


def _write(inputs: Inputs, output: pathlib.Path) -> dict[str, Any]:
    folder = folder_of(output)
    folder.mkdir(exist_ok=True)
    with exclusive(folder / "lock"):
        unfinished = Unfinished(folder, inputs.card["key"], len(inputs))
        parts = [
            Part(name, source, BrokenImages(source, folder / f"broken_{name}.csv"))
            for name, source in inputs.sources.items()
        ]
        _compute(inputs, unfinished, parts)
        first = 0
        for part in parts:
            unfinished.rows[[first + i for i in part.broken.reasons]] = np.nan
            first += len(part.source)
        broken = sum(len(part.broken) for part in parts)
        card = inputs.card | {"feature_dim": unfinished.rows.shape[1], "broken": broken}
        if output.suffix == ".parquet":
            write_parquet(output, unfinished.rows, parts, card)
        else:
            unfinished.save()
            write_npy(output, unfinished.file, parts, card)
        unfinished.let_go()
        for path in folder.glob("*.*"):
            path.unlink()
    # Open files, as the lock was, a network's disk keeps under another name.
    (folder / "lock").unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        folder.rmdir()
    return card


def _compute(inputs: Inputs, unfinished: Unfinished, parts: list[Part]) -> None:
    """Compute the rows that are missing, of each part in turn."""
    settings = inputs.settings
    views = settings.image_size, settings.max_broken
    of_pixels = normalisation_of_pixels(inputs.network, parts[0].source, *views)
    network = image_features(inputs.network, of_pixels)
    options = {"unit": " images", "mininterval": drawing_interval()}
    with tqdm(total=len(inputs), initial=unfinished.done, desc="features", **options) as bar:
        first = 0
        for part in parts:
            ids = np.arange(max(unfinished.done - first, 0), len(part.source))
            first += len(part.source)
            with naming_unreadable(part.source, ids):
                _compute_part(inputs, unfinished, part, ids, network, bar)


def _compute_part(
    inputs: Inputs,
    unfinished: Unfinished,
    part: Part,
    ids: np.ndarray,
    network: Callable[[tf.Tensor], np.ndarray],
    bar: tqdm,
) -> None:
    settings = inputs.settings
    corners, mirrored = VIEWS[settings.views]
    batches = view_batches(
        part.source,
        ids,
        image_size=settings.image_size,
        fraction=settings.eval_crop,
        corners=corners,
        batch_size=settings.batch_size,
        broken=part.broken,
    )
    for views in batches:
        unfinished.append(averaged(network, views, mirrored))
        bar.update(len(views))
        if unfinished.due():
            part.broken.report(settings.max_broken)
            unfinished.save()
    part.broken.report(settings.max_broken)
    unfinished.save()
