"""Declare the settings of learning: order, negatives, model, optimisation."""

import dataclasses

from pic_tf.data.order import PAPER_WINDOW, VIRTUAL_SHARDS
from pic_tf.instances.classifier import PAPER_NEGATIVES
from pic_tf.instances.loss import SIMILARITIES
from pic_tf.models.projection import HEADS
from pic_tf.models.resnet import DEPTHS
from pic_tf.settings.setting import setting

OPTIMIZERS = ("sgd", "lars", "lamb")
INSTANCE_STORES = ("device", "disk")
_LENGTHS = "1 <= x <= 65536"
_RATE = "0 < x <= 1e6"  # float32 has to hold the numbers that follow from a rate


@dataclasses.dataclass(frozen=True)
class Order:
    """Order of visits."""

    order: str | None = setting(
        None,
        "Order of visits: the paper's sliding window, or the usual epochs. The default is "
        "sliding_window, and epoch with diet.",
        choices=("sliding_window", "epoch"),
    )
    window_size: int | None = setting(
        None,
        f"Images in a window, W, a multiple of --batch_size. The default is {PAPER_WINDOW}, or at "
        "most half of a smaller data set; all images where they are less than 8 batches, and with "
        "--order=epoch.",
        limit="x >= 1",
    )
    window_stride: int | None = setting(
        None,
        "Images by which the window moves on, S, from 1 to W. The default is W / 8, or W "
        "where that is all images by default.",
        limit="x >= 1",
    )
    virtual_shards: int | None = setting(
        None,
        "Virtual shards of the images, V, each in an order of its own: a window holds the same "
        "images for every number of replicas that divides V, so a run with rows on disk can go on "
        "with another number. 0 means one shard a replica. The default is, with windows, "
        f"{VIRTUAL_SHARDS} where it divides W and S and the replicas divide it, else 0.",
        limit="x >= 0",
    )
    seed: int = setting(
        0, "Seed of the weights, the order, the crops and the augmentation, >= 0.", limit="x >= 0"
    )


@dataclasses.dataclass(frozen=True)
class Negatives:
    """Instance weights and negatives."""

    num_negatives: int | None = setting(
        None,
        "Most recent images in the denominator of the soft-max, K; with mocov2 the length of the "
        "queue of keys. 0 takes all of them (the full soft-max), and so do instdisc and diet. The "
        f"default is {PAPER_NEGATIVES}, or where that is less W / 2, W where the window is all "
        "images, N / 16 with mocov2.",
        limit="x >= 0",
    )
    temperature: float | None = setting(
        None,
        "Temperature of the soft-max, tau. The default is the published one of --method: 0.2, and "
        "0.1 for simclr, 0.07 for instdisc, 1 for diet.",
        limit="1e-4 <= x <= 1e6",
    )
    label_smoothing: float | None = setting(
        None,
        "Share of the target in the soft-max that all images have in common, 0 to less than 1. The "
        "default is 0, and 0.8 with diet.",
        limit="0 <= x < 1",
    )
    mixup_probability: float = setting(
        0.0,
        "Probability that the views of a step are mixed with those of other images, 0 to 1, which "
        "then share the target (i-Mix).",
        limit="0 <= x <= 1",
    )
    similarity: str | None = setting(
        None,
        "Logit of an image's class: the cosine of embedding and row, or their plain dot product. "
        "The default is cosine, and dot with diet.",
        choices=SIMILARITIES,
    )
    weight_correction: bool = setting(
        True,
        "Catch up the updates missed by a row during its rest. False is an ablation of the paper.",
    )
    min_row_norm: float | None = setting(
        None,
        "Norm floor: rows that return shorter are rescaled to it; 0 turns the floor off. The "
        "default is 0.01 sqrt(D), and 0 for dot products.",
        limit="0 <= x <= 1e6",
    )
    forget_after: int = setting(
        0,
        "Rest in steps after which a row begins anew with its first weights, >= 0: an ablation of "
        "the paper. The default 0 forgets none.",
        limit="x >= 0",
    )
    instance_store: str = setting(
        "device",
        "Place of resting rows: all of them on the device; or there those of the window and two "
        "strides, and all others on disk.",
        choices=INSTANCE_STORES,
        trajectory=False,
    )
    rows_dir: str = setting(
        "",
        "Folder for rows with --instance_store=disk, on each worker's own disk; a folder in memory "
        "such as /dev/shm will do. The default '' takes the folder 'rows' in --output_dir.",
        trajectory=False,
    )


@dataclasses.dataclass(frozen=True)
class Model:
    """Backbone and projection head."""

    backbone: str = setting(
        "resnet50",
        f"Network to pretrain: {', '.join(f'resnet{depth}' for depth in DEPTHS)}; "
        "applications:NAME, a network of tf_keras.applications; keras_cv:PRESET, a backbone of "
        "keras-cv, which downloads it from Kaggle, or the folder of one; ours:vit_tiny, vit_small "
        "or vit_base, with _patchN behind for other patches than 16 pixels; or "
        "module.path:function, a function of yours that builds one.",
    )
    stem: str = setting(
        "imagenet",
        "First layers: imagenet (7 x 7 with stride 2, then pooling), or small (3 x 3, for images "
        "of 8 to 64 pixels).",
        choices=("imagenet", "small"),
    )
    width: int = setting(
        64, "Channels of the first stage, 1 to 65536. The published network has 64.", limit=_LENGTHS
    )
    initial_weights: str = setting(
        "",
        "Weights to start the backbone from: the folder of an export or of a finished run, "
        "FILE.safetensors or FILE.pth (names of torchvision, timm or PIC's authors), FILE.keras or "
        "FILE.weights.h5; or 'imagenet' for the published ones of --backbone=applications:NAME, "
        "which Keras downloads, or 'preset' for those of --backbone=keras_cv:PRESET. The default "
        "'' draws them by --seed.",
    )
    initial_weights_sha256: str = setting(
        "", "SHA-256 of --initial_weights, which a run fills in: it goes on with the same alone."
    )
    freeze_backbone_epochs: int = setting(
        0,
        "Epochs at the beginning in which head and rows move alone, so that young rows do not "
        "spoil --initial_weights, >= 0 and below --epochs.",
        limit="x >= 0",
    )
    head: str = setting(
        "mlp",
        "Projection head: the paper's mlp, linear or none; or mlp_bn, whose batch normalisation "
        "speeds up short runs.",
        choices=HEADS,
    )
    hidden_dim: int = setting(
        2048, "Width of the hidden layer of an mlp head, 1 to 65536.", limit=_LENGTHS
    )
    embedding_dim: int = setting(
        128,
        "Size of an embedding and of an instance row, D, 1 to 65536. With --head=none it is the "
        "size of the features.",
        limit=_LENGTHS,
    )


@dataclasses.dataclass(frozen=True)
class Optimisation:
    """Length and optimisation."""

    epochs: int = setting(200, "Training length in epochs of N views.", limit="1 <= x <= 1e6")
    batch_size: int = setting(512, "Images a step, over all replicas, B.", limit="x >= 1")
    optimizer: str = setting(
        "sgd",
        "Optimizer of the backbone: the paper's sgd, or lars or lamb for large batches. Head and "
        "rows are always moved by sgd. lamb needs pip install 'pic_tf[addons]' (Python 3.10 or "
        "3.11).",
        choices=OPTIMIZERS,
    )
    learning_rate: float = setting(
        0.03,
        "Peak learning rate for a batch of 256 images; it grows in proportion to --batch_size.",
        limit=_RATE,
    )
    warmup_epochs: float | None = setting(
        None, "Epochs of linear warm-up. The default is a fortieth of --epochs."
    )
    final_learning_rate: float = setting(
        1e-6, "Learning rate at the end of the cosine.", limit="0 <= x <= 1e6"
    )
    momentum: float = setting(0.9, "Momentum of sgd, m, from 0 to less than 1.", limit="0 <= x < 1")
    weight_decay: float = setting(
        1e-4, "Weight decay of every parameter and row, lambda.", limit="0 <= x <= 1e6"
    )
    lars_trust_coefficient: float = setting(
        0.001,
        "Length of an update of lars before the learning rate, as a share of the length of the "
        "tensor.",
        limit=_RATE,
    )
    lamb_learning_rate: float = setting(
        0.002, "Peak learning rate of lamb, for any batch size.", limit=_RATE
    )
