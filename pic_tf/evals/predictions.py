"""Classify images with a saved classifier, and write the answers down."""

import csv
import dataclasses
import pathlib

import numpy as np
from tqdm.auto import tqdm

from pic_tf.data.decode.broken import BrokenImages
from pic_tf.data.normalisation import unit_range
from pic_tf.data.pipeline import evaluation_batches, naming_unreadable
from pic_tf.data.sources.named import check_not_written, open_source
from pic_tf.files.progress import drawing_interval
from pic_tf.files.replaced import replaced
from pic_tf.serving.exported import pixels_of
from pic_tf.serving.saved_classifier import open_classifier
from pic_tf.settings.check import check_ranges
from pic_tf.settings.setting import setting

COLUMNS = ("name", "class", "probability")


@dataclasses.dataclass(frozen=True)
class PredictionSettings:
    """Predictions of a classifier."""

    model: str = setting(
        "", "Folder of a classifier that pic_tf.evaluate saved with --protocol=linear or finetune."
    )
    dataset: str = setting(
        "",
        "Images to classify: a folder, a folder that tools/pack.py made, or tfds:NAME:SPLIT. They "
        "need no labels.",
    )
    output: str = setting("predictions.csv", "CSV file to write: name, class, probability.")
    max_broken: float = setting(
        0.01,
        "Largest share of the images that may be broken before the command stops, 0 to 1. Those "
        "that are have empty cells.",
        limit="0 <= x <= 1",
    )


def predict(settings: PredictionSettings) -> str:
    """Write the most likely class of every image, and its probability, into a CSV file.

    Args:
      settings: the settings, as the command line has them.

    Returns:
      A line about the file.

    Raises:
      ValueError: for a setting, a classifier or images that cannot be used.
      OSError: where the file cannot be written.
    """
    check_ranges(settings)
    for name in ("model", "dataset"):
        if not getattr(settings, name):
            raise ValueError(f"expected --{name}, got none: name it")
    output = pathlib.Path(settings.output)
    if not output.name or output.is_dir() or not output.absolute().parent.is_dir():
        raise ValueError(
            "expected a CSV file in a folder that is there, "
            f"got --output={settings.output!r}: name another one"
        )
    check_not_written(output, settings.dataset)
    classifier, card = open_classifier(settings.model)
    pixels = pixels_of(card["backbone"])
    source = open_source(settings.dataset, (), settings.max_broken, pixels)
    ids, broken = np.arange(len(source)), BrokenImages(source)
    batches = evaluation_batches(
        source, ids, image_size=card["image_size"], crop_fraction=card["eval_crop"], broken=broken
    )
    best, probabilities = np.zeros(len(source), np.int64), np.zeros(len(source), np.float32)
    serve, first = classifier.signatures["serving_default"], 0
    bar = tqdm(total=len(source), unit=" images", mininterval=drawing_interval())
    with naming_unreadable(source, ids), bar:
        for views in batches:
            answers = serve(images=unit_range(views))["probabilities"].numpy()
            some = slice(first, first + len(views))
            best[some], probabilities[some] = answers.argmax(1), answers.max(1)
            first += len(views)
            bar.update(len(views))
    broken.report(settings.max_broken)
    fine = broken.decodable(ids)
    with replaced(output, newline="", encoding="utf-8", errors="surrogateescape") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(COLUMNS)
        for i in ids:
            answer = (card["class_names"][best[i]], f"{probabilities[i]:.6f}")
            rows.writerow([source.path(i), *(answer if fine[i] else ("", ""))])
    left_out = f", {len(broken)} broken ones without" if len(broken) else ""
    return f"{fine.sum():,} images with a class{left_out}: {settings.output}"
