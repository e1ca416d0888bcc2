"""Run --protocol=voc_detection from its settings to its report."""

import dataclasses
import hashlib
import json
import pathlib
from typing import Any

import numpy as np
import tensorflow as tf
import tf_keras as keras

from pic_tf.data.order import SlidingWindow
from pic_tf.evals.detection.annotations import Annotated, check_classes, joined
from pic_tf.evals.detection.coco_json import open_coco
from pic_tf.evals.detection.coco_metric import coco_ap
from pic_tf.evals.detection.detector import Detector, Proposals, has_small_stem
from pic_tf.evals.detection.inputs import check_files, training_batches
from pic_tf.evals.detection.settings import DEFAULTS, check_detection
from pic_tf.evals.detection.sheet import draw_detections
from pic_tf.evals.detection.training import SavedState, detect, train_detector
from pic_tf.evals.detection.voc_folder import open_voc
from pic_tf.evals.detection.voc_metric import THRESHOLDS, voc_ap
from pic_tf.files.replaced import replaced
from pic_tf.optim.lazy_sgd import LazySGD
from pic_tf.optim.schedules import WarmupSteps
from pic_tf.replicas.collectives import distribute
from pic_tf.replicas.devices import open_strategy
from pic_tf.serving.open_resnet import Resnet, open_resnet
from pic_tf.settings.check import check_ranges

_SMALL_CELLS = 6  # side of a proposal's grid behind the stem of small images, with small objects
_DRAWN = 12  # images with their detections in the picture
_HEADER = (
    "| protocol | backbone | data set | images | test images | AP | AP50 | AP75 |\n" + "|---" * 8
)
# Of the flags, those that change what is trained.
_TRAINING = (
    *("batch_size", "learning_rate", "weight_decay", "momentum", "steps", "decay_steps"),
    *("warmup_steps", "short_sides", "long_side", "anchor_sizes", "proposals"),
    *("proposals_learned", "flip_probability", "seed"),
)


@dataclasses.dataclass(frozen=True)
class DetectionReport:
    """Average precision on test images.

    Attributes:
      values: facts and figures, as JSON can hold them.
    """

    values: dict[str, Any]

    def table(self) -> str:
        """Format a table of one row."""
        v = self.values
        figures = " | ".join(f"{v[name]:.4f}" for name in ("AP", "AP50", "AP75"))
        return (
            f"{_HEADER}|\n| detection, {v['steps']:,} steps | {v['backbone']} | {v['dataset']} | "
            f"{v['images']:,} | {v['test_images']:,} | {figures} |"
        )


def run(settings: Any) -> tuple[DetectionReport, str]:
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
    settings = _resolve(settings)
    train, test = _open(settings)
    if settings.intra_op_threads:
        tf.config.threading.set_intra_op_parallelism_threads(settings.intra_op_threads)
    if not tf.config.list_physical_devices("GPU"):  # RoIAlign's gradient has no such form there
        tf.config.experimental.enable_op_determinism()
    keras.utils.set_random_seed(settings.seed)
    strategy = open_strategy(settings.strategy, settings.replicas)  # before any operation
    resnet = open_resnet(settings.model)
    output = pathlib.Path(settings.output_dir)
    output.mkdir(parents=True, exist_ok=True)
    identity = _identity(settings, resnet, train, test)
    name = f"voc_detection_{hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:8]}"
    model = _train(settings, resnet, train, strategy, output / f"{name}.state.npz", identity)
    found = detect(model, test, settings.test_side, settings.long_side)
    ap = 100 * voc_ap(found, [p.objects for p in test.pictures], len(test.class_names))
    by_class = {n: None if np.isnan(a) else float(a) for n, a in zip(test.class_names, ap.mean(0))}
    values = {
        "protocol": "voc_detection",
        "backbone": resnet.name,
        "dataset": settings.dataset,
        "steps": settings.steps,
        "images": len(train.pictures),
        "test_images": len(test.pictures),
        "AP": float(np.nanmean(ap)),
        **{f"AP{int(100 * t + 0.5)}": float(np.nanmean(a)) for t, a in zip(THRESHOLDS, ap)},
        "AP_of_class": by_class,
        **(coco_ap(found, test) or {}),
        "flags": dataclasses.asdict(settings),
    }
    with replaced(output / f"{name}.json") as file:
        json.dump(values, file, indent=1)
    draw_detections(test, found, _DRAWN, output / f"{name}.png")
    return DetectionReport(values), settings.output_dir


def _resolve(settings: Any) -> Any:
    chosen = {n: value for n, value in DEFAULTS.items() if getattr(settings, n) is None}
    model = pathlib.Path(settings.model)
    if not settings.output_dir:
        inside = model / "backbone" if (model / "backbone").is_dir() else model
        chosen["output_dir"] = str(inside.parent / "evaluation")
    settings = dataclasses.replace(settings, **chosen)
    check_ranges(settings)
    check_detection(settings)
    for name in ("dataset", "eval_dataset"):
        if not getattr(settings, name):
            raise ValueError(
                f"expected --{name} as FOLDER:SPLIT of Pascal VOC or FILE.json:FOLDER of COCO, "
                "got none: name it"
            )
    return settings


def _open(settings: Any) -> tuple[Annotated, Annotated]:
    """Open and check the images to train on, of which some may be chosen, and those of the test."""
    train, test = (
        joined([_open_part(part) for part in names.split(",")])
        for names in (settings.dataset, settings.eval_dataset)
    )
    check_classes(train, test)
    kept = [picture for picture in train.pictures if len(picture.objects.classes)]
    count = max(round(settings.label_fraction * len(kept)), 1)
    chosen = np.sort(np.random.default_rng(settings.seed).permutation(len(kept))[:count])
    train = train._replace(pictures=tuple(kept[i] for i in chosen))
    if settings.batch_size > len(train.pictures):
        raise ValueError(
            f"expected --batch_size of at most the {len(train.pictures):,} images, got "
            f"{settings.batch_size}: lower it"
        )
    check_files(train)
    check_files(test)
    return train, test


def _open_part(name: str) -> Annotated:
    first, colon, second = name.rpartition(":")
    if not colon or not first or not second:
        raise ValueError(
            "expected FOLDER:SPLIT of Pascal VOC (VOCdevkit/VOC2007:trainval) or FILE.json:FOLDER "
            f"of COCO (instances_val2017.json:val2017), got {name!r}: write it so"
        )
    if first.endswith(".json"):
        return open_coco(pathlib.Path(first), pathlib.Path(second))
    return open_voc(pathlib.Path(first), second)


def _identity(settings: Any, resnet: Resnet, train: Annotated, test: Annotated) -> dict[str, Any]:
    """Collect the facts that the training depends on, and the test images."""
    weights = hashlib.sha256(b"".join(w.tobytes() for w in resnet.model.get_weights()))
    flags = {name: getattr(settings, name) for name in _TRAINING}
    prints = {"train": train.fingerprint(), "test": test.fingerprint()}
    return {"backbone": weights.hexdigest(), **prints, **flags}


def _train(
    settings: Any,
    resnet: Resnet,
    train: Annotated,
    strategy: tf.distribute.Strategy,
    path: pathlib.Path,
    identity: dict[str, Any],
) -> Detector:
    """Train a detector, or go on with an interrupted training of the same settings."""
    numbers = Proposals(
        sizes=settings.anchor_sizes,
        cells=_SMALL_CELLS if has_small_stem(resnet.model) else Proposals().cells,
        before_training=12 * settings.proposals,
        after_training=2 * settings.proposals,
        before=6 * settings.proposals,
        after=settings.proposals,
        proposals_learned=settings.proposals_learned,
    )
    decay = settings.weight_decay
    with strategy.scope():
        model = Detector(resnet.model, len(train.class_names), numbers, decay, settings.seed)
        steps = tuple(int(s) for s in settings.decay_steps)
        rate = WarmupSteps(settings.learning_rate, steps, settings.warmup_steps)
        model.compile(LazySGD(rate, settings.momentum, 0.0, settings.steps))
    state = SavedState(path, settings.save_every, settings.steps, identity)
    state.restore(model)
    n, batch = len(train.pictures), settings.batch_size

    def batches(replica: int, replicas: int) -> tf.data.Dataset:
        return training_batches(
            train,
            SlidingWindow(n, batch, n, n, settings.seed, replica, replicas),
            short_sides=[int(side) for side in settings.short_sides],
            long_side=settings.long_side,
            flip_probability=settings.flip_probability,
            seed=settings.seed,
            start_step=state.done,
            stop_step=settings.steps,
        )

    train_detector(model, distribute(strategy, batches), state, settings.steps, batch)
    return model
