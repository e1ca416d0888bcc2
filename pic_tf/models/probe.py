"""Linear classifier beside PIC, on features that it does not change."""

import numpy as np
import tensorflow as tf
import tf_keras as keras

from pic_tf.optim.schedules import WarmupCosine
from pic_tf.replicas import collectives

_MOMENTUM = 0.9  # of SGD
_STATISTICS = 0.99  # momentum of the running mean and variance
_EPSILON = 1e-5  # as in the networks


@keras.utils.register_keras_serializable("pic_tf")
class LinearProbe(keras.layers.Layer):
    """Linear classifier of scaled features, trained by SGD with momentum.

        logits = W (f - mean) / sqrt(variance) + b,    mean and variance running ones.

    The scaling makes one learning rate fit any backbone, whose features grow and shrink while it
    learns. A step moves the logits of an image by its rate times |x|^2 + 1, of which C is the mean
    over the scaled features x: so the rate of W and b is learning_rate / C. It falls to 0 along
    half a cosine, since with a constant rate the weights keep the noise of the last batches.

    Args:
      feature_dim: C.
      classes: number of classes.
      learning_rate: peak rate of W and b times C.
      total_steps: steps until the rate is 0; None for a constant rate.

    Attributes:
      kernel: float32 [C, classes], W.
      bias: float32 [classes], b.
      mean: float32 [C], of the features.
      variance: float32 [C], of the features.
      accuracy: running metric over the probe's own batches.

    Source: online linear evaluation as in BYOL (https://arxiv.org/abs/2006.07733, Appendix C.1);
    the normalisation without scale and offset: MAE (https://arxiv.org/abs/2111.06377, Appendix
    A.1).
    """

    def __init__(
        self,
        feature_dim: int,
        classes: int,
        learning_rate: float = 2.0,
        total_steps: int | None = None,
        name: str = "probe",
    ):
        super().__init__(name=name, dtype="float32", trainable=False)
        self.learning_rate, self.total_steps = learning_rate, total_steps
        self._rate = peak = learning_rate / feature_dim
        if total_steps is not None:
            self._rate = WarmupCosine(peak, total_steps, end=0.0)
        shapes = {"kernel": [feature_dim, classes], "bias": [classes]}
        shapes |= {f"{weight}_momentum": shape for weight, shape in shapes.items()}
        shapes["mean"] = [feature_dim]
        frozen = {"trainable": False}  # to Keras: `learn` alone moves them
        for weight, shape in shapes.items():
            setattr(self, weight, self.add_weight(weight, shape, initializer="zeros", **frozen))
        self.variance = self.add_weight("variance", [feature_dim], initializer="ones", **frozen)
        self.accuracy = keras.metrics.Mean("probe_accuracy")
        self.built = True

    def call(self, features: tf.Tensor) -> tf.Tensor:
        """Compute float32 [b, classes] logits of features [b, C]."""
        return self._logits(self._scaled(features))

    def learn(
        self, features: tf.Tensor, labels: tf.Tensor, weights: tf.Tensor, step: tf.Tensor | int = 0
    ) -> None:
        """Update once, from the images of all replicas and the same in all of them.

        Args:
          features: [b, C], this replica's; nothing flows back through them.
          labels: int64 [b].
          weights: float32 [b], 0 for images that do not count.
          step: of the run, whose rate is taken.
        """
        features = tf.stop_gradient(tf.cast(features, tf.float32))
        count = tf.maximum(collectives.all_sum(tf.reduce_sum(weights)), 1.0)
        mean = collectives.all_sum(tf.reduce_sum(weights[:, None] * features, 0)) / count
        squares = tf.reduce_sum(weights[:, None] * (features - mean) ** 2, 0)
        variance = collectives.all_sum(squares) / count
        # The scaling is by the running statistics, with those of this batch.
        for statistic, now in ((self.mean, mean), (self.variance, variance)):
            _assign(statistic, _STATISTICS * statistic + (1 - _STATISTICS) * now)
        scaled = self._scaled(features)
        logits = self._logits(scaled)
        probabilities = tf.nn.softmax(logits)
        # The gradient of the mean cross-entropy, written out: softmax - one-hot.
        error = (probabilities - tf.one_hot(labels, logits.shape[-1])) * (weights / count)[:, None]
        rate = self._rate(step) if callable(self._rate) else self._rate
        gradient = tf.matmul(scaled, error, transpose_a=True)
        _move(self.kernel, self.kernel_momentum, gradient, rate)
        _move(self.bias, self.bias_momentum, tf.reduce_sum(error, 0), rate)
        self.accuracy.update_state(tf.argmax(logits, 1) == labels, weights)

    def accuracy_on(self, features: np.ndarray, labels: np.ndarray) -> float:
        """Measure the share of features [n, C] for which labels int64 [n] are found."""
        return float(np.mean(np.argmax(self(tf.constant(features)).numpy(), 1) == labels))

    def get_config(self) -> dict:
        feature_dim, classes = self.kernel.shape
        config = {"feature_dim": feature_dim, "classes": classes, "name": self.name}
        return config | {"learning_rate": self.learning_rate, "total_steps": self.total_steps}

    def _scaled(self, features: tf.Tensor) -> tf.Tensor:
        return (features - self.mean) * tf.math.rsqrt(self.variance + _EPSILON)

    def _logits(self, scaled: tf.Tensor) -> tf.Tensor:
        return tf.matmul(scaled, self.kernel) + self.bias


def _move(
    weight: tf.Variable, momentum: tf.Variable, gradient: tf.Tensor, rate: tf.Tensor | float
) -> None:
    tf.raw_ops.ResourceApplyMomentum(
        var=weight.handle,
        accum=momentum.handle,
        grad=collectives.all_sum(gradient),
        lr=rate,
        momentum=_MOMENTUM,
    )


def _assign(variable: tf.Variable, value: tf.Tensor) -> None:
    """Assign in this replica: all have the same value, and the strategy has nothing to average."""
    tf.raw_ops.AssignVariableOp(resource=variable.handle, value=value)
