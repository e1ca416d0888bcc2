"""Every setting of an evaluation: its flag and its default."""

import dataclasses
import pathlib

from pic_tf.serving.exported import Exported
from pic_tf.settings.check import check_crop_scale, check_ranges
from pic_tf.settings.setting import setting

PROTOCOLS = ("knn", "linear", "finetune")
PIXELS = "pixels"  # --model of the baseline without any network
_PIXELS_SIZE = 32  # pixels, side of its views unless --image_size says otherwise

# What None stands for. Linear: MoCo's (https://arxiv.org/abs/1911.05722, Section 4.1), which PIC uses, but with half a
# cosine. Fine-tuning: SimCLR's for 10 % of the labels (https://arxiv.org/abs/2002.05709, Appendix B.5).
_DEFAULTS = {
    "linear": {"epochs": 100, "learning_rate": 30.0},
    "finetune": {"epochs": 30, "learning_rate": 0.05},
}


@dataclasses.dataclass(frozen=True)
class Settings:
    """Settings of one evaluation; None means "chosen for the protocol or the backbone"."""

    protocol: str = setting(
        "knn",
        "what the backbone is judged by: its nearest neighbours (knn), a classifier on fixed features (linear), or "
        "training it along with the classifier (finetune)",
        choices=PROTOCOLS,
    )
    model: str = setting(
        "runs/pic",
        "a SavedModel that pic_tf exported, or the folder of a finished run; 'pixels' for raw pixels (knn, and linear "
        "with --solver=lbfgs)",
    )
    dataset: str = setting(
        "digits",
        "labelled images: 'digits', a folder with train and val inside (one folder a class in each), a folder of "
        "classes, a folder that tools/pack.py made, or tfds:NAME[:SPLIT]",
    )
    eval_dataset: str = setting("", "labelled images to classify, in the same forms; '' for those of --dataset")
    output_dir: str = setting(
        "", "folder for results, pictures and cached features; '' for 'evaluation' beside the SavedModel"
    )
    seed: int = setting(0, "seed of the draw of labels, the order, the crops and the classifier, >= 0", limit="x >= 0")
    image_size: int | None = setting(
        None, "side of a view in pixels; default that of pretraining (pixels: 32)", limit="1 <= x <= 8192"
    )
    eval_crop: float | None = setting(
        None, "side of the central crop, share of the short side; default that of pretraining", limit="0 < x <= 1"
    )
    label_fraction: float = setting(
        1.0, "share of the training images, of every class, whose labels are used", limit="0 < x <= 1"
    )
    label_ids: str = setting(
        "",
        "text file of the training images to use, a file name in each line, like SimCLR's published lists; '' for all",
    )
    max_broken: float = setting(
        0.01, "stop when more than this share of the images turns out to be broken", limit="0 <= x <= 1"
    )

    knn_k: int = setting(20, "neighbours that vote", limit="x >= 1")
    knn_temperature: float = setting(0.07, "temperature of their votes", limit="1e-4 <= x <= 1e6")

    solver: str = setting(
        "sgd",
        "linear: sgd on randomly cropped images (the published protocol), or lbfgs, a logistic regression on "
        "features of central crops (fast, for small data)",
        choices=("sgd", "lbfgs"),
    )
    epochs: int | None = setting(None, "training length; default 100 (linear), 30 (finetune)", limit="1 <= x <= 1e6")
    batch_size: int = setting(
        256, "images a step, over all replicas; all of them where there are fewer", limit="x >= 1"
    )
    learning_rate: float | None = setting(
        None,
        "peak learning rate of the classifier for 256 images a step, half a cosine to 0; default 30 (linear), 0.05 "
        "(finetune)",
        limit="0 < x <= 1e6",
    )
    backbone_rate: float = setting(
        1.0, "finetune: learning rate of the backbone as a share of the classifier's", limit="0 <= x <= 1e6"
    )
    layer_decay: float = setting(
        1.0, "finetune: rate of a block of the backbone as a share of the next one's", limit="0 < x <= 1"
    )
    warmup_epochs: float = setting(0.0, "epochs of linear warm-up")
    momentum: float = setting(0.9, "momentum of SGD", limit="0 <= x < 1")
    weight_decay: float = setting(0.0, "weight decay of everything that is trained", limit="0 <= x <= 1e6")
    crop_scale: tuple[float, ...] | None = setting(
        None, "least and largest area of a random crop, share of the image; default 0.08,1"
    )
    flip_probability: float = setting(0.5, "of mirroring an image", limit="0 <= x <= 1")
    eval_every: int = setting(
        1, "epochs between two evaluations; the last one is always evaluated, and is what counts", limit="x >= 1"
    )

    strategy: str = setting(
        "auto",
        "devices to train on: none (one), mirrored (all GPUs of this machine), or auto for what is there",
        choices=("auto", "none", "mirrored"),
    )
    replicas: int = setting(
        0,
        "with --strategy=mirrored: how many GPUs, 0 for all; without GPUs, into how many the CPU is split",
        limit="x >= 0",
    )
    intra_op_threads: int = setting(0, "CPU threads an operation; 0 for TensorFlow's choice", limit="0 <= x <= 1024")


def resolve(settings: Settings, exported: Exported | None) -> Settings:
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
    without_network = settings.protocol == "knn" or (settings.protocol == "linear" and settings.solver == "lbfgs")
    if exported is None and not without_network:
        raise ValueError(
            f"expected --protocol=knn, or linear with --solver=lbfgs, for raw pixels (--model={PIXELS}), got "
            f"{settings.protocol} with {settings.solver}: there is no network to train"
        )
    if settings.label_ids and settings.label_fraction < 1:
        raise ValueError("expected --label_ids or --label_fraction, got both: leave one out")
    chosen = {
        name: value for name, value in _DEFAULTS.get(settings.protocol, {}).items() if getattr(settings, name) is None
    }
    card = exported.card if exported else {"image_size": _PIXELS_SIZE, "eval_crop": 1.0}
    for name in ("image_size", "eval_crop"):
        if getattr(settings, name) is None:
            chosen[name] = card[name]
    if chosen.get("image_size", 0) is None:
        raise ValueError(
            f"expected --image_size, got none, and the model card of {exported.path!r} names none: give the side in "
            "pixels of the views it was trained on"
        )
    takes, size = card.get("input_size"), chosen.get("image_size", settings.image_size)
    if takes not in (None, size):
        raise ValueError(f"expected --image_size={takes}, which {exported.path!r} was exported for, got {size}")
    epochs = chosen.get("epochs", settings.epochs)
    if settings.warmup_epochs < 0 or (epochs and settings.warmup_epochs >= epochs):
        raise ValueError(
            f"expected 0 <= --warmup_epochs < --epochs{f' ({epochs})' if epochs else ''}, got {settings.warmup_epochs}"
        )
    if not settings.output_dir:
        chosen["output_dir"] = str(pathlib.Path(exported.path).parent / "evaluation") if exported else "runs/pixels"
    return dataclasses.replace(settings, **chosen)
