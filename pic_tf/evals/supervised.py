"""Linear evaluation and fine-tuning: train a classifier on a backbone, and judge its answers."""

import contextlib
import dataclasses
import hashlib
import json
import pathlib
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from pic_tf.callbacks.broken_images import BrokenImageReport
from pic_tf.callbacks.progress import ProgressBar
from pic_tf.data.crops import Crop
from pic_tf.data.decode.broken import BrokenImages
from pic_tf.data.order import SlidingWindow
from pic_tf.data.pipeline import evaluation_batches, naming_unreadable, pretraining_batches
from pic_tf.data.sources.source import Source
from pic_tf.evals.classifier import Classifier
from pic_tf.evals.evaluate_and_save import EvaluateAndSave
from pic_tf.optim.lazy_sgd import LazySGD
from pic_tf.optim.schedules import WarmupCosine
from pic_tf.replicas.collectives import distribute
from pic_tf.serving.exported import Exported


@dataclasses.dataclass(frozen=True)
class Training:
    """Settings of a classifier's training.

    Attributes:
      fine_tune: whether the backbone is trained along.
      epochs: length of the training in epochs.
      batch_size: images a step, over all replicas.
      learning_rate: peak rate of the classifier for 256 images a step.
      backbone_rate: rate of the backbone as a share of it.
      layer_decay: see `layer_rates`.
      warmup_epochs: length of the linear warm-up in epochs.
      momentum: m.
      weight_decay: lambda.
      crop_scale: least and largest area of a random crop, share of the image.
      flip_probability: probability of a horizontal flip.
      image_size: side of a view in pixels.
      eval_crop: side of the central crop of held-out images, share of the short side.
      eval_every: epochs between two evaluations; the last is always evaluated.
      max_broken: share of the images that may be broken.
      seed: seed of the order, the crops and the classifier's first weights.
    """

    fine_tune: bool
    epochs: int
    batch_size: int
    learning_rate: float
    backbone_rate: float
    layer_decay: float
    warmup_epochs: float
    momentum: float
    weight_decay: float
    crop_scale: tuple[float, float]
    flip_probability: float
    image_size: int
    eval_crop: float
    eval_every: int
    max_broken: float
    seed: int


class Trained(NamedTuple):
    """Outcome of a classifier's training.

    Attributes:
      predictions: int32 [n, 5] most likely classes of the held-out images after the last epoch.
      decodable: bool [n], true for held-out images that could be decoded.
      images: number of training images without those that were found broken.
      accuracies: accuracy by epoch.
      model: the classifier.
      state: file of the state, for the caller to remove once all of this is written.
    """

    predictions: np.ndarray
    decodable: np.ndarray
    images: int
    accuracies: dict[int, float]
    model: Classifier
    state: pathlib.Path


def train_classifier(
    exported: Exported,
    train: Source,
    held_out: Source,
    classes: int,
    training: Training,
    strategy: tf.distribute.Strategy,
    state: pathlib.Path,
) -> Trained:
    """Train on labelled images, or go on with an interrupted training of the same settings.

    Args:
      exported: the backbone to begin with.
      train: labelled images to train on.
      held_out: labelled images to classify.
      classes: number of classes.
      training: the settings.
      strategy: devices.
      state: file for the state after each epoch; a digest of the settings goes into its name, so
        that trainings of other settings have others.

    Returns:
      Answers, accuracies and the classifier.

    Raises:
      ValueError: for images that cannot be used.
      FloatingPointError: where the loss is not finite.
    """
    n, batch = len(train), min(training.batch_size, len(train))
    batch = batch // strategy.num_replicas_in_sync * strategy.num_replicas_in_sync
    if not batch:
        raise ValueError(
            f"expected at least one training image a replica ({strategy.num_replicas_in_sync}), "
            f"got {n}"
        )
    steps = n // batch
    total = training.epochs * steps
    peak = training.learning_rate * batch / 256
    warmup = min(round(training.warmup_epochs * steps), total - 1)
    with strategy.scope():
        model = Classifier(
            exported.network(),
            exported.card["feature_dim"],
            train.labels,
            classes,
            fine_tune=training.fine_tune,
            layer_decay=training.layer_decay,
            backbone_rate=training.backbone_rate,
            weight_decay=training.weight_decay,
            flip_probability=training.flip_probability,
            seed=training.seed,
        )
        schedule = WarmupCosine(peak, total, warmup, 0.0)
        model.compile(LazySGD(schedule, training.momentum, 0.0, total))
    broken = BrokenImages(train)
    broken_held_out = BrokenImages(held_out)
    everything = np.arange(len(held_out))
    views = evaluation_batches(
        held_out,
        everything,
        image_size=training.image_size,
        crop_fraction=training.eval_crop,
        broken=broken_held_out,
    )
    settings = dataclasses.asdict(training)
    del settings["eval_every"], settings["max_broken"]  # they do not change the training
    settings |= {
        "backbone": exported.fingerprint,
        "train": train.fingerprint(),
        "held_out": held_out.fingerprint(),
        "batch_size": batch,
    }
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:8]
    state = state.with_suffix(f".{digest}.npz")
    evaluation = EvaluateAndSave(
        views,
        held_out.labels,
        broken_held_out,
        training.max_broken,
        training.eval_every,
        training.epochs,
        state,
        settings,
    )
    evaluation.restore(model)

    def batches(replica: int, replicas: int) -> tf.data.Dataset:
        return pretraining_batches(
            train,
            SlidingWindow(n, batch, n, n, training.seed, replica, replicas),
            crops=[Crop(training.image_size, training.crop_scale)],
            seed=training.seed,
            start_step=evaluation.done * steps,
            stop_step=total,
            broken=broken,
        )

    bar = ProgressBar(total, evaluation.done * steps, batch)
    with (
        naming_unreadable(held_out, everything),
        naming_unreadable(train, range(n)),
        contextlib.closing(bar),
    ):
        model.fit(
            distribute(strategy, batches),
            initial_epoch=evaluation.done,
            epochs=training.epochs,
            steps_per_epoch=steps,
            callbacks=[bar, BrokenImageReport(broken, training.max_broken), evaluation],
            verbose=0,
        )
    images, accuracies = n - len(broken), evaluation.accuracies
    return Trained(evaluation.predictions, evaluation.decodable(), images, accuracies, model, state)
