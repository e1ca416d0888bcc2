"""What a run will do and need, worked out before it starts."""

import math

import tf_keras as keras

from pic_tf.config import Config

_FLOAT = 4  # bytes


def steps_per_epoch(config: Config) -> int:
    """floor(N / B): the last, partial batch of an epoch is left out."""
    return config.num_instances // config.batch_size


def total_steps(config: Config) -> int:
    """Updates in the whole run."""
    return config.epochs * steps_per_epoch(config)


def peak_learning_rate(config: Config) -> float:
    """--learning_rate for 256 views, in proportion to the batch."""
    return config.learning_rate * config.batch_size / 256


def memory(config: Config, backbone: keras.Model, head: keras.Model, num_replicas: int = 1) -> dict[str, int]:
    """Bytes on each device by part.

    Args:
      config: resolved configuration.
      backbone: the network.
      head: the projection head.
      num_replicas: R.

    Returns:
      Bytes of each part; "activations" is an estimate.
    """
    n, k, b, d = config.num_instances, config.num_negatives, config.batch_size, config.embedding_dim
    own_rows, own_slots, own_views = (-(-x // num_replicas) for x in (n, k, b))
    row = 2 * d * _FLOAT  # weights and momentum
    activation = _FLOAT if config.precision == "float32" else _FLOAT // 2
    return {
        "network (weights, momentum, gradients)": 3 * _FLOAT * (backbone.count_params() + head.count_params()),
        "activations (estimate)": own_views * activation * _kept_activations(backbone, config.image_size),
        "instance ring (weights, momentum, ids)": own_slots * (row + 8),
        "instance store (weights, momentum, stamps)": 0 if k == n else own_rows * (row + 8),
        "soft-max and gradients of the ring": b * own_slots * _FLOAT + 3 * own_slots * d * _FLOAT,
        "product history": 64 * total_steps(config),
    }


def describe(config: Config, backbone: keras.Model, head: keras.Model, devices: str, num_replicas: int) -> str:
    """The plan as text.

    Args:
      config: resolved configuration.
      backbone: the network.
      head: the projection head.
      devices: what it runs on.
      num_replicas: R.

    Returns:
      Lines to print.
    """
    n, w, s, b = config.num_instances, config.window_size, config.window_stride, config.batch_size
    k = config.num_negatives
    steps, per_epoch = total_steps(config), steps_per_epoch(config)
    if w == n and s == n:
        order, visits = "epochs", f"every image comes once in {n:,} views"
    else:
        order = f"sliding window, W {w:,}, S {s:,} (majority ratio {1 - s / w:.1%})"
        rest = (n - w + s) / s * w
        visits = f"an image comes {w / s:.3g} times, {w:,} views apart, then rests for about {rest:,.0f} views"
    negatives = "all (full soft-max)" if k == n else f"{k:,} most recent"
    parts = memory(config, backbone, head, num_replicas)
    rows = [
        ("images", f"{n:,} from {config.dataset}, {config.image_size} px"),
        ("length", f"{config.epochs:,} epochs x {per_epoch:,} steps of {b:,} views = {steps:,} steps"),
        ("order", order),
        ("", visits),
        ("negatives K", f"{negatives}; temperature {config.temperature:g}, {config.similarity}"),
        ("backbone", f"{config.backbone}, {config.stem} stem, width {config.width}: {_trainable(backbone)}"),
        ("head", f"{config.head} to D = {config.embedding_dim}: {_trainable(head)}"),
        (
            "learning rate",
            f"{peak_learning_rate(config):g} after {config.warmup_epochs:g} epochs of warm-up, cosine to "
            f"{config.final_learning_rate:g}; momentum {config.momentum:g}, weight decay {config.weight_decay:g}",
        ),
        *([("", _of_backbone(config))] if config.optimizer != "sgd" else []),
        ("devices", f"{devices}, {config.precision}" + (", compiled by XLA" if config.jit_compile else "")),
        ("norm floor", f"{config.min_row_norm:.4g}" if config.min_row_norm and k < n else "off"),
        *[("memory" if i == 0 else "", f"{_bytes(size):>9}  {part}") for i, (part, size) in enumerate(parts.items())],
        ("", f"{_bytes(sum(parts.values())):>9}  in all{' on each replica' if num_replicas > 1 else ''}"),
        ("output", config.output_dir),
    ]
    return "\n".join(f"{name:<14} {text}" for name, text in rows)


def _kept_activations(backbone: keras.Model, image_size: int) -> int:
    """Numbers an image leaves behind for the backward pass: outputs of convolutions and of what follows them."""
    shapes: dict[str, tuple] = {}
    kept = 0
    for layer in backbone.layers:
        if isinstance(layer, keras.layers.InputLayer):
            shape = (1, image_size, image_size, 3)
        else:
            inbound = layer.inbound_nodes[0].inbound_layers
            inputs = [shapes[x.name] for x in (inbound if isinstance(inbound, list) else [inbound])]
            shape = tuple(layer.compute_output_shape(inputs if len(inputs) > 1 else inputs[0]))
        shapes[layer.name] = shape
        if isinstance(layer, (keras.layers.Conv2D, keras.layers.ReLU, keras.layers.ZeroPadding2D)):
            kept += math.prod(shape[1:])
    return kept


def _of_backbone(config: Config) -> str:
    if config.optimizer == "lars":
        return f"backbone by LARS, trust coefficient {config.lars_trust_coefficient:g}"
    return f"backbone by LAMB, peak learning rate {config.lamb_learning_rate:g}"


def _trainable(model: keras.Model) -> str:
    return f"{sum(math.prod(v.shape) for v in model.trainable_variables):,} trainable parameters"


def _bytes(size: int) -> str:
    for unit in ("B", "KB", "MB"):
        if size < 1000:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:.3g} GB"
