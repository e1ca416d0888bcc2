"""Name the files of an evaluation, and list all evaluations of a folder in one table."""

import hashlib
import json
import os
import pathlib
import re

import numpy as np

from pic_tf.data.sources.joined import names_in
from pic_tf.data.sources.named import short_name
from pic_tf.data.sources.source import Source
from pic_tf.evals.report import HEADER, row
from pic_tf.evals.settings import PIXELS, EvaluationSettings
from pic_tf.files.replaced import replaced
from pic_tf.serving.exported import Exported

TABLE = "results.md"
_MOST_BYTES = 120  # of the words in a name; file systems allow 255 in all


def data_name(settings: EvaluationSettings) -> str:
    """The name of the data sets in tables: the last part of a path, or tfds:NAME."""
    parts = [short_name(name) for name in (settings.dataset, settings.eval_dataset) if name]
    return ", held out ".join(parts).encode("utf-8", "replace").decode()  # as any file holds it


def result_name(
    settings: EvaluationSettings,
    exported: Exported | None,
    train: Source,
    held_out: Source,
    labelled: np.ndarray,
) -> str:
    """Name the files of an evaluation by protocol, solver, data sets and labels.

    What the words leave open, a hash tells: the place of the backbone and of the images, their
    names, and the images whose labels are used. Evaluations that differ in details only, like the
    number of epochs, have the name in common.

    Args:
      settings: resolved settings.
      exported: the backbone; None for raw pixels.
      train: labelled images to learn from.
      held_out: labelled images to classify.
      labelled: int64 [n] ids of the training images whose labels are used.

    Returns:
      A name without ending.
    """
    parts = [settings.protocol]
    if settings.protocol == "linear":
        parts.append(settings.solver)
    if exported is None:
        parts.append(PIXELS)
    parts.append(data_name(settings))
    if settings.label_ids:
        parts.append(pathlib.Path(settings.label_ids).stem)
    elif settings.label_fraction < 1:
        parts.append(f"{100 * settings.label_fraction:g}pct")
    words = re.sub(r"[^\w.]+", "-", "_".join(parts))
    words = words.encode()[:_MOST_BYTES].decode(errors="ignore")
    backbone = exported and os.path.relpath(exported.path, settings.output_dir)  # may move together
    places = [
        os.path.realpath(name) if os.path.exists(name) else name
        for names in (settings.dataset, settings.eval_dataset)
        for name in names_in(names)
    ]
    identity = [*parts, backbone, *places, train.fingerprint(), held_out.fingerprint()]
    digest = hashlib.sha256(json.dumps(identity).encode() + labelled.tobytes()).hexdigest()
    return f"{words}_{digest[:8]}"


def write_table(folder: pathlib.Path) -> None:
    """Write a table of all evaluations in a folder, of which several may end at once.

    Args:
      folder: folder of the results.

    Raises:
      OSError: where it cannot be written.
    """
    rows = None
    while rows != (rows := _rows(folder)):  # what another one has written meanwhile is not lost
        with replaced(folder / TABLE, encoding="utf-8") as file:
            file.write("\n".join([HEADER, *rows]) + "\n")


def _rows(folder: pathlib.Path) -> list[str]:
    return list(filter(None, map(_row, sorted(folder.glob("*.json")))))


def _row(path: pathlib.Path) -> str | None:
    """Row of a file of results; None for any other file."""
    try:
        return row(json.loads(path.read_text()))
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None
