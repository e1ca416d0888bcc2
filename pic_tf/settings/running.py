"""Declare the settings of running: devices, monitors, files."""

import dataclasses

from pic_tf.replicas.devices import STRATEGIES
from pic_tf.settings.setting import setting

PRECISIONS = ("float32", "bfloat16", "float16")
_RATE = "0 < x <= 1e6"


@dataclasses.dataclass(frozen=True)
class Devices:
    """Devices and precision."""

    strategy: str = setting(
        "auto",
        "Devices to train on: none (one device), mirrored (all GPUs of this machine), multi_worker "
        "(several machines, from TF_CONFIG or Slurm), tpu, or auto (whatever there is).",
        choices=STRATEGIES,
        trajectory=False,
    )
    replicas: int = setting(
        0,
        "GPUs to use with --strategy=mirrored; without GPUs, parts of the CPU. The default 0 takes "
        "all GPUs.",
        limit="x >= 0",
        trajectory=False,
    )
    precision: str = setting(
        "float32",
        "Precision of backbone and head. Rows, logits and loss are always float32; float16 scales "
        "the loss.",
        choices=PRECISIONS,
    )
    jit_compile: bool = setting(
        False, "Compile the whole step with XLA, on one replica only. TPUs always do."
    )
    steps_per_execution: int = setting(
        1,
        "Steps between two returns to Python. More of them speed up tiny networks and TPUs.",
        limit="x >= 1",
        trajectory=False,
    )
    deterministic: bool = setting(
        True,
        "Use only kernels whose results repeat bit for bit. Some GPU kernels of this kind are "
        "slower.",
    )
    intra_op_threads: int = setting(
        0,
        "CPU threads of an operation, 0 to 1024; 1 suits tiny networks. The default 0 leaves the "
        "choice to TensorFlow.",
        limit="0 <= x <= 1024",
    )


@dataclasses.dataclass(frozen=True)
class Monitors:
    """Monitors of a run."""

    knn_every: int = setting(
        10,
        "Epochs between two evaluations of the features, by their rank and cosines and, with "
        "labelled held-out images, by kNN; 0 turns them off.",
        limit="x >= 0",
        trajectory=False,
    )
    knn_k: int = setting(
        20, "Nearest neighbours that vote on a class.", limit="x >= 1", trajectory=False
    )
    knn_temperature: float = setting(
        0.07, "Temperature of the neighbours' votes.", limit="1e-4 <= x <= 1e6", trajectory=False
    )
    knn_images: int = setting(
        20000,
        "Largest number of training images to search and to compute the rank of, and of held-out "
        "images to classify.",
        limit="x >= 1",
        trajectory=False,
    )
    labelled_dataset: str = setting(
        "",
        "Labelled images for kNN to search and for the linear probe to learn from, in the forms of "
        "--eval_dataset. The default '' takes the training images, if they have labels. The "
        "network never learns from labels.",
        trajectory=False,
    )
    probe_batch_size: int = setting(
        0,
        "Labelled images a step for a linear probe, which learns beside the network without "
        "changing it; 0 turns it off. Each image costs a third of a training view.",
        limit="x >= 0",
    )
    probe_learning_rate: float = setting(
        2.0,
        "Peak learning rate of the linear probe, times the number of features; it falls to 0 along "
        "half a cosine.",
        limit=_RATE,
        trajectory=False,  # nothing else depends on it
    )
    label_curve: tuple[float, ...] = setting(
        (),
        "Numbers of labels, such as 10,30,100,300, for a comparison at the end: accuracy of "
        "logistic regression on the features of so many labelled images, beside those of the "
        "network as it began (random, or initial weights) and raw pixels (labels.png, "
        "label_curve.csv). The default '' makes none.",
        trajectory=False,
    )
    neighbours: int = setting(
        0,
        "Held-out images to draw at the end, each with its 10 nearest training images "
        "(neighbours.png), up to 100; the default 0 draws none.",
        limit="0 <= x <= 100",
        trajectory=False,
    )
    eval_crop: float = setting(
        0.875,
        "Side of the central crop in evaluations, as a share of the short side, above 0 and up to "
        "1 (0.875 = 224 / 256).",
        limit="0 < x <= 1",
        trajectory=False,
    )
    on_nan: str = setting(
        "stop",
        "Reaction to a loss or gradient that is not finite: stop with a report, or skip the step. "
        "In both cases no weight is touched by it.",
        choices=("stop", "skip"),
        trajectory=False,
    )
    max_skipped_steps: int = setting(
        100,
        "Largest number of skipped steps with --on_nan=skip; more of them end the run.",
        limit="x >= 1",
        trajectory=False,
    )


@dataclasses.dataclass(frozen=True)
class Files:
    """Files of a run."""

    output_dir: str = setting(
        "runs/pic",
        "Folder for checkpoints, logs and the exported backbone. A run that is there goes on.",
        trajectory=False,
    )
    checkpoint_every: int = setting(
        10,
        "Epochs between two checkpoints; one more is written at the end.",
        limit="x >= 1",
        trajectory=False,
    )
    keep_checkpoints: int = setting(
        2, "Number of newest checkpoints to keep.", limit="x >= 1", trajectory=False
    )
    keep_checkpoint_every: int = setting(
        0,
        "Epochs between two checkpoints to keep for good, a multiple of --checkpoint_every; 0 "
        "keeps none.",
        limit="x >= 0",
        trajectory=False,
    )
    tensorboard: bool = setting(True, "Write TensorBoard event files.", trajectory=False)
