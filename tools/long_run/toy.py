"""A toy of pretraining: random vectors, a small encoder, and the product's own parts."""

if __name__ == "__main__":
    raise SystemExit("error: expected python tools/long_run, got a part of it: see its --help")

import dataclasses
import itertools
import math

import numpy as np
import tensorflow as tf
import tf_keras as keras
from tqdm import tqdm

from pic_tf import InstanceClassifier, LazySGD, SlidingWindow
from pic_tf.settings.config import Config
from pic_tf.settings.quantities import peak_learning_rate, resting_steps

IMAGE, HIDDEN = 64, 128  # size of an image, width of the encoder
DECAY = 1e-4  # of the encoder, the paper's
PROBES = 1024  # views that an accuracy is measured with
VIEWS, PROBE_VIEWS = 1, 2  # which of the two random streams
MEASUREMENTS = 8  # a sweep


@dataclasses.dataclass(frozen=True)
class Problem:
    """Problem of all arms.

    Attributes:
      config: N, W, S, B, K, D, temperature, learning rate for 256 views, momentum and seed.
      sweeps: number of sweeps of the window over all instances.
      shrink: share of its norm that a row has left after its rest.
      noise: standard deviation of a view about its image, whose own is 1.
    """

    config: Config
    sweeps: int
    shrink: float
    noise: float

    @property
    def order(self) -> SlidingWindow:
        """The order of visits."""
        c = self.config
        return SlidingWindow(c.num_instances, c.batch_size, c.window_size, c.window_stride, c.seed)

    @property
    def steps_per_sweep(self) -> int:
        """N / S windows of W / B steps."""
        windows = self.config.num_instances / self.config.window_stride
        return round(windows * self.order.steps_per_window)

    @property
    def row_decay(self) -> float:
        """Weight decay lambda of the rows, by which a rest leaves `shrink` of a norm.

        eta lambda = (1 - mu) (1 - m / mu), mu^rest = shrink, mu the larger eigenvalue of M.

        Raises:
          ValueError: where the rest is too short to shrink so much.
        """
        m, rest = self.config.momentum, resting_steps(self.config)
        mu = self.shrink ** (1 / rest) if rest else 0.0
        if mu <= math.sqrt(m):
            raise ValueError(
                f"expected rests long enough to leave {self.shrink:g} of a row, "
                f"got {rest:,.0f} steps: "
                "use more --num_instances, fewer --num_negatives or a smaller --window_stride"
            )
        return (1 - mu) * (1 - m / mu) / peak_learning_rate(self.config)


@dataclasses.dataclass(frozen=True)
class Measurement:
    """The state of an arm.

    Attributes:
      step: updates applied.
      norms: float64 [K], of the rows in the ring.
      own_row: share of views whose embedding is nearest to its own row among all N, caught up to
        now.
      own_image: share of views whose embedding is nearest to that of its own image without noise:
        the encoder alone.
      loss: mean since the last measurement.
      floored: returning rows that the floor lifted since then.
      broken: rows with a number that is not finite.
    """

    step: int
    norms: np.ndarray
    own_row: float
    own_image: float
    loss: float
    floored: int
    broken: int


class Arm:
    """Training with one norm floor, from the product's own parts.

    Args:
      problem: the problem of all arms.
      min_row_norm: the floor; None for the default.
    """

    def __init__(self, problem: Problem, min_row_norm: float | None):
        config = self.config = problem.config
        keras.utils.set_random_seed(config.seed)
        n, rate = config.num_instances, peak_learning_rate(config)
        steps = problem.sweeps * problem.steps_per_sweep
        self.noise, self.order = problem.noise, problem.order
        self.images = tf.random.stateless_normal([n, IMAGE], [config.seed, 0])
        inputs = keras.Input([IMAGE])
        hidden = keras.layers.Dense(HIDDEN, "relu")(inputs)
        self.encoder = keras.Model(inputs, keras.layers.Dense(config.embedding_dim)(hidden))
        self.encoder_sgd = LazySGD(rate, config.momentum, DECAY, max_updates=steps)
        self.encoder_sgd.build(self.encoder.trainable_variables)
        sizes = n, config.embedding_dim, config.num_negatives
        options = {"min_row_norm": min_row_norm, "seed": config.seed}
        self.classifier = InstanceClassifier(*sizes, config.temperature, **options)
        self.row_sgd = LazySGD(rate, config.momentum, problem.row_decay, max_updates=steps)
        # An optimizer counts the steps in which it moves a variable.
        self.nothing = tf.Variable(0.0)
        self.row_sgd.build([self.nothing])
        rng = np.random.default_rng(config.seed)
        self.probes = tf.constant(rng.choice(n, min(PROBES, n), replace=False))

    def views(self, instance_ids: tf.Tensor, stream: int, step: tf.Tensor) -> tf.Tensor:
        """Draw views, images and noise, float [b, 64]; seed (seed, 0) is that of the images."""
        seed = tf.stack([tf.constant(self.config.seed, tf.int64), 2 * step + stream])
        noise = tf.random.stateless_normal([instance_ids.shape[0], IMAGE], seed)
        return tf.gather(self.images, instance_ids) + self.noise * noise

    @tf.function
    def train(self, first: tf.Tensor, steps: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Take steps first ... first + steps - 1: their mean loss, the number of floored rows."""
        total_loss, floored = tf.constant(0.0), tf.constant(0)
        for step in tf.range(first, first + steps):
            ids = self.order.instance_ids(step)
            slots, happened = self.classifier.admit(ids, self.row_sgd)
            rows = tf.identity(self.classifier.weights_ring)
            with tf.GradientTape() as tape:
                tape.watch(rows)
                losses, _ = self.classifier(self.encoder(self.views(ids, VIEWS, step)), rows, slots)
                loss = tf.reduce_mean(losses)
            variables = self.encoder.trainable_variables
            *gradients, of_rows = tape.gradient(loss, [*variables, rows])
            self.encoder_sgd.apply_gradients(zip(gradients, variables))
            self.row_sgd.apply_gradients([(tf.zeros([]), self.nothing)])
            self.classifier.apply_gradient(of_rows, rows, self.row_sgd)
            total_loss += loss
            floored += tf.reduce_sum(tf.cast(happened["floored"], tf.int32))
        return total_loss / tf.cast(steps, tf.float32), floored

    @tf.function
    def all_rows(self) -> tf.Tensor:
        """Catch up every row, as if it returned now: float64 [N, D]."""
        everyone = tf.range(self.config.num_instances, dtype=tf.int64)
        rows, _ = self.row_sgd.caught_up_rows(*self.classifier.store.read(everyone))
        live = tf.where(self.classifier.ids >= 0)[:, 0]
        ids = tf.gather(self.classifier.ids, live)
        recent = tf.cast(tf.gather(self.classifier.weights_ring, live), tf.float64)
        return tf.tensor_scatter_nd_update(rows, ids[:, None], recent)

    def measure(self, step: int, loss: tf.Tensor, floored: tf.Tensor) -> Measurement:
        """Measure all rows and the encoder."""
        rows = self.all_rows()
        norms = tf.norm(rows, axis=1, keepdims=True)  # float32 could not square some numbers
        directions = rows / tf.maximum(norms, 1e-300)
        views = self.views(self.probes, PROBE_VIEWS, tf.constant(step, tf.int64))
        embedding = unit(self.encoder(views))
        ring = tf.gather(self.classifier.weights_ring, tf.where(self.classifier.ids >= 0)[:, 0])
        return Measurement(
            step,
            np.linalg.norm(ring.numpy().astype(np.float64), axis=1),
            self._found(embedding, tf.cast(directions, tf.float32)),
            self._found(embedding, unit(self.encoder(self.images))),
            float(loss),
            int(floored),
            int(np.sum(~np.isfinite(rows.numpy()).all(1))),
        )

    def _found(self, embedding: tf.Tensor, among: tf.Tensor) -> float:
        """Share of the probes with their own of N directions nearest by cosine."""
        nearest = tf.argmax(tf.matmul(embedding, among, transpose_b=True), axis=1)
        return float(np.mean(nearest.numpy() == self.probes.numpy()))


def unit(x: tf.Tensor) -> tf.Tensor:
    """x / |x| row by row."""
    return tf.math.l2_normalize(x, axis=1)


def run(
    problem: Problem, min_row_norm: float | None, progress: tqdm
) -> tuple[str, list[Measurement]]:
    """Train one arm.

    Args:
      problem: the problem of all arms.
      min_row_norm: the floor; None for the default.
      progress: bar to move by a step for each.

    Returns:
      (name of the arm, measurements, 8 a sweep).
    """
    arm, measurements = Arm(problem, min_row_norm), []
    floor = arm.classifier.min_row_norm
    name = f"floor {floor:.3g}" if floor else "no floor"
    steps = problem.sweeps * problem.steps_per_sweep
    ends = np.linspace(0, steps, problem.sweeps * MEASUREMENTS + 1).astype(np.int64)
    for first, end in itertools.pairwise(ends):
        loss, floored = arm.train(tf.constant(first), tf.constant(end - first))
        measurements.append(arm.measure(int(end), loss, floored))
        progress.set_postfix_str(f"{name}, loss {measurements[-1].loss:.3f}", refresh=False)
        progress.update(int(end - first))
    return name, measurements
