"""Work out what a run needs: steps, learning rates, memory, disk."""

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import tf_keras as keras

from pic_tf.data.crops import total
from pic_tf.instances.paging.schedule import WindowSchedule
from pic_tf.models.input_scaling import channels_of
from pic_tf.optim.schedules import WarmupCosine
from pic_tf.settings.config import Config

_FLOAT = 4  # bytes
_SAMPLES = 100_000  # of the learning rate, which changes slowly
ACTIVATIONS = "activations (estimate)"  # a part of `memory`
_KEPT = (keras.layers.Conv2D, keras.layers.ReLU, keras.layers.ZeroPadding2D)  # for gradients


def steps_per_epoch(config: Config) -> int:
    """Count the steps of an epoch, floor(N / B): the last, partial batch is left out."""
    return config.num_instances // config.batch_size


def total_steps(config: Config) -> int:
    """Count the updates of the whole run, T."""
    return config.epochs * steps_per_epoch(config)


def number_of_views(config: Config) -> int:
    """Count the views of a run: steps x B images x views of an image."""
    return total_steps(config) * config.batch_size * total(config.views())


def peak_learning_rate(config: Config) -> float:
    """Scale --learning_rate, meant for 256 images, in proportion to the batch."""
    return config.learning_rate * config.batch_size / 256


def learning_rates(config: Config) -> WarmupCosine:
    """Make the learning rate of all that has no optimizer of its own."""
    steps = total_steps(config)
    warmup = min(round(config.warmup_epochs * steps_per_epoch(config)), steps - 1)
    return WarmupCosine(peak_learning_rate(config), steps, warmup, config.final_learning_rate)


def resting_steps(config: Config) -> float:
    """Count the steps of a row out of the ring between two sweeps of the window, on average.

    ((N - W + S) / S W - K) / B

    From its last visit in a window to its first after (N - W) / S windows without it pass as many
    windows and another half at both ends; during the first K views of them it is still in the ring.
    With W = S = N it is the rest between two epochs.

    Args:
      config: resolved configuration.

    Returns:
      Steps; 0 where K = N, where no row ever leaves.
    """
    n, k = config.num_instances, config.num_negatives
    w, s = config.window_size, config.window_stride
    return 0.0 if k == n else max((n - w + s) / s * w - k, 0) / config.batch_size


def shrinking(config: Config) -> tuple[float, float]:
    """Work out the shrinking of a row by its rest, |w_t| / |w_s|.

    prod_{k=s}^{t-1} mu_k, with mu_k the larger eigenvalue of M_k: mu^2 - (1 + m - eta_k lambda) mu
    + m = 0; about exp(-sum eta_k lambda / (1 - m)). Rates change so slowly that the eigenvectors of
    successive M_k are the same.

    Args:
      config: resolved configuration.

    Returns:
      The least, where the rates are highest, and the geometric mean over all rests within the run;
      (1, 1) where the run is over before a row returns.
    """
    steps, rest, m = total_steps(config), resting_steps(config), config.momentum
    stride = max(steps // _SAMPLES, 1)
    times = np.arange(0, steps, stride)
    trace = 1 + m - learning_rates(config)(times).numpy().astype(np.float64) * config.weight_decay
    eigenvalues = np.abs(trace + np.sqrt(trace**2 - 4 * m + 0j)) / 2
    log_norm = np.concatenate([[0.0], stride * np.cumsum(np.log(eigenvalues))])
    times = np.append(times, times[-1] + stride)
    starts = times[times + rest <= steps]
    if not len(starts):
        return 1.0, 1.0
    change = np.interp(starts + rest, times, log_norm) - log_norm[: len(starts)]
    return math.exp(change.min()), math.exp(change.mean())


def rows_on_device(config: Config, num_replicas: int = 1) -> int | None:
    """Count the resting rows on the device of a replica; None for all of its own."""
    return (
        None
        if config.instance_store == "device"
        else WindowSchedule(
            config.sliding_windows(num_replicas)[0], config.num_negatives
        ).rows_on_device
    )


def rows_off_device(config: Config) -> int:
    """Add up the bytes of all resting rows."""
    return config.num_instances * _row_size(config)


def kept_checkpoints(config: Config) -> int:
    """Count the most checkpoints at a time, with the one being written."""
    for_good = config.epochs // config.keep_checkpoint_every if config.keep_checkpoint_every else 0
    return config.keep_checkpoints + 1 + for_good


def rows_on_disk(config: Config) -> int:
    """Add up the bytes of the most rows on disk at a time.

    Those of all instances, and as many as have moved since the oldest checkpoint that is kept;
    never more than move in the whole run.
    """
    moved = config.window_stride / (config.window_size // config.batch_size)  # rows a step
    since_oldest = (config.keep_checkpoints + 1) * config.checkpoint_every * steps_per_epoch(config)
    rows = min(config.num_instances + since_oldest * moved, total_steps(config) * moved)
    return int(rows * _row_size(config))


def _row_size(config: Config) -> int:
    """Bytes of a resting row: weights, momentum, stamp."""
    return 2 * config.embedding_dim * _FLOAT + 8


def memory(
    config: Config, backbone: keras.Model, head: keras.Model, num_replicas: int = 1
) -> dict[str, int]:
    """Add up the bytes on each device by part.

    Args:
      config: resolved configuration.
      backbone: the network.
      head: the projection head.
      num_replicas: R.

    Returns:
      Bytes of each part; "activations" is an estimate.
    """
    network = backbone.count_params() + head.count_params()
    activation = _FLOAT if config.precision == "float32" else _FLOAT // 2
    kept_of = _kept_activations if config.depth else _kept_in_any_network
    kept = sum(crop.count * kept_of(backbone, crop.size) for crop in config.views())
    own_images = -(-config.batch_size // num_replicas)
    if config.method == "mocov2":
        kept //= 2  # nothing flows back through the keys
    return {
        "network (weights, momentum, gradients)": 3 * _FLOAT * network,
        ACTIVATIONS: activation * own_images * kept,
        **_of_negatives(config, network, num_replicas),
        "product history": 64 * total_steps(config),
    }


def _of_negatives(config: Config, network: int, num_replicas: int) -> dict[str, int]:
    """Add up the bytes on each device of what the method compares embeddings with."""
    n, k = config.num_instances, config.num_negatives
    b, d = config.batch_size, config.embedding_dim
    if config.method == "simclr":
        return {"soft-max over the views": 2 * _FLOAT * (2 * b) ** 2 // num_replicas}
    if config.method == "mocov2":
        return {
            "encoder of the keys": _FLOAT * network,
            "queue of keys": _FLOAT * k * d,
            "soft-max over the queue": 2 * _FLOAT * b * k // num_replicas,
        }
    own_rows, own_slots = (-(-x // num_replicas) for x in (n, k))
    locations = rows_on_device(config, num_replicas)
    resting = own_rows * (8 * d + 8)
    if locations is not None:
        resting = locations * (8 * d + 24)  # with row number and location
    logits = b * total(config.views()) * own_slots
    return {
        "instance ring (weights, momentum, ids)": own_slots * (2 * _FLOAT * d + 8),
        "instance store (weights, momentum, stamps)": 0 if k == n else resting,
        "soft-max and gradients of the ring": (logits + 3 * own_slots * d) * _FLOAT,
    }


def checkpoint_size(
    config: Config, backbone: keras.Model, head: keras.Model, num_replicas: int = 1
) -> int:
    """Add up the bytes of a checkpoint.

    It holds network, rows (all, or those not on disk), momentum, ring and history.

    Args:
      config: resolved configuration.
      backbone: the network.
      head: the projection head.
      num_replicas: R.

    Returns:
      Bytes, to within a few percent; while it is written, rows take as much on the host.
    """
    network = backbone.count_params() + head.count_params()
    learned = 2 * _FLOAT * network + 64 * total_steps(config)
    if config.method == "mocov2":
        return learned + _FLOAT * (network + config.num_negatives * config.embedding_dim)
    if not config.has_rows:
        return learned
    rows = config.num_instances * _row_size(config)
    if config.instance_store == "disk":
        rows = rows_on_device(config, num_replicas) * num_replicas * (_row_size(config) + 8)
    return learned + rows + 8 * config.num_negatives


def _kept_activations(backbone: keras.Model, image_size: int) -> int:
    """Count the numbers kept for the backward pass: outputs of convolutions and their followers."""
    shapes: dict[str, tuple] = {}
    kept = 0
    for layer in backbone.layers:
        if isinstance(layer, keras.layers.InputLayer):
            shape = (1, image_size, image_size, channels_of(backbone))
        else:
            inbound = layer.inbound_nodes[0].inbound_layers
            inputs = [shapes[x.name] for x in (inbound if isinstance(inbound, list) else [inbound])]
            shape = tuple(layer.compute_output_shape(inputs if len(inputs) > 1 else inputs[0]))
        shapes[layer.name] = shape
        if isinstance(layer, _KEPT):
            kept += math.prod(shape[1:])
    return kept


def _kept_in_any_network(backbone: keras.Model, image_size: int) -> int:
    """Count as `_kept_activations`, by building the network anew for one size of views."""
    expected = f"expected a backbone for views of {image_size} pixels, got {backbone.name}, which"
    if any(side not in (None, image_size) for side in backbone.input_shape[1:3]):
        raise ValueError(f"{expected} takes {backbone.input_shape[1:]}: set --image_size")
    try:
        sized = keras.Input([image_size, image_size, channels_of(backbone)])
        shapes = list(_kept_shapes(backbone, [sized]))
    except (ValueError, TypeError) as error:
        first, *_ = str(error).splitlines() or [type(error).__name__]
        raise ValueError(f"{expected} cannot take them ({first}): set --image_size") from error
    return sum(math.prod(shape[1:]) for shape in shapes)


def _kept_shapes(network: keras.Model, inputs: Sequence[Any]) -> Iterator[tuple]:
    """Yield the shapes of what is kept, in models within the network as well."""
    kept = (*_KEPT, keras.layers.Dense, keras.layers.LayerNormalization)
    for layer in keras.models.clone_model(network, input_tensors=inputs).layers:
        if getattr(layer, "_is_graph_network", False):
            given = layer.inbound_nodes[-1].keras_inputs
            yield from _kept_shapes(layer, [keras.Input(x.shape[1:]) for x in given])
        elif isinstance(layer, kept):
            yield layer.output_shape
