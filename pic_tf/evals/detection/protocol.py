"""Run --protocol=voc_detection from its settings to its report."""

import dataclasses
import pathlib
from typing import Any

import numpy as np
import tensorflow as tf

from pic_tf.data.order import SlidingWindow
from pic_tf.data.sources import tfds_builder
from pic_tf.data.sources.named import TFDS
from pic_tf.evals.detection.annotations import Picture, fingerprint
from pic_tf.evals.detection.coco_json import open_coco
from pic_tf.evals.detection.coco_metric import coco_ap
from pic_tf.evals.detection.detect import detect
from pic_tf.evals.detection.detector import Detector, Proposals
from pic_tf.evals.detection.inputs import training_batches
from pic_tf.evals.detection.settings import DEFAULTS, check_detection
from pic_tf.evals.detection.sheet import draw_detections
from pic_tf.evals.detection.tfds_objects import open_tfds_objects
from pic_tf.evals.detection.voc_folder import open_voc
from pic_tf.evals.detection.voc_metric import THRESHOLDS, voc_ap
from pic_tf.evals.transfer.datasets import PictureSet, open_both
from pic_tf.evals.transfer.network import has_small_stem
from pic_tf.evals.transfer.report import TransferReport, by_class, facts, identity_of, name_of
from pic_tf.evals.transfer.settings import resolve_steps
from pic_tf.evals.transfer.training import open_devices, train_by_steps
from pic_tf.serving.open_resnet import Resnet, open_resnet

_SMALL_CELLS = 6  # side of a proposal's grid behind the stem of small images, with small objects
_DRAWN = 12  # images with their detections in the picture
_FORMS = "FOLDER:SPLIT of Pascal VOC, FILE.json:FOLDER of COCO, or tfds:NAME:SPLIT"
# Of the flags, those that change what is trained.
_TRAINING = (
    *("batch_size", "learning_rate", "weight_decay", "momentum", "steps", "decay_steps"),
    *("warmup_steps", "short_sides", "long_side", "anchor_sizes", "proposals"),
    *("proposals_learned", "flip_probability", "seed"),
)


def run(settings: Any) -> tuple[TransferReport, str]:
    """Train a detector on a backbone, and judge it by VOC's average precision.

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
    check_detection(settings)
    train, test = open_both(settings, _open_part, lambda picture: len(picture.objects.classes))
    # RoIAlign's gradient has no repeatable form on GPUs.
    repeatable = not tf.config.list_physical_devices("GPU")
    strategy = open_devices(settings, repeatable)
    resnet = open_resnet(settings.model)
    output = pathlib.Path(settings.output_dir)
    output.mkdir(parents=True, exist_ok=True)
    identity = identity_of(settings, _TRAINING, resnet, fingerprint(train), fingerprint(test))
    name = name_of("voc_detection", identity)
    model = _train(settings, resnet, train, strategy, output / f"{name}.state.npz", identity)
    found = detect(model, test, settings.test_side, settings.long_side)
    ap = 100 * voc_ap(found, [p.objects for p in test.pictures], len(test.class_names))
    values = {
        **facts(settings, resnet.name, train, test),
        "AP": float(np.nanmean(ap)),
        **{f"AP{int(100 * t + 0.5)}": float(np.nanmean(a)) for t, a in zip(THRESHOLDS, ap)},
        "AP_of_class": by_class(test.class_names, ap.mean(0)),
        **(coco_ap(found, test) or {}),
        "flags": dataclasses.asdict(settings),
    }
    report = TransferReport("detection", ("AP", "AP50", "AP75"), values)
    report.write(output / f"{name}.json")
    draw_detections(test, found, _DRAWN, output / f"{name}.png")
    return report, settings.output_dir


def _open_part(name: str) -> PictureSet[Picture]:
    if name.startswith(TFDS):
        first, second = tfds_builder.parse(name.removeprefix(TFDS))
    else:
        first, _, second = name.rpartition(":")
    if not first or not second:
        raise ValueError(
            f"expected {_FORMS}, got {name!r}: write it so, as VOCdevkit/VOC2007:trainval, "
            "instances_val2017.json:val2017 or tfds:voc/2007:test"
        )
    if name.startswith(TFDS):
        return open_tfds_objects(first, second)
    if first.endswith(".json"):
        return open_coco(pathlib.Path(first), pathlib.Path(second))
    return open_voc(pathlib.Path(first), second)


def _train(
    settings: Any,
    resnet: Resnet,
    train: PictureSet[Picture],
    strategy: tf.distribute.Strategy,
    path: pathlib.Path,
    identity: dict[str, Any],
) -> Detector:
    numbers = Proposals(
        sizes=settings.anchor_sizes,
        cells=_SMALL_CELLS if has_small_stem(resnet.model) else Proposals().cells,
        before_training=12 * settings.proposals,
        after_training=2 * settings.proposals,
        before=6 * settings.proposals,
        after=settings.proposals,
        proposals_learned=settings.proposals_learned,
    )

    def build() -> Detector:
        decay, seed = settings.weight_decay, settings.seed
        return Detector(resnet.model, len(train.class_names), numbers, decay, seed)

    def batches_of(order: SlidingWindow, start: int) -> tf.data.Dataset:
        return training_batches(
            train,
            order,
            short_sides=[int(side) for side in settings.short_sides],
            long_side=settings.long_side,
            flip_probability=settings.flip_probability,
            seed=settings.seed,
            start_step=start,
            stop_step=settings.steps,
        )

    count = len(train.pictures)
    return train_by_steps(settings, strategy, build, batches_of, count, path, identity)
