"""LARS for the backbone of a run with large batches."""

import tensorflow as tf
import tf_keras as keras

from pic_tf.optim.momentum import Fixed, check_ranges, move, where_taken
from pic_tf.replicas import collectives


@keras.utils.register_keras_serializable("pic_tf")
class LARS(keras.optimizers.Optimizer):
    """SGD with momentum and updates of a length in proportion to that of each layer's tensor.

    For a tensor of rank 2 and more:

        d = c |w| / |g + lambda w| (g + lambda w),    u <- m u + d,    w <- w - eta_t u,

    where d = g + lambda w if w or g + lambda w is 0. Biases and normalisation parameters (rank 0
    and 1) take d = g, without decay.

        model.compile(LazySGD(rate), backbone_optimizer=LARS(rate))

    Args:
      learning_rate: eta, a float or a LearningRateSchedule of the step.
      momentum: m in [0, 1).
      weight_decay: lambda >= 0.
      trust_coefficient: c > 0, length of an update before the rate as a share of |w|.
      name: name of the optimizer.

    Attributes:
      taken: bool variable, see `skip_unless`.

    Raises:
      ValueError: for a number out of range.
      AttributeError: for another momentum, weight decay or trust coefficient later on.

    Source: You et al. 2017 (https://arxiv.org/abs/1708.03888), here as in its authors' code: no
    decay where the length is not adapted, and momentum after the scaling.
    """

    momentum, weight_decay, coupled_weight_decay = Fixed(), Fixed(), Fixed()
    trust_coefficient = Fixed()

    def __init__(
        self,
        learning_rate: float | keras.optimizers.schedules.LearningRateSchedule = 0.03,
        momentum: float = 0.9,
        weight_decay: float = 1e-4,
        trust_coefficient: float = 0.001,
        name: str = "LARS",
    ):
        # `weight_decay` of the base class is the decoupled kind, so ours has a name of its own.
        super().__init__(name=name, weight_decay=None, jit_compile=False)
        check_ranges(learning_rate, momentum, weight_decay)
        if not trust_coefficient > 0:
            raise ValueError(f"expected trust_coefficient > 0, got {trust_coefficient}")
        self._learning_rate = self._build_learning_rate(learning_rate)
        self.momentum = momentum
        self.coupled_weight_decay = weight_decay
        self.trust_coefficient = trust_coefficient
        self.taken = collectives.local_variable(lambda: tf.constant(True), "taken")

    def build(self, var_list: list[tf.Variable]) -> None:
        """Create one momentum u for each variable."""
        super().build(var_list)
        if getattr(self, "_built", False):
            return
        self.momentums = [self.add_variable_from_reference(v, "momentum") for v in var_list]
        self._built = True

    def skip_unless(self, finite: tf.Tensor) -> None:
        """Decide whether `apply_gradients` moves anything from now on.

        Args:
          finite: bool scalar, the same in all replicas.
        """
        self.taken.assign(finite)

    def update_step(self, gradient: tf.Tensor, variable: tf.Variable) -> None:
        """Update one variable; called by `apply_gradients`."""
        momentum = self.momentums[self._index_dict[self._var_key(variable)]]
        direction = self._direction(tf.convert_to_tensor(gradient), tf.convert_to_tensor(variable))
        direction = where_taken(self.taken, direction)
        move(variable, momentum, direction, self.learning_rate, self.momentum, self.taken)

    def get_config(self) -> dict:
        return {
            "name": self.name,
            "learning_rate": self._serialize_hyperparameter(self._learning_rate),
            "momentum": self.momentum,
            "weight_decay": self.coupled_weight_decay,
            "trust_coefficient": self.trust_coefficient,
        }

    def _direction(self, gradient: tf.Tensor, values: tf.Tensor) -> tf.Tensor:
        """Compute d of the equation above."""
        if values.shape.rank < 2:
            return gradient
        direction = gradient + self.coupled_weight_decay * values
        length, norm = tf.norm(direction), tf.norm(values)
        ratio = tf.math.divide_no_nan(tf.cast(self.trust_coefficient, values.dtype) * norm, length)
        return tf.where((norm > 0) & (length > 0), ratio, 1.0) * direction
