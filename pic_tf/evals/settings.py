"""Declare every setting of an evaluation: its flag, its default and its limits."""

import dataclasses
import pathlib

from pic_tf.evals.detection import settings as detection
from pic_tf.evals.detection.settings import DetectionFlags
from pic_tf.evals.segmentation import settings as segmentation
from pic_tf.evals.segmentation.settings import SegmentationFlags
from pic_tf.evals.transfer.settings import StepFlags
from pic_tf.serving.exported import Exported
from pic_tf.settings.check import check_crop_scale, check_ranges
from pic_tf.settings.images import split_folders_setting
from pic_tf.settings.setting import setting

PROTOCOLS = ("knn", "linear", "finetune", "voc_detection", "segmentation")
PIXELS = "pixels"  # --model of the baseline without any network
_PIXELS_SIZE = 32  # pixels, side of its views unless --image_size says otherwise

# In place of None. Linear: MoCo's (https://arxiv.org/abs/1911.05722, Section 4.1), which PIC uses,
# but with half a cosine. Fine-tuning: SimCLR's for 10 % of the labels
# (https://arxiv.org/abs/2002.05709, Appendix B.5).
_DEFAULTS = {
    "linear": {"epochs": 100, "learning_rate": 30.0},
    "finetune": {"epochs": 30, "learning_rate": 0.05},
    "voc_detection": detection.DEFAULTS,
    "segmentation": segmentation.DEFAULTS,
}


@dataclasses.dataclass(frozen=True)
class CentralViews:
    """Central views of the images."""

    image_size: int | None = setting(
        None,
        "Side of a view in pixels, 1 to 8192. The default None takes that of pretraining, and 32 "
        "for raw pixels.",
        limit="1 <= x <= 8192",
    )
    eval_crop: float | None = setting(
        None,
        "Side of the central crop as a share of the image's short side, above 0 and at most 1. The "
        "default None takes that of pretraining.",
        limit="0 < x <= 1",
    )
    split_folders: str = split_folders_setting()
    max_broken: float = setting(
        0.01,
        "Largest share of the images that may be broken before the command stops, 0 to 1.",
        limit="0 <= x <= 1",
    )


@dataclasses.dataclass(frozen=True)
class _Images:
    """Backbone and images."""

    protocol: str = setting(
        "knn",
        "Judge of the backbone: its nearest neighbours (knn), a classifier on fixed features "
        "(linear), or what is trained together with the backbone: a classifier (finetune), a "
        "detector of objects (voc_detection), or a segmenter, which classifies every pixel "
        "(segmentation).",
        choices=PROTOCOLS,
    )
    model: str = setting(
        "runs/pic",
        "Backbone to evaluate: a SavedModel that pic_tf exported, the folder of a finished run, or "
        "'pixels' for raw pixels (with --protocol=knn, and with --protocol=linear --solver=lbfgs).",
    )
    dataset: str = setting(
        "",
        "Labelled images: 'digits', 'mnist5k', a folder of classes, a folder with train and val "
        "inside (one folder a class in each), a folder that tools/pack.py made, several of these "
        "with commas between them, or tfds:NAME[:SPLIT]. The default '' takes those of the run, by "
        "--labelled_dataset or --dataset of it. For voc_detection FOLDER:SPLIT of Pascal VOC, "
        "FILE.json:FOLDER of COCO, or tfds:NAME:SPLIT; for segmentation FOLDER:SPLIT of "
        "Cityscapes, of Pascal VOC, or with images and masks in FOLDER/SPLIT; several of them "
        "separated by commas.",
    )
    eval_dataset: str = setting(
        "",
        "Labelled images to classify, in the forms of --dataset. The default '' takes the held-out "
        "ones of it.",
    )
    output_dir: str = setting(
        "",
        "Folder to write results, pictures and cached features to. The default '' takes "
        "'evaluation' beside the SavedModel, and runs/pixels for raw pixels.",
    )
    label_fraction: float = setting(
        1.0,
        "Share of the training images of every class whose labels are used, above 0 and at most 1.",
        limit="0 < x <= 1",
    )
    label_ids: str = setting(
        "",
        "Text file of the training images to use, a file name in each line, like SimCLR's "
        "published lists. The default '' takes all.",
    )
    seed: int = setting(
        0,
        "Seed of the draw of labels, the order, the crops and the classifier, >= 0.",
        limit="x >= 0",
    )


@dataclasses.dataclass(frozen=True)
class _Neighbours:
    """Nearest neighbours (--protocol=knn)."""

    knn_k: int = setting(20, "Number of neighbours that vote, >= 1.", limit="x >= 1")
    knn_temperature: float = setting(
        0.07, "Temperature of the neighbours' votes, 1e-4 to 1e6.", limit="1e-4 <= x <= 1e6"
    )


@dataclasses.dataclass(frozen=True)
class _Classifier:
    """Training of a classifier (--protocol=linear or finetune)."""

    solver: str = setting(
        "sgd",
        "Solver of --protocol=linear: sgd on randomly cropped images, the published protocol; or "
        "lbfgs, a logistic regression on features of central crops, fast for small data.",
        choices=("sgd", "lbfgs"),
    )
    epochs: int | None = setting(
        None,
        "Length of the training in epochs, 1 to 1e6. The default None takes 100 for linear and 30 "
        "for finetune.",
        limit="1 <= x <= 1e6",
    )
    batch_size: int | None = setting(
        None,
        "Images a step over all replicas, >= 1. A step takes all images where there are fewer. The "
        "default None takes 256, and 16 for voc_detection and segmentation.",
        limit="x >= 1",
    )
    learning_rate: float | None = setting(
        None,
        "Peak learning rate of the classifier for 256 images a step, above 0 and at most 1e6; it "
        "falls to 0 along half a cosine. The default None takes 30 for linear and 0.05 for "
        "finetune. For voc_detection and segmentation the rate of their steps, 0.02 and 0.01 by "
        "default.",
        limit="0 < x <= 1e6",
    )
    backbone_rate: float = setting(
        1.0,
        "Learning rate of the backbone in finetune as a multiple of the classifier's, 0 to 1e6.",
        limit="0 <= x <= 1e6",
    )
    layer_decay: float = setting(
        1.0,
        "Learning rate of a block of the backbone in finetune as a share of the next block's, "
        "above 0 and at most 1.",
        limit="0 < x <= 1",
    )
    warmup_epochs: float = setting(
        0.0, "Length of the linear warm-up in epochs, >= 0 and below --epochs."
    )
    momentum: float = setting(0.9, "Momentum of SGD, >= 0 and below 1.", limit="0 <= x < 1")
    weight_decay: float = setting(
        0.0, "Weight decay of all trained weights, 0 to 1e6.", limit="0 <= x <= 1e6"
    )
    crop_scale: tuple[float, ...] | None = setting(
        None,
        "Least and largest area of a random crop as shares of the image, LEAST,LARGEST. The "
        "default None takes 0.08,1.",
    )
    flip_probability: float = setting(
        0.5, "Probability of a horizontal flip, 0 to 1.", limit="0 <= x <= 1"
    )
    eval_every: int = setting(
        1,
        "Epochs from one evaluation to the next, >= 1. The last epoch is always evaluated, and is "
        "the result.",
        limit="x >= 1",
    )


@dataclasses.dataclass(frozen=True)
class _Devices:
    """Devices."""

    strategy: str = setting(
        "auto",
        "Devices to train on: one (none), all GPUs of this machine (mirrored), or all that are "
        "there (auto).",
        choices=("auto", "none", "mirrored"),
    )
    replicas: int = setting(
        0,
        "Number of GPUs with --strategy=mirrored, >= 0; without GPUs the number of parts of the "
        "CPU. The default 0 takes all GPUs.",
        limit="x >= 0",
    )
    intra_op_threads: int = setting(
        0,
        "CPU threads of an operation, 0 to 1024. The default 0 leaves the choice to TensorFlow.",
        limit="0 <= x <= 1024",
    )


@dataclasses.dataclass(frozen=True)
class EvaluationSettings(
    _Devices,
    SegmentationFlags,
    DetectionFlags,
    StepFlags,
    _Classifier,
    _Neighbours,
    CentralViews,
    _Images,
):
    """Settings of one evaluation; None means "chosen for the protocol or the backbone"."""


def resolve(settings: EvaluationSettings, exported: Exported | None) -> EvaluationSettings:
    """Check every setting, and fill in what depends on protocol and backbone.

    Args:
      settings: the settings.
      exported: the backbone; None for raw pixels.

    Returns:
      Settings without None, but for those that the protocol does not have.

    Raises:
      ValueError: for a setting out of its range, or one that does not fit the others.
    """
    if settings.crop_scale is None:
        settings = dataclasses.replace(settings, crop_scale=(0.08, 1.0))
    check_ranges(settings)
    check_crop_scale(settings.crop_scale)
    judge = settings.protocol, settings.solver
    without_network = settings.protocol == "knn" or judge == ("linear", "lbfgs")
    if exported is None and not without_network:
        raise ValueError(
            "expected --protocol=knn, or linear with --solver=lbfgs, for raw pixels "
            f"(--model={PIXELS}), got {settings.protocol} with {settings.solver}: "
            "there is no network to train"
        )
    if settings.label_ids and settings.label_fraction < 1:
        raise ValueError("expected --label_ids or --label_fraction, got both: leave one out")
    own = {"batch_size": 256, **_DEFAULTS.get(settings.protocol, {})}
    chosen = {name: value for name, value in own.items() if getattr(settings, name) is None}
    card = exported.card if exported else {"image_size": _PIXELS_SIZE, "eval_crop": 1.0}
    for name in ("image_size", "eval_crop"):
        if getattr(settings, name) is None:
            chosen[name] = card[name]
    if chosen.get("image_size", 0) is None:
        raise ValueError(
            f"expected --image_size, got none, and the model card of {exported.path!r} names none: "
            "give the side in pixels of the views it was trained on"
        )
    takes, size = card.get("input_size"), chosen.get("image_size", settings.image_size)
    if takes not in (None, size):
        raise ValueError(
            f"expected --image_size={takes}, which {exported.path!r} was exported for, got {size}"
        )
    epochs = chosen.get("epochs", settings.epochs)
    if settings.warmup_epochs < 0 or (epochs and settings.warmup_epochs >= epochs):
        raise ValueError(
            f"expected 0 <= --warmup_epochs < --epochs{f' ({epochs})' if epochs else ''}, "
            f"got {settings.warmup_epochs}"
        )
    if not settings.output_dir:
        folder = pathlib.Path(exported.path).parent / "evaluation" if exported else "runs/pixels"
        chosen["output_dir"] = str(folder)
    return dataclasses.replace(settings, **chosen)
