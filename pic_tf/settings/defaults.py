"""Choose the settings that depend on the data set."""

import dataclasses

from pic_tf.data.order import default_shards, default_stride, default_window
from pic_tf.instances.classifier import PAPER_NEGATIVES
from pic_tf.instances.norm_floor import default_floor
from pic_tf.instances.paging.schedule import WindowSchedule
from pic_tf.models.projection import feature_dim
from pic_tf.settings.check import check
from pic_tf.settings.config import Config
from pic_tf.settings.methods import ALL_IMAGES, with_defaults
from pic_tf.settings.networks import plain_backbone


def resolve(config: Config, num_instances: int, num_replicas: int = 1) -> Config:
    """Fill in every setting left open, and check all of them.

    Args:
      config: the configuration.
      num_instances: N, number of training images, found or expected.
      num_replicas: R.

    Returns:
      The configuration without any None but for flags that do not belong to the method.

    Raises:
      ValueError: for a setting out of its range or one that does not fit the others.
    """
    check(config)
    _check_number(config, num_instances)
    _check_devices(config, num_replicas)
    config = with_defaults(config)
    config = dataclasses.replace(
        config, num_instances=num_instances, **dataclasses.asdict(config.preset())
    )
    config = _with_windows(config, num_replicas)
    config = _with_negatives(config, num_replicas)
    _check_store(config, num_replicas)
    return _with_embedding(config)


def _check_number(config: Config, num_instances: int) -> None:
    if config.num_instances not in (0, num_instances):
        raise ValueError(
            f"expected {config.num_instances} training images (--num_instances), got "
            f"{num_instances}: check --dataset"
        )
    if config.batch_size > num_instances:
        raise ValueError(
            f"expected --batch_size to be at most the number of training images ({num_instances}), "
            f"got {config.batch_size}"
        )


def _check_devices(config: Config, num_replicas: int) -> None:
    if config.batch_size % num_replicas:
        raise ValueError(
            f"expected --batch_size to be a multiple of the {num_replicas} replicas, got "
            f"{config.batch_size}: use {_nearest(config.batch_size, num_replicas)}"
        )
    if config.jit_compile and num_replicas > 1:
        raise ValueError(
            f"expected --jit_compile=false with {num_replicas} replicas, got true: XLA does not "
            "compile what crosses between them"
        )
    if config.jit_compile and config.deterministic and config.depth and config.stem == "imagenet":
        raise ValueError(
            "expected --deterministic=false or --stem=small with --jit_compile, got a stem with "
            "max pooling, whose gradient TensorFlow cannot compile for repeatable results"
        )
    groups = config.batch_groups
    if config.method == "mocov2" and (
        groups % num_replicas or config.batch_size % groups or config.batch_size < 2 * groups
    ):
        raise ValueError(
            f"expected --batch_groups to be a multiple of the {num_replicas} replicas, and "
            f"--batch_size ({config.batch_size}) a multiple of it, at least twice as large, got "
            f"{groups}"
        )


def _with_windows(config: Config, num_replicas: int) -> Config:
    """Choose W, S and V (paper, Section 2.2); S is a multiple of R."""
    n, asked = config.num_instances, (config.window_size, config.window_stride)
    if config.order == "epoch":
        if asked not in ((None, None), (n, n)):
            names = ("window_size", "window_stride")
            got = " and ".join(f"--{name}" for name, size in zip(names, asked) if size is not None)
            raise ValueError(
                f"expected no --window_size or --window_stride with --order=epoch, got {got}: "
                "leave it out"
            )
        window = stride = n
    else:
        window, stride = default_window(n, config.batch_size)
    if config.window_size is not None:
        window, stride = config.window_size, default_stride(config.window_size)
    if config.window_stride is not None:
        stride = config.window_stride
    elif stride != n:
        stride = max(stride // num_replicas, 1) * num_replicas
    shards = config.virtual_shards
    if shards is None:
        shards = default_shards(n, window, stride, num_replicas)
    config = dataclasses.replace(
        config, window_size=window, window_stride=stride, virtual_shards=shards
    )
    config.sliding_windows(num_replicas)  # raises where the sizes do not fit
    return config


def _with_negatives(config: Config, num_replicas: int) -> Config:
    """Choose K: half a window as in the paper; all images where the order has no window.

    Of mocov2 a sixteenth of the images, so that few keys in its queue are of a view's own image. A
    multiple of R, or N.
    """
    n, negatives = config.num_instances, config.num_negatives
    if config.method == "simclr":  # they are the other views of the batch
        if config.batch_size < 2:
            raise ValueError(
                "expected --batch_size of at least 2 with --method=simclr, got 1: without another "
                "image its loss is always 0"
            )
        return config
    if config.method in ALL_IMAGES and negatives not in (None, 0, n):
        raise ValueError(
            f"expected all images in the soft-max with --method={config.method}, got "
            f"--num_negatives={negatives}: leave it out"
        )
    if negatives is None and config.method == "mocov2":
        negatives = min(PAPER_NEGATIVES, max(n // 16, config.batch_size))
    elif negatives is None and config.method in ALL_IMAGES:
        negatives = n
    elif negatives is None and config.window_size == n:
        negatives = min(n, PAPER_NEGATIVES)
    elif negatives is None:
        negatives = min(PAPER_NEGATIVES, max(config.window_size // 2, config.batch_size))
    if config.num_negatives is None and negatives != n:
        negatives = negatives // num_replicas * num_replicas
    negatives = negatives or n
    if not config.batch_size <= negatives <= n:
        raise ValueError(
            f"expected --num_negatives between --batch_size ({config.batch_size}) and the number "
            f"of training images ({n}), got {negatives}: 0 stands for all"
        )
    if negatives < 2:
        raise ValueError(
            "expected at least 2 images in the soft-max (--num_negatives), got 1: its loss is "
            "always 0"
        )
    if negatives % num_replicas and negatives != n:
        raise ValueError(
            f"expected --num_negatives to be a multiple of the {num_replicas} replicas, got "
            f"{negatives}: use {_nearest(negatives, num_replicas)}, or 0 for all"
        )
    return dataclasses.replace(config, num_negatives=negatives)


def _check_store(config: Config, num_replicas: int) -> None:
    """See that resting rows can be where --instance_store asks for."""
    if config.instance_store == "device":
        return
    if config.num_negatives == config.num_instances:
        raise ValueError(
            "expected --instance_store=device with all images in the soft-max (--num_negatives), "
            f"where no row rests, got {config.instance_store}"
        )
    fewest = config.sliding_windows(num_replicas)[-1]  # the last replica has the fewest rows
    WindowSchedule(fewest, config.num_negatives)  # raises where the window needs all of them
    if config.steps_per_execution > fewest.steps_per_window:
        raise ValueError(
            f"expected --steps_per_execution of at most the {fewest.steps_per_window} steps of a "
            f"window with --instance_store={config.instance_store}, got "
            f"{config.steps_per_execution}"
        )
    if config.instance_store == "disk" and config.keep_checkpoint_every:
        raise ValueError(
            "expected --keep_checkpoint_every=0 with --instance_store=disk, got "
            f"{config.keep_checkpoint_every}: rows on disk are kept for the newest checkpoints only"
        )


def _with_embedding(config: Config) -> Config:
    """Choose D, the norm floor and the warm-up."""
    dim = config.embedding_dim
    if config.head == "none":
        dim = _number_of_features(config)
    floor, warmup = config.min_row_norm, config.warmup_epochs
    if config.method == "pic" and floor is None:
        floor = default_floor(dim, config.similarity)
    return dataclasses.replace(
        config,
        embedding_dim=dim,
        min_row_norm=floor,
        warmup_epochs=config.epochs / 40 if warmup is None else warmup,
    )


def _number_of_features(config: Config) -> int:
    if config.depth is None:
        return feature_dim(plain_backbone(config))
    return config.width * (32 if config.depth >= 50 else 8)


def _nearest(value: int, divisor: int) -> str:
    """Name the multiples of `divisor` on both sides of `value`."""
    below = value // divisor * divisor
    return " or ".join(str(x) for x in (below, below + divisor) if x)
