"""A model of step time on R accelerators: plain arithmetic, B = R b views, no TensorFlow."""

if __name__ == "__main__":
    raise SystemExit("error: expected python tools/benchmark, got a part of it: see its --help")

import dataclasses
import math

# Bytes of a number, gradients too: variables are float32 whatever the precision of the backbone.
FLOAT = 4
STAMP = 8  # bytes of an id or a time stamp
# Collectives of a PIC step, forward and backward. TensorFlow gathers shapes before anything else.
ALL_GATHERS, ALL_REDUCES = 4, 2


@dataclasses.dataclass(frozen=True)
class Training:
    """Sizes of a training.

    Attributes:
      per_replica_batch: b, views a step on each accelerator.
      embedding_dim: D.
      num_negatives: K, recent instances in the soft-max, over all accelerators.
      num_instances: N.
      parameters: trainable numbers of backbone and projection head.
    """

    per_replica_batch: int
    embedding_dim: int
    num_negatives: int
    num_instances: int
    parameters: int


@dataclasses.dataclass(frozen=True)
class Accelerator:
    """Rates of one accelerator and its link.

    Attributes:
      views_per_second: images/s through backbone and projection head, forward and backward.
      teraflops: TFLOP/s in the products of the soft-max.
      link_gigabytes: GB/s (1e9 bytes) that an accelerator moves in a collective ("bus bandwidth").
      link_latency_us: microseconds a hop of a collective takes, however little it carries.
    """

    views_per_second: float
    teraflops: float
    link_gigabytes: float
    link_latency_us: float


@dataclasses.dataclass(frozen=True)
class StepTime:
    """Milliseconds of a step by part, one after the other.

    Attributes:
      backbone: forward and backward pass of the network.
      products: the three products of the soft-max.
      collectives: communication of PIC between accelerators.
      gradients: the sum of the network's gradients over accelerators.
    """

    backbone: float
    products: float
    collectives: float
    gradients: float

    @property
    def total(self) -> float:
        """All parts, ms."""
        return self.backbone + self.products + self.collectives + self.gradients

    @property
    def pic_share(self) -> float:
        """Part of a step, in [0, 1], that plain data-parallel training would not have."""
        return (self.products + self.collectives) / self.total


def all_gather_bytes(size: float, replicas: int) -> float:
    """Bytes of a ring all_gather through each accelerator.

    (R - 1) / R size

    Args:
      size: bytes of the result.
      replicas: R.

    Returns:
      Bytes.
    """
    return (replicas - 1) / replicas * size


def all_reduce_bytes(size: float, replicas: int) -> float:
    """Bytes of a ring all_reduce through each accelerator, once to sum, once to hand out.

    2 (R - 1) / R size

    Args:
      size: bytes of the result.
      replicas: R.

    Returns:
      Bytes.
    """
    return 2 * (replicas - 1) / replicas * size


def product_flops(batch_size: int, num_negatives: int, embedding_dim: int, replicas: int) -> float:
    """Work of the soft-max on each accelerator: logits, gradients of embeddings and of rows.

    3 * 2 B (K / R) D

    Args:
      batch_size: B.
      num_negatives: K.
      embedding_dim: D.
      replicas: R.

    Returns:
      Floating-point operations.
    """
    return 3 * 2 * batch_size * (num_negatives / replicas) * embedding_dim


def pic_bytes(batch_size: int, embedding_dim: int, replicas: int) -> float:
    """Bytes of a PIC step through each accelerator; neither K nor N is in it.

    all_gather(4 B (D + 1)) + all_reduce(4 * 2 B) forward,
    all_gather(4 B) + all_reduce(4 B D) backward

    Embeddings with their own logits, sums of exponentials with who was beaten; gradients of the
    losses, of the embeddings. The shapes that TensorFlow gathers too, a few numbers, are left out.

    Args:
      batch_size: B.
      embedding_dim: D.
      replicas: R.

    Returns:
      Bytes.
    """
    b, d = batch_size, embedding_dim
    gathered = [FLOAT * b * (d + 1), FLOAT * b]
    reduced = [FLOAT * 2 * b, FLOAT * b * d]
    moved = [all_gather_bytes(size, replicas) for size in gathered]
    moved += [all_reduce_bytes(size, replicas) for size in reduced]
    return sum(moved)


def hops(all_gathers: int, all_reduces: int, replicas: int) -> int:
    """Number of hops in collectives; an all_reduce goes up a binary tree and down again.

    (all_gathers + 2 all_reduces) ceil(log2 R)

    Args:
      all_gathers: number of all_gathers.
      all_reduces: number of all_reduces.
      replicas: R.

    Returns:
      Hops.
    """
    return (all_gathers + 2 * all_reduces) * math.ceil(math.log2(replicas))


def row_memory(training: Training, replicas: int) -> int:
    """Bytes of the instance rows on each accelerator: ring and store, weights w, momentum u.

    (K / R + ceil(N / R) + 1) (2 * 4 D + 8), one row of the store being spare;
    without store where K = N

    Args:
      training: sizes of the training.
      replicas: R.

    Returns:
      Bytes.
    """
    k, n = training.num_negatives, training.num_instances
    stored = -(-n // replicas)
    rows = stored if k == n else k // replicas + stored + 1
    return rows * (2 * FLOAT * training.embedding_dim + STAMP)


def step_time(training: Training, accelerator: Accelerator, replicas: int) -> StepTime:
    """Time of a step on R accelerators, nothing at the same time as anything else.

    b / views_per_second + FLOP / teraflops + sum over collectives (bytes / link + hops latency)

    Args:
      training: sizes of the training.
      accelerator: rates of each accelerator.
      replicas: R; 1 for no communication.

    Returns:
      Milliseconds by part.
    """
    b = replicas * training.per_replica_batch
    flops = product_flops(b, training.num_negatives, training.embedding_dim, replicas)
    moved = pic_bytes(b, training.embedding_dim, replicas)
    summed = all_reduce_bytes(FLOAT * training.parameters, replicas)
    return StepTime(
        backbone=1e3 * training.per_replica_batch / accelerator.views_per_second,
        products=flops / accelerator.teraflops / 1e9,
        collectives=_link_ms(moved, hops(ALL_GATHERS, ALL_REDUCES, replicas), accelerator),
        gradients=_link_ms(summed, hops(0, 1, replicas), accelerator),
    )


def images_per_second(training: Training, accelerator: Accelerator, replicas: int) -> float:
    """Images/s of all accelerators together.

    R b / step

    Args:
      training: sizes of the training.
      accelerator: rates of each accelerator.
      replicas: R.

    Returns:
      Images/s.
    """
    step_ms = step_time(training, accelerator, replicas).total
    return 1e3 * replicas * training.per_replica_batch / step_ms


def efficiency(training: Training, accelerator: Accelerator, replicas: int) -> float:
    """Images/s against R times those of one accelerator that trains alone with b views.

    Args:
      training: sizes of the training.
      accelerator: rates of each accelerator.
      replicas: R.

    Returns:
      In (0, 1]; 1 is perfect scaling.
    """
    alone = images_per_second(training, accelerator, 1)
    return images_per_second(training, accelerator, replicas) / (replicas * alone)


def _link_ms(moved: float, hops: int, accelerator: Accelerator) -> float:
    return moved / accelerator.link_gigabytes / 1e6 + hops * accelerator.link_latency_us / 1e3
