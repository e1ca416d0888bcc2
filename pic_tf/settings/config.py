"""Declare every setting of a pretraining run."""

import dataclasses

from pic_tf.data.crops import Crop, parse_crops
from pic_tf.data.order import SlidingWindow
from pic_tf.data.presets import PRESETS, Preset
from pic_tf.instances.loss import SIMILARITIES
from pic_tf.models.projection import HEADS
from pic_tf.models.resnet import DEPTHS
from pic_tf.replicas.devices import STRATEGIES
from pic_tf.settings.setting import setting

PRECISIONS = ("float32", "bfloat16", "float16")
OPTIMIZERS = ("sgd", "lars", "lamb")
INSTANCE_STORES = ("device", "host", "disk")


@dataclasses.dataclass(frozen=True)
class Config:
    """Settings of one run. The defaults are the paper's ImageNet recipe; None means "chosen for the data set"."""

    dataset: str = setting(
        "digits",
        "images to train on: 'digits' (1,500 scans of 8 x 8 pixels that come with scikit-learn), a folder of images of "
        "any nesting, a folder that tools/pack.py made, or tfds:NAME[:SPLIT] (or tfds:FOLDER) as TensorFlow Datasets "
        "prepared it; a folder with train and val inside is split accordingly",
        None,
        False,  # the folder may move; what is in it is compared itself
    )
    eval_dataset: str = setting(
        "",
        "held-out images for the kNN monitor, in the same forms (a folder needs one folder a class); '' for those of "
        "--dataset",
        None,
        False,
    )
    num_instances: int = setting(
        0, "how many training images to expect; 0 to take what is there. Lets --plan_only work without the data"
    )
    output_dir: str = setting("runs/pic", "folder for checkpoints, logs and the exported backbone", None, False)
    seed: int = setting(0, "seed of the weights, the order, the crops and the augmentation, >= 0")

    epochs: int = setting(200, "training length in epochs of N views")
    batch_size: int = setting(512, "views a step, over all replicas")
    order: str = setting(
        "sliding_window",
        "order of visits: sliding window (the paper's) or the usual epochs",
        ("sliding_window", "epoch"),
    )
    window_size: int | None = setting(
        None, "images in a window, W, a multiple of --batch_size; default 131072, at most half of a small data set"
    )
    window_stride: int | None = setting(None, "images by which the window moves, S; default W / 8")
    virtual_shards: int | None = setting(
        None,
        "shards of the images, V, each with an order of its own: a window holds the same images for every number of "
        "replicas that divides V, so that a run with rows on disk can go on with another one; 0 for one a replica; "
        "default 256 where it divides W and S and the replicas divide it, else 0",
    )

    num_negatives: int | None = setting(
        None,
        "most recent images in the soft-max's denominator, K; 0 for all of them (the full soft-max); default 65536, "
        "at most W / 2",
    )
    temperature: float = setting(0.2, "soft-max temperature, tau")
    similarity: str = setting("cosine", "logit of an image's class: cosine, or the plain dot product", SIMILARITIES)
    weight_correction: bool = setting(
        True, "catch up with the updates that a row missed while it was away (False: the paper's ablation)"
    )
    min_row_norm: float | None = setting(
        None,
        "rows fetched with a smaller norm are rescaled to it; 0 for never; default 0.01 sqrt(D), 0 for dot products",
    )

    instance_store: str = setting(
        "device",
        "where rows rest between visits: all on the device; or there only those of the window and two strides, the "
        "others in host memory or on disk",
        INSTANCE_STORES,
        False,
    )
    rows_dir: str = setting(
        "",
        "with --instance_store=disk: folder for the rows, on each worker's own disk; '' for 'rows' in --output_dir",
        None,
        False,
    )

    backbone: str = setting("resnet50", "network to pretrain", tuple(f"resnet{depth}" for depth in DEPTHS))
    stem: str = setting(
        "imagenet", "first layers: 7 x 7 stride 2 and pooling, or 3 x 3 for 8 to 64 pixels", ("imagenet", "small")
    )
    width: int = setting(64, "channels of the first stage; 64 is the published network")
    head: str = setting(
        "mlp",
        "projection head; mlp_bn, with batch normalisation, is not the paper's but makes short runs faster",
        HEADS,
    )
    hidden_dim: int = setting(2048, "width of the mlp head's hidden layer")
    embedding_dim: int = setting(128, "size of an embedding and of an instance row, D; with --head=none the features'")

    image_size: int = setting(224, "side of a view in pixels, in training unless --crops says otherwise")
    crops: str = setting(
        "",
        "several views of an image in a step, decoded once: COUNTxSIZE@LEAST-LARGEST of each kind, like "
        "1x160@0.14-1.0,3x96@0.08-0.14 (sides in pixels, areas as shares of the image); '' for one of --image_size and "
        "--crop_scale",
    )
    small_crops_move_rows: bool = setting(
        False, "with --crops: whether views of all kinds move the rows of their images, or those of the first kind only"
    )
    augmentation: str = setting(
        "simclr",
        "published augmentation, which stands for those flags from --crop_scale to --rand_augment that are not given",
        tuple(PRESETS),
    )
    crop_scale: tuple[float, ...] | None = setting(None, "least and largest area of a random crop, share of the image")
    flip_probability: float | None = setting(None, "of mirroring a view")
    jitter: tuple[float, ...] | None = setting(
        None, "strength of brightness, contrast, saturation (0 to 1) and hue (0 to 0.5 turns)"
    )
    jitter_probability: float | None = setting(None, "of changing the colours of a view")
    grayscale_probability: float | None = setting(None, "of dropping the colours of a view")
    grayscale_first: bool | None = setting(None, "drop them before the jitter, not after it")
    blur_probability: float | None = setting(None, "of blurring a view")
    blur_sigma: tuple[float, ...] | None = setting(None, "least and largest standard deviation of the blur in pixels")
    rand_augment: tuple[float, ...] | None = setting(
        None,
        "RandAugment instead of jitter, grayscale and blur: operations a view (1 to 4), magnitude (0 to 1); 0,0 for "
        "none",
    )
    augment_on: str = setting(
        "device",
        "where views are augmented: on the device, or on the host's CPUs, for machines whose accelerator has no time "
        "left (four times the bytes go to it)",
        ("device", "host"),
    )
    max_broken: float = setting(
        0.01,
        "stop when more than this share of the images turns out to be broken; fewer are left out, and listed in "
        "broken_images.csv",
        None,
        False,
    )

    optimizer: str = setting(
        "sgd",
        "how backbone and head move: sgd as the paper; lars or lamb for the backbone in large batches, head and rows "
        "by sgd. lamb needs pip install 'pic_tf[addons]' (Python 3.10 or 3.11)",
        OPTIMIZERS,
    )
    learning_rate: float = setting(0.03, "peak learning rate for 256 views a step; grows with --batch_size")
    lars_trust_coefficient: float = setting(0.001, "with lars: length of an update before the rate, share of |w|")
    lamb_learning_rate: float = setting(0.002, "with lamb: peak learning rate of the backbone, for any batch size")
    final_learning_rate: float = setting(1e-6, "learning rate at the end of the cosine")
    warmup_epochs: float | None = setting(None, "epochs of linear warm-up; default --epochs / 40")
    momentum: float = setting(0.9, "momentum of SGD, m")
    weight_decay: float = setting(1e-4, "weight decay of every parameter and row, lambda")

    strategy: str = setting(
        "auto",
        "devices: none (one), mirrored (all GPUs of this machine), multi_worker (several machines, from TF_CONFIG or "
        "Slurm), tpu, or auto for what is there",
        STRATEGIES,
        False,
    )
    replicas: int = setting(
        0,
        "with --strategy=mirrored: how many GPUs to use, 0 for all; without GPUs, into how many the CPU is split",
        None,
        False,
    )
    precision: str = setting(
        "float32", "of backbone and head; rows, logits and loss are float32 always. float16 scales the loss", PRECISIONS
    )
    jit_compile: bool = setting(False, "compile the whole step with XLA; one replica only (TPUs always do)")
    steps_per_execution: int = setting(
        1, "steps between two returns to Python; more is faster for tiny networks and TPUs", None, False
    )

    knn_every: int = setting(10, "epochs between two kNN evaluations; 0 for none", None, False)
    knn_k: int = setting(20, "neighbours that vote", None, False)
    knn_temperature: float = setting(0.07, "temperature of their votes", None, False)
    knn_images: int = setting(
        20000, "at most this many training images to search, and as many held-out ones to classify", None, False
    )
    labelled_dataset: str = setting(
        "",
        "labelled images that kNN searches and the linear probe learns from, in the forms of --eval_dataset; '' for "
        "the training images, where these have labels. The network never learns from labels",
        None,
        False,
    )
    probe_batch_size: int = setting(
        0,
        "labelled images a step for a linear probe that learns beside the network, without changing it; 0 for none. "
        "Each costs a third of a training view",
    )
    probe_learning_rate: float = setting(0.1, "learning rate of the probe")
    eval_crop: float = setting(
        0.875, "side of the central crop for evaluation, share of the short side (0.875 = 224 / 256)", None, False
    )
    checkpoint_every: int = setting(10, "epochs between two checkpoints; one more is written at the end", None, False)
    keep_checkpoints: int = setting(2, "newest checkpoints to keep", None, False)
    keep_checkpoint_every: int = setting(
        0, "epochs between two checkpoints to keep for good, a multiple of --checkpoint_every; 0 for none", None, False
    )
    on_nan: str = setting(
        "stop",
        "where a loss or gradient is not finite, which never reaches a weight: stop with a report, or skip the step",
        ("stop", "skip"),
        False,
    )
    max_skipped_steps: int = setting(100, "with --on_nan=skip: stop after so many skipped steps", None, False)
    tensorboard: bool = setting(True, "write TensorBoard event files", None, False)
    deterministic: bool = setting(True, "only kernels whose results repeat bit for bit; some GPU kernels are slower")
    intra_op_threads: int = setting(0, "CPU threads an operation; 0 for TensorFlow's choice, 1 suits tiny networks")

    @property
    def depth(self) -> int:
        """Depth of the ResNet."""
        return int(self.backbone.removeprefix("resnet"))

    def views(self) -> tuple[Crop, ...]:
        """What a step takes of each image; of a resolved configuration."""
        return parse_crops(self.crops) if self.crops else (Crop(self.image_size, self.crop_scale),)

    def sliding_windows(self, num_replicas: int = 1) -> list[SlidingWindow]:
        """The order in which each replica visits its images; of a resolved configuration."""
        n, b, w, s = self.num_instances, self.batch_size, self.window_size, self.window_stride
        return [
            SlidingWindow(n, b, w, s, self.seed, replica, num_replicas, self.virtual_shards)
            for replica in range(num_replicas)
        ]

    def preset(self) -> Preset:
        """How views are augmented: what --augmentation stands for, but for what is given."""
        published = dataclasses.asdict(PRESETS[self.augmentation]())
        given = {name: getattr(self, name) for name in published}
        return Preset(**(published | {name: value for name, value in given.items() if value is not None}))
