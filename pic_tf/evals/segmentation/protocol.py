"""Run --protocol=segmentation from its settings to its report."""

import dataclasses
import pathlib
from typing import Any

import numpy as np
import tensorflow as tf

from pic_tf.data.order import SlidingWindow
from pic_tf.evals.segmentation.folders import open_masks
from pic_tf.evals.segmentation.inputs import training_batches
from pic_tf.evals.segmentation.masks import Picture, check_files, read_mask
from pic_tf.evals.segmentation.metric import confusion, intersection_over_union
from pic_tf.evals.segmentation.segmenter import Segmenter
from pic_tf.evals.segmentation.settings import DEFAULTS, check_segmentation
from pic_tf.evals.segmentation.sheet import draw_masks
from pic_tf.evals.segmentation.windows import classify
from pic_tf.evals.transfer.datasets import PictureSet, open_both
from pic_tf.evals.transfer.report import TransferReport, by_class, facts, identity_of, name_of
from pic_tf.evals.transfer.settings import resolve_steps
from pic_tf.evals.transfer.sheet import evenly
from pic_tf.evals.transfer.training import open_devices, train_by_steps
from pic_tf.serving.open_resnet import open_resnet

_DRAWN = 12  # images with their masks in the picture
_FORMS = "FOLDER:SPLIT of Cityscapes, of Pascal VOC, or with images and masks in FOLDER/SPLIT"
# Of the flags, those that change what is trained.
_TRAINING = (
    *("batch_size", "learning_rate", "weight_decay", "momentum", "steps", "decay_steps"),
    *("warmup_steps", "crop_size", "scale_range", "head_channels", "head_dilation"),
    *("flip_probability", "seed"),
)


def run(settings: Any) -> tuple[TransferReport, str]:
    """Train a segmenter on a backbone, and judge it by the mean intersection over union.

    Args:
      settings: `EvaluationSettings`, as the command line has them.

    Returns:
      (the report, the folder with its files).

    Raises:
      ValueError: for a setting, a backbone or images that cannot be used.
      FloatingPointError: where a loss is not finite.
      OSError: where the output folder cannot be written.
    """
    settings = resolve_steps(settings, DEFAULTS, _FORMS)
    check_segmentation(settings)
    train, test = open_both(settings, _open_part)
    prints = [check_files(data) for data in (train, test)]
    strategy = open_devices(settings)
    resnet = open_resnet(settings.model)
    output = pathlib.Path(settings.output_dir)
    output.mkdir(parents=True, exist_ok=True)
    identity = identity_of(settings, _TRAINING, resnet, *prints)
    name, classes = name_of("segmentation", identity), len(train.class_names)

    def build() -> Segmenter:
        head = settings.head_channels, settings.head_dilation
        return Segmenter(resnet.model, classes, *head, settings.weight_decay, settings.seed)

    def batches_of(order: SlidingWindow, start: int) -> tf.data.Dataset:
        return training_batches(
            train,
            order,
            crop_size=settings.crop_size,
            scale_range=settings.scale_range,
            flip_probability=settings.flip_probability,
            seed=settings.seed,
            start_step=start,
            stop_step=settings.steps,
        )

    state, count = output / f"{name}.state.npz", len(train.pictures)
    model = train_by_steps(settings, strategy, build, batches_of, count, state, identity)
    drawn = evenly(len(test.pictures), _DRAWN)
    matrix, told = _judge(model, test, settings, drawn)
    ious = 100 * intersection_over_union(matrix)
    values = {
        **facts(settings, resnet.name, train, test),
        "mIoU": float(np.nanmean(ious)),
        "pixel_accuracy": 100 * float(np.trace(matrix) / matrix.sum()),
        "IoU_of_class": by_class(test.class_names, ious),
        "confusion": matrix.tolist(),
        "flags": dataclasses.asdict(settings),
    }
    report = TransferReport("segmentation", ("mIoU", "pixel_accuracy"), values)
    report.write(output / f"{name}.json")
    draw_masks(test.only(drawn), told, output / f"{name}.png")
    return report, settings.output_dir


def _open_part(name: str) -> PictureSet[Picture]:
    folder, colon, split = name.rpartition(":")
    if not colon or not folder or not split:
        raise ValueError(f"expected {_FORMS}, got {name!r}: write it so, as cityscapes:train")
    return open_masks(pathlib.Path(folder), split)


def _judge(
    model: Segmenter, test: PictureSet[Picture], settings: Any, drawn: np.ndarray
) -> tuple[np.ndarray, list[np.ndarray]]:
    """Confusions of all test images, and the classes told of those to draw."""
    matrix, told = 0, []
    classified = classify(model, test, settings.crop_size, settings.test_stride)
    for i, (picture, classes) in enumerate(zip(test.pictures, classified)):
        matrix = matrix + confusion(read_mask(picture), classes, len(test.class_names))
        if i in drawn:
            told.append(classes)
    return matrix, told
