"""Declare to which protocols the flags of an evaluation belong, where not to all."""

import dataclasses

from pic_tf.evals.detection.settings import DetectionFlags
from pic_tf.evals.segmentation.settings import SegmentationFlags
from pic_tf.evals.settings import EvaluationSettings
from pic_tf.evals.transfer.settings import StepFlags
from pic_tf.settings.belonging import check_belonging

_LBFGS = "linear --solver=lbfgs"  # trains nothing, so it takes no flag of a training
_CENTRAL = ("knn", "linear", "finetune", _LBFGS)
_DENSE = ("voc_detection", "segmentation")
_CLASSIFIERS = ("linear", "finetune")


def _names(flags: type) -> list[str]:
    return [field.name for field in dataclasses.fields(flags)]


_BELONGS = {
    **dict.fromkeys(["image_size", "eval_crop", "split_folders"], _CENTRAL),
    **dict.fromkeys(["max_broken", "label_ids"], _CENTRAL),
    **dict.fromkeys(["knn_k", "knn_temperature"], ("knn",)),
    "solver": ("linear", _LBFGS),
    **dict.fromkeys(["epochs", "warmup_epochs", "crop_scale", "eval_every"], _CLASSIFIERS),
    **dict.fromkeys(["backbone_rate", "layer_decay"], ("finetune",)),
    **dict.fromkeys(["batch_size", "learning_rate", "momentum"], (*_CLASSIFIERS, *_DENSE)),
    **dict.fromkeys(["weight_decay", "flip_probability"], (*_CLASSIFIERS, *_DENSE)),
    **dict.fromkeys(_names(StepFlags), _DENSE),
    **dict.fromkeys(_names(DetectionFlags), ("voc_detection",)),
    **dict.fromkeys(_names(SegmentationFlags), ("segmentation",)),
}


def judge_of(settings: EvaluationSettings) -> str:
    """Name the protocol, and its solver where that trains nothing."""
    solver = f" --solver={settings.solver}"
    return settings.protocol + solver * (settings.protocol + solver == _LBFGS)


def check_protocol(settings: EvaluationSettings) -> None:
    """Refuse flags that the protocol would ignore.

    Raises:
      ValueError: for a flag of another protocol with another value than its default.
    """
    check_belonging(settings, "protocol", judge_of(settings), _BELONGS)
