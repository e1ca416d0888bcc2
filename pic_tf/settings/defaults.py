"""Choose the settings that depend on the data set."""

import dataclasses

from pic_tf.data.order import SlidingWindow, default_shards, default_stride, default_window
from pic_tf.instances.classifier import default_floor
from pic_tf.instances.paging.schedule import Pages
from pic_tf.settings.check import check
from pic_tf.settings.config import Config


def resolve(config: Config, num_instances: int, num_replicas: int = 1) -> Config:
    """Fill in what depends on the data set, and check every setting.

    Args:
      config: the configuration.
      num_instances: N, number of training images found, or expected where there are none to look at.
      num_replicas: R.

    Returns:
      The configuration without any None.

    Raises:
      ValueError: for a setting out of its range or one that does not fit the others.
    """
    check(config)
    config = dataclasses.replace(config, **dataclasses.asdict(config.preset()))
    if config.num_instances not in (0, num_instances):
        raise ValueError(
            f"expected {config.num_instances} training images (--num_instances), got {num_instances}: check --dataset"
        )
    n, b, r = num_instances, config.batch_size, num_replicas
    if b > n:
        raise ValueError(f"expected --batch_size to be at most the number of training images ({n}), got {b}")
    if b % r:
        raise ValueError(f"expected --batch_size to be a multiple of the {r} replicas, got {b}: use {_nearest(b, r)}")
    if config.jit_compile and r > 1:
        raise ValueError(
            f"expected --jit_compile=false with {r} replicas, got true: XLA does not compile what crosses between them"
        )
    window, stride = (n, n) if config.order == "epoch" else default_window(n, b)
    if config.order == "epoch" and (config.window_size, config.window_stride) not in ((None, None), (n, n)):
        got = " and ".join(f"--{x}" for x in ("window_size", "window_stride") if getattr(config, x) is not None)
        raise ValueError(f"expected no --window_size or --window_stride with --order=epoch, got {got}: leave it out")
    if config.window_size is not None:
        window, stride = config.window_size, default_stride(config.window_size)
    if stride != n:
        stride = max(stride // r, 1) * r
    if config.window_stride is not None:
        stride = config.window_stride
    shards = config.virtual_shards
    if shards is None:
        shards = default_shards(n, window, stride, r)
    order = SlidingWindow(n, b, window, stride, 0, r - 1, r, shards)  # raises where they do not fit
    negatives = config.num_negatives
    if negatives is None:
        # Half a window, as in the paper (65536 of 131072); everything where the order has no window.
        negatives = min(n, 65536) if window == n else min(65536, max(window // 2, b))
        negatives = n if negatives == n else negatives // r * r
    negatives = negatives or n
    if not b <= negatives <= n:
        raise ValueError(
            f"expected --num_negatives between --batch_size ({b}) and the number of training images ({n}), got "
            f"{negatives}: 0 stands for all"
        )
    if negatives < 2:
        raise ValueError("expected at least 2 images in the soft-max (--num_negatives), got 1: its loss is always 0")
    if negatives % r and negatives != n:
        raise ValueError(
            f"expected --num_negatives to be a multiple of the {r} replicas, got {negatives}: use "
            f"{_nearest(negatives, r)}, or 0 for all"
        )
    _check_store(config, order, negatives)  # the last replica has the fewest rows
    dim = config.embedding_dim
    if config.head == "none":
        dim = config.width * (32 if config.depth >= 50 else 8)
    floor = default_floor(dim, config.similarity) if config.min_row_norm is None else config.min_row_norm
    warmup = config.epochs / 40 if config.warmup_epochs is None else config.warmup_epochs
    return dataclasses.replace(
        config,
        num_instances=n,
        window_size=window,
        window_stride=stride,
        virtual_shards=shards,
        num_negatives=negatives,
        embedding_dim=dim,
        min_row_norm=floor,
        warmup_epochs=warmup,
    )


def _check_store(config: Config, fewest: SlidingWindow, negatives: int) -> None:
    if config.instance_store == "device":
        return
    if negatives == fewest.num_instances:
        raise ValueError(
            f"expected --instance_store=device with all images in the soft-max (--num_negatives), where no row rests, "
            f"got {config.instance_store}"
        )
    Pages(fewest, negatives)  # raises where the window needs all of them
    if config.steps_per_execution > fewest.steps_per_window:
        raise ValueError(
            f"expected --steps_per_execution of at most the {fewest.steps_per_window} steps of a window with "
            f"--instance_store={config.instance_store}, got {config.steps_per_execution}"
        )
    if config.instance_store == "disk" and config.keep_checkpoint_every:
        raise ValueError(
            f"expected --keep_checkpoint_every=0 with --instance_store=disk, got {config.keep_checkpoint_every}: rows "
            "on disk are kept for the newest checkpoints only"
        )


def _nearest(value: int, divisor: int) -> str:
    """The multiples of `divisor` on both sides of `value`."""
    return " or ".join(str(x) for x in (value // divisor * divisor, (value // divisor + 1) * divisor) if x)
