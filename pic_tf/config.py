"""Every setting of a pretraining run: its flag and its default."""

import dataclasses
import os
import types
import typing
from typing import Any

from absl import flags

from pic_tf.data.crops import Crop, parse_crops
from pic_tf.data.presets import PRESETS, Preset
from pic_tf.instances.loss import SIMILARITIES
from pic_tf.models.projection import HEADS
from pic_tf.models.resnet import DEPTHS
from pic_tf.strategy import STRATEGIES

PRECISIONS = ("float32", "bfloat16", "float16")
OPTIMIZERS = ("sgd", "lars", "lamb")


def _setting(default: Any, help: str, choices: tuple[str, ...] | None = None, trajectory: bool = True) -> Any:
    """A field with its help text; `trajectory` says whether it changes what is learned."""
    return dataclasses.field(default=default, metadata={"help": help, "choices": choices, "trajectory": trajectory})


@dataclasses.dataclass(frozen=True)
class Config:
    """Settings of one run. The defaults are the paper's ImageNet recipe; None means "chosen for the data set"."""

    dataset: str = _setting(
        "digits",
        "images to train on: 'digits' (1,500 scans of 8 x 8 pixels that come with scikit-learn), a folder of images of "
        "any nesting, a folder that tools/pack.py made, or tfds:NAME[:SPLIT] (or tfds:FOLDER) as TensorFlow Datasets "
        "prepared it; a folder with train and val inside is split accordingly",
        None,
        False,  # the folder may move; what is in it is compared itself
    )
    eval_dataset: str = _setting(
        "",
        "held-out images for the kNN monitor, in the same forms (a folder needs one folder a class); '' for those of "
        "--dataset",
        None,
        False,
    )
    num_instances: int = _setting(
        0, "how many training images to expect; 0 to take what is there. Lets --plan_only work without the data"
    )
    output_dir: str = _setting("runs/pic", "folder for checkpoints, logs and the exported backbone", None, False)
    seed: int = _setting(0, "seed of the weights, the order, the crops and the augmentation, >= 0")

    epochs: int = _setting(200, "training length in epochs of N views")
    batch_size: int = _setting(512, "views a step, over all replicas")
    order: str = _setting(
        "sliding_window",
        "order of visits: sliding window (the paper's) or the usual epochs",
        ("sliding_window", "epoch"),
    )
    window_size: int | None = _setting(
        None, "images in a window, W, a multiple of --batch_size; default 131072, at most half of a small data set"
    )
    window_stride: int | None = _setting(None, "images by which the window moves, S; default W / 8")

    num_negatives: int | None = _setting(
        None,
        "most recent images in the soft-max's denominator, K; 0 for all of them (the full soft-max); default 65536, "
        "at most W / 2",
    )
    temperature: float = _setting(0.2, "soft-max temperature, tau")
    similarity: str = _setting("cosine", "logit of an image's class: cosine, or the plain dot product", SIMILARITIES)
    weight_correction: bool = _setting(
        True, "catch up with the updates that a row missed while it was away (False: the paper's ablation)"
    )
    min_row_norm: float | None = _setting(
        None,
        "rows fetched with a smaller norm are rescaled to it; 0 for never; default 0.01 sqrt(D), 0 for dot products",
    )

    backbone: str = _setting("resnet50", "network to pretrain", tuple(f"resnet{depth}" for depth in DEPTHS))
    stem: str = _setting(
        "imagenet", "first layers: 7 x 7 stride 2 and pooling, or 3 x 3 for 8 to 64 pixels", ("imagenet", "small")
    )
    width: int = _setting(64, "channels of the first stage; 64 is the published network")
    head: str = _setting("mlp", "projection head", HEADS)
    hidden_dim: int = _setting(2048, "width of the mlp head's hidden layer")
    embedding_dim: int = _setting(128, "size of an embedding and of an instance row, D; with --head=none the features'")

    image_size: int = _setting(224, "side of a view in pixels, in training unless --crops says otherwise")
    crops: str = _setting(
        "",
        "several views of an image in a step, decoded once: COUNTxSIZE@LEAST-LARGEST of each kind, like "
        "1x160@0.14-1.0,3x96@0.08-0.14 (sides in pixels, areas as shares of the image); '' for one of --image_size and "
        "--crop_scale",
    )
    small_crops_move_rows: bool = _setting(
        False, "with --crops: whether views of all kinds move the rows of their images, or those of the first kind only"
    )
    augmentation: str = _setting(
        "simclr",
        "published augmentation, which stands for those flags from --crop_scale to --rand_augment that are not given",
        tuple(PRESETS),
    )
    crop_scale: tuple[float, ...] | None = _setting(None, "least and largest area of a random crop, share of the image")
    flip_probability: float | None = _setting(None, "of mirroring a view")
    jitter: tuple[float, ...] | None = _setting(
        None, "strength of brightness, contrast, saturation (0 to 1) and hue (0 to 0.5 turns)"
    )
    jitter_probability: float | None = _setting(None, "of changing the colours of a view")
    grayscale_probability: float | None = _setting(None, "of dropping the colours of a view")
    grayscale_first: bool | None = _setting(None, "drop them before the jitter, not after it")
    blur_probability: float | None = _setting(None, "of blurring a view")
    blur_sigma: tuple[float, ...] | None = _setting(None, "least and largest standard deviation of the blur in pixels")
    rand_augment: tuple[float, ...] | None = _setting(
        None,
        "RandAugment instead of jitter, grayscale and blur: operations a view (1 to 4), magnitude (0 to 1); 0,0 for "
        "none",
    )
    augment_on: str = _setting(
        "device",
        "where views are augmented: on the device, or on the host's CPUs, for machines whose accelerator has no time "
        "left (four times the bytes go to it)",
        ("device", "host"),
    )
    max_broken: float = _setting(
        0.01,
        "stop when more than this share of the images turns out to be broken; fewer are left out, and listed in "
        "broken_images.csv",
        None,
        False,
    )

    optimizer: str = _setting(
        "sgd",
        "how backbone and head move: sgd as the paper; lars or lamb for the backbone in large batches, head and rows "
        "by sgd. lamb needs pip install 'pic_tf[addons]' (Python 3.10 or 3.11)",
        OPTIMIZERS,
    )
    learning_rate: float = _setting(0.03, "peak learning rate for 256 views a step; grows with --batch_size")
    lars_trust_coefficient: float = _setting(0.001, "with lars: length of an update before the rate, share of |w|")
    lamb_learning_rate: float = _setting(0.002, "with lamb: peak learning rate of the backbone, for any batch size")
    final_learning_rate: float = _setting(1e-6, "learning rate at the end of the cosine")
    warmup_epochs: float | None = _setting(None, "epochs of linear warm-up; default --epochs / 40")
    momentum: float = _setting(0.9, "momentum of SGD, m")
    weight_decay: float = _setting(1e-4, "weight decay of every parameter and row, lambda")

    strategy: str = _setting(
        "auto",
        "devices: none (one), mirrored (all GPUs of this machine), multi_worker (several machines, from TF_CONFIG or "
        "Slurm), tpu, or auto for what is there",
        STRATEGIES,
        False,
    )
    replicas: int = _setting(
        0,
        "with --strategy=mirrored: how many GPUs to use, 0 for all; without GPUs, into how many the CPU is split",
        None,
        False,
    )
    precision: str = _setting(
        "float32", "of backbone and head; rows, logits and loss are float32 always. float16 scales the loss", PRECISIONS
    )
    jit_compile: bool = _setting(False, "compile the whole step with XLA; one replica only (TPUs always do)")
    steps_per_execution: int = _setting(
        1, "steps between two returns to Python; more is faster for tiny networks and TPUs", None, False
    )

    knn_every: int = _setting(10, "epochs between two kNN evaluations; 0 for none", None, False)
    knn_k: int = _setting(20, "neighbours that vote", None, False)
    knn_temperature: float = _setting(0.07, "temperature of their votes", None, False)
    knn_images: int = _setting(
        20000, "at most this many training images to search, and as many held-out ones to classify", None, False
    )
    eval_crop: float = _setting(
        0.875, "side of the central crop for evaluation, share of the short side (0.875 = 224 / 256)", None, False
    )
    checkpoint_every: int = _setting(10, "epochs between two checkpoints; one more is written at the end", None, False)
    keep_checkpoints: int = _setting(2, "newest checkpoints to keep", None, False)
    keep_checkpoint_every: int = _setting(
        0, "epochs between two checkpoints to keep for good, a multiple of --checkpoint_every; 0 for none", None, False
    )
    on_nan: str = _setting(
        "stop",
        "where a loss or gradient is not finite, which never reaches a weight: stop with a report, or skip the step",
        ("stop", "skip"),
        False,
    )
    max_skipped_steps: int = _setting(100, "with --on_nan=skip: stop after so many skipped steps", None, False)
    tensorboard: bool = _setting(True, "write TensorBoard event files", None, False)
    deterministic: bool = _setting(True, "only kernels whose results repeat bit for bit; some GPU kernels are slower")
    intra_op_threads: int = _setting(0, "CPU threads an operation; 0 for TensorFlow's choice, 1 suits tiny networks")

    @property
    def depth(self) -> int:
        """Depth of the ResNet."""
        return int(self.backbone.removeprefix("resnet"))

    def views(self) -> tuple[Crop, ...]:
        """What a step takes of each image; of a resolved configuration."""
        return parse_crops(self.crops) if self.crops else (Crop(self.image_size, self.crop_scale),)

    def preset(self) -> Preset:
        """How views are augmented: what --augmentation stands for, but for what is given."""
        published = dataclasses.asdict(PRESETS[self.augmentation]())
        given = {name: getattr(self, name) for name in published}
        return Preset(**(published | {name: value for name, value in given.items() if value is not None}))


def define_flags(values: flags.FlagValues = flags.FLAGS) -> None:
    """One absl flag in `values` for every field of `Config`."""
    define = {int: flags.DEFINE_integer, float: flags.DEFINE_float, bool: flags.DEFINE_bool, str: flags.DEFINE_string}
    for field in dataclasses.fields(Config):
        help, choices, default = field.metadata["help"], field.metadata["choices"], field.default
        if choices:
            flags.DEFINE_enum(field.name, default, choices, help, flag_values=values)
        elif kind_of(field) is tuple:
            flags.DEFINE_list(field.name, default, help, flag_values=values)
        else:
            define[kind_of(field)](field.name, default, help, flag_values=values)


def from_flags(values: flags.FlagValues = flags.FLAGS) -> Config:
    """The configuration that the command line asks for.

    Args:
      values: parsed absl flags.

    Returns:
      The configuration, with None where a value depends on the data set.

    Raises:
      ValueError: for a list with something else than numbers.
    """
    settings = {}
    for field in dataclasses.fields(Config):
        value = values[field.name].value
        if isinstance(value, list):
            try:
                value = tuple(float(x) for x in value)
            except ValueError:
                raise ValueError(f"expected numbers in --{field.name}, got {','.join(value)!r}") from None
        settings[field.name] = value
    return Config(**settings)


def to_flagfile(config: Config) -> str:
    """A flag file that gives this configuration again."""
    lines = []
    for field in dataclasses.fields(Config):
        value = getattr(config, field.name)
        if isinstance(value, tuple):
            value = ",".join(map(repr, value))
        if value is not None:
            lines.append(f"--{field.name}={value}\n")
    return "".join(lines)


def from_flagfile(path: str) -> Config:
    """The configuration that `to_flagfile` wrote.

    Args:
      path: a flag file.

    Returns:
      The configuration.

    Raises:
      ValueError: if it cannot be read or parsed.
    """
    values = flags.FlagValues()
    define_flags(values)
    try:
        _, *rest = values(["", f"--flagfile={os.path.abspath(path)}"])  # absl would take a ~ at the start for a home
    except (flags.Error, UnicodeDecodeError) as error:
        raise ValueError(f"expected a flag file of this version at {path!r}, got {error}") from error
    if rest:
        raise ValueError(f"expected a flag file of this version at {path!r}, got {rest[0]!r} in it")
    return from_flags(values)


def changed(old: Config, new: Config) -> list[str]:
    """The flags that differ and change what is learned, as "--name (old -> new)"."""
    return [
        f"--{field.name} ({getattr(old, field.name)} -> {getattr(new, field.name)})"
        for field in dataclasses.fields(Config)
        if field.metadata["trajectory"] and getattr(old, field.name) != getattr(new, field.name)
    ]


def inherit(config: Config, old: Config) -> Config:
    """What is left open as in a run that is to go on; its choice may have been made for another number of replicas.

    But for what --augmentation stands for, which it says itself.
    """
    names = {field.name for field in dataclasses.fields(Config) if getattr(config, field.name) is None}
    names -= {field.name for field in dataclasses.fields(Preset)}
    return dataclasses.replace(config, **{name: getattr(old, name) for name in names})


def kind_of(field: dataclasses.Field) -> type:
    """The type of a field's value: int of `int | None`, tuple of `tuple[float, ...]`."""
    kind = field.type
    if isinstance(kind, types.UnionType):
        kind = next(t for t in typing.get_args(kind) if t is not type(None))
    return typing.get_origin(kind) or kind
