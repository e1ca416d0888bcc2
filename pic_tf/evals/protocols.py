"""Run an evaluation from its settings to its report."""

import dataclasses
import pathlib
import sys
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf
import tf_keras as keras
from tqdm.auto import tqdm

from pic_tf.data.sources.named import open_dataset
from pic_tf.data.sources.pixel_format import PixelFormat
from pic_tf.data.sources.shared import in_both
from pic_tf.data.sources.source import Source
from pic_tf.evals.belonging import check_protocol
from pic_tf.evals.detection import protocol as detection
from pic_tf.evals.features import cached_features, normalisation_of_pixels
from pic_tf.evals.knn import knn_predictions, most_likely
from pic_tf.evals.logistic import logistic_regression
from pic_tf.evals.report import Report, report, write_report
from pic_tf.evals.result_files import data_name, result_name, write_table
from pic_tf.evals.run_behind import run_behind
from pic_tf.evals.segmentation import protocol as segmentation
from pic_tf.evals.settings import PIXELS, EvaluationSettings, resolve
from pic_tf.evals.subset import Subset, listed, stratified
from pic_tf.evals.supervised import Training, train_classifier
from pic_tf.evals.transfer.report import TransferReport
from pic_tf.replicas.devices import set_up_tensorflow
from pic_tf.serving.exported import Exported, open_exported
from pic_tf.serving.saved_classifier import LinearClassifier, save_classifier

_FEATURES = "features"  # folder of the cache


def run(settings: EvaluationSettings) -> tuple[Report | TransferReport, str]:
    """Evaluate as settings say, from the backbone's folder to the files of the report.

    Args:
      settings: the settings, as the command line has them.

    Returns:
      (the report, the folder with its files).

    Raises:
      ValueError: for a setting, a backbone or images that cannot be used.
      FloatingPointError: where a loss is not finite.
      OSError: where the output folder cannot be written.
    """
    check_protocol(settings)
    if settings.protocol == "voc_detection":
        return detection.run(settings)
    if settings.protocol == "segmentation":
        return segmentation.run(settings)
    exported = None if settings.model == PIXELS else open_exported(settings.model)
    settings = resolve(settings, exported)
    strategy = set_up_tensorflow(
        settings.strategy, settings.replicas, settings.intra_op_threads, deterministic=True
    )
    keras.utils.set_random_seed(settings.seed)
    settings = _with_images(settings)
    images = open_labelled(settings, exported.pixels if exported else None)
    return evaluate(settings, exported, *images, strategy), settings.output_dir


def _with_images(settings: EvaluationSettings) -> EvaluationSettings:
    """Take the labelled images of the run where no flag names others."""
    if settings.dataset:
        return settings
    of_run = run_behind(settings.model)
    return dataclasses.replace(
        settings,
        dataset=of_run.labelled_dataset or of_run.dataset,
        eval_dataset=settings.eval_dataset or of_run.eval_dataset,
        split_folders=of_run.split_folders,
    )


def open_labelled(
    settings: EvaluationSettings, pixels: PixelFormat | None = None
) -> tuple[Source, Source]:
    """Open the labelled images to learn from and those to classify.

    Args:
      settings: the settings.
      pixels: format that they must have; None as of `open_source`.

    Returns:
      (training source, held-out source), with labels.

    Raises:
      ValueError: for images that cannot be used, have no labels, or are in both.
    """
    train, held_out = open_dataset(
        settings.dataset, settings.eval_dataset, settings.max_broken, settings.split_folders, pixels
    )
    if train.labels is None:
        why = f" ({train.unlabelled})" if train.unlabelled else ""
        raise ValueError(
            f"expected labelled images for --protocol={settings.protocol}, got none in "
            f"{settings.dataset!r}: put them into one folder a class{why}"
        )
    if held_out is None or held_out.labels is None:
        raise ValueError(
            f"expected labelled held-out images, got none for {settings.dataset!r}: "
            "put train and val inside it, or name --eval_dataset"
        )
    if shared := in_both(train, held_out):
        raise ValueError(
            "expected held-out images that are not among those to learn from, got "
            f"{len(shared):,} in both, such as {shared[0]!r}, which would find itself: name others "
            "with --eval_dataset"
        )
    return train, held_out


def evaluate(
    settings: EvaluationSettings,
    exported: Exported | None,
    train: Source,
    held_out: Source,
    strategy: tf.distribute.Strategy,
) -> Report:
    """Judge a backbone by a protocol, and write the report.

    Args:
      settings: resolved settings.
      exported: the backbone; None for raw pixels.
      train: labelled images to learn from.
      held_out: labelled images to classify.
      strategy: devices for training.

    Returns:
      The report; its files are in the output folder.

    Raises:
      ValueError: for images that cannot be used.
      FloatingPointError: where a loss is not finite.
      OSError: where the output folder cannot be written.
    """
    labelled = _labelled(settings, train)
    name = result_name(settings, exported, train, held_out, labelled)
    protocol = {"knn": _knn, "linear": _linear, "finetune": _train}[settings.protocol]
    outcome = protocol(settings, exported, train, held_out, labelled, strategy, name)
    title, share = outcome.title, len(labelled) / len(train)
    found = report(
        title if len(labelled) == len(train) else f"{title}, {share:.2g} of the labels",
        exported.name if exported else "raw pixels",
        data_name(settings),
        outcome.images,
        outcome.predictions[outcome.decodable],
        held_out.labels[outcome.decodable],
        train.class_names,
        {"model": settings.model, **outcome.more, "flags": dataclasses.asdict(settings)},
    )
    output = pathlib.Path(settings.output_dir)
    write_report(found, output, name)
    write_table(output)
    if outcome.classifier:
        place = output / f"{name}_classifier"
        save_classifier(
            outcome.classifier,
            place,
            exported=exported,
            class_names=train.class_names,
            image_size=settings.image_size,
            eval_crop=settings.eval_crop,
            figures=found.figures(),
        )
        tqdm.write(f"classifier in {place}", file=sys.stderr)
    if outcome.state:  # at last: a full disk until here costs the last epoch alone
        outcome.state.unlink(missing_ok=True)
    return found


class _Outcome(NamedTuple):
    """Outcome of a protocol.

    Attributes:
      title: name of the protocol in the table.
      predictions: integer [n, m] most likely classes of the held-out images, the first first.
      decodable: bool [n], true for held-out images that could be decoded.
      images: number of training images that were learned from.
      more: entries of the report; anything JSON can hold.
      classifier: what answered, if it is one on features of images.
      state: file of a training's state.
    """

    title: str
    predictions: np.ndarray
    decodable: np.ndarray
    images: int
    more: dict[str, Any]
    classifier: LinearClassifier | None = None
    state: pathlib.Path | None = None


def _labelled(settings: EvaluationSettings, train: Source) -> np.ndarray:
    """Choose the training images whose labels may be used: int64 ids."""
    if settings.label_ids:
        return listed(settings.label_ids, train)
    return stratified(train.labels, settings.label_fraction, settings.seed)


def _knn(
    settings: EvaluationSettings,
    exported: Exported | None,
    train: Source,
    held_out: Source,
    labelled: np.ndarray,
    strategy: tf.distribute.Strategy,
    name: str,
) -> _Outcome:
    (bank, known), (queries, decodable) = _features(settings, exported, train, held_out)
    labelled = labelled[known[labelled]]
    predictions = knn_predictions(
        bank if len(labelled) == len(train) else bank[labelled],
        train.labels[labelled],
        queries,
        len(train.class_names),
        settings.knn_k,
        settings.knn_temperature,
        "nearest neighbours",
    )
    k = min(settings.knn_k, len(labelled))
    return _Outcome(f"kNN, k {k}", predictions, decodable, len(labelled), {})


def _linear(
    settings: EvaluationSettings,
    exported: Exported | None,
    train: Source,
    held_out: Source,
    labelled: np.ndarray,
    strategy: tf.distribute.Strategy,
    name: str,
) -> _Outcome:
    if settings.solver == "sgd":
        return _train(settings, exported, train, held_out, labelled, strategy, name)
    (features, known), (queries, decodable) = _features(settings, exported, train, held_out)
    labelled = labelled[known[labelled]]
    found = logistic_regression(features[labelled], train.labels[labelled], queries, settings.seed)
    classifier = exported and LinearClassifier(exported.network(), found.kernel, found.bias)
    predictions, more = most_likely(found.probabilities), {"strength": found.strength}
    title, images = "linear, L-BFGS", len(labelled)
    return _Outcome(title, predictions, decodable, images, more, classifier)


def _train(
    settings: EvaluationSettings,
    exported: Exported,
    train: Source,
    held_out: Source,
    labelled: np.ndarray,
    strategy: tf.distribute.Strategy,
    name: str,
) -> _Outcome:
    fine_tune = settings.protocol == "finetune"
    own = [field.name for field in dataclasses.fields(Training) if field.name != "fine_tune"]
    output = pathlib.Path(settings.output_dir)
    output.mkdir(parents=True, exist_ok=True)
    trained = train_classifier(
        exported,
        train if len(labelled) == len(train) else Subset(train, labelled),
        held_out,
        len(train.class_names),
        Training(fine_tune, **{field: getattr(settings, field) for field in own}),
        strategy,
        output / f"{name}.state.npz",
    )
    title = f"{'fine-tuned' if fine_tune else 'linear'}, {settings.epochs} epochs"
    accuracies = trained.accuracies
    best = max(accuracies, key=accuracies.get)
    more = {"best_epoch": best, "best_top1": accuracies[best], "top1_by_epoch": accuracies}
    network = exported.network()  # on one device, whatever it was trained on
    for variable, value in zip(network.variables, trained.model.network.variables):
        variable.assign(value.numpy())
    kernel, bias = trained.model.head.get_weights()
    classifier = LinearClassifier(network, kernel, bias)
    predictions, decodable, images = trained.predictions, trained.decodable, trained.images
    return _Outcome(title, predictions, decodable, images, more, classifier, trained.state)


def _features(
    settings: EvaluationSettings, exported: Exported | None, train: Source, held_out: Source
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Features of training and held-out images; raw pixels are normalised by the training ones."""
    size, max_broken = settings.image_size, settings.max_broken
    options = {
        "image_size": size,
        "eval_crop": settings.eval_crop,
        "max_broken": max_broken,
        "cache": pathlib.Path(settings.output_dir) / _FEATURES,
        "pixels": normalisation_of_pixels(exported, train, size, max_broken),
    }
    return [cached_features(exported, source, **options) for source in (train, held_out)]
