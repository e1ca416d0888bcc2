"""SGD of the paper, for parameters updated by every step and for rows that rest between visits."""

import weakref

import tensorflow as tf
import tf_keras as keras

from pic_tf.optim.history import ProductHistory
from pic_tf.optim.momentum import Fixed, check_ranges, move, where_taken
from pic_tf.replicas import collectives


@keras.utils.register_keras_serializable("pic_tf")
class LazySGD(keras.optimizers.Optimizer):
    """SGD with momentum outside the learning rate, coupled weight decay, and its lazy correction.

    Every update, of any parameter (Eq. 2):

        u <- m u + (g + lambda w),    w <- w - eta_t u.

    A row that takes no part has g = 0, so its future is known (Eq. 3, with the matrix entry lost in
    print):

        [w; u] <- M_t [w; u],    M_t = [[1 - eta_t lambda, -eta_t m], [lambda, m]].

    The row may rest untouched from step s to step t; M_{t-1} ... M_s then catches it up at once.
    Where the paper takes a power of one matrix, this is the exact product of the rates that were
    applied. A skipped step has M_t = I.

    Keras' SGD does neither: it multiplies the rate into the momentum, where a changing rate acts
    differently, and its weight decay is decoupled.

    Args:
      learning_rate: float, or a LearningRateSchedule of the step; callbacks may change a float.
      momentum: m in [0, 1).
      weight_decay: lambda >= 0.
      max_updates: largest number of steps in the history, at 64 bytes each.
      name: name of the optimizer.

    Attributes:
      taken: bool variable, see `skip_unless`.
      applied: int64 variable, number of updates taken; `iterations` counts skipped steps too.

    Raises:
      ValueError: for a rate, momentum or weight decay out of range.
      AttributeError: for another momentum or weight decay later on.

    Source: paper, Section 2.3, Eq. 2 and Eq. 3.
    """

    momentum, weight_decay, coupled_weight_decay = Fixed(), Fixed(), Fixed()

    def __init__(
        self,
        learning_rate: float | keras.optimizers.schedules.LearningRateSchedule = 0.03,
        momentum: float = 0.9,
        weight_decay: float = 1e-4,
        max_updates: int = 1_000_000,
        name: str = "LazySGD",
    ):
        # `weight_decay` of the base class is the decoupled kind, so ours has a name of its own.
        super().__init__(name=name, weight_decay=None, jit_compile=False)
        check_ranges(learning_rate, momentum, weight_decay)
        self._learning_rate = self._build_learning_rate(learning_rate)
        self.momentum = momentum
        self.coupled_weight_decay = weight_decay
        self.history = ProductHistory(max_updates)
        self.taken = collectives.local_variable(lambda: tf.constant(True), "taken")
        self.applied = collectives.local_variable(lambda: tf.constant(0, tf.int64), "applied")
        self._rows = None

    @keras.optimizers.Optimizer.learning_rate.setter
    def learning_rate(self, rate: float) -> None:
        if callable(rate):
            raise AttributeError(
                "expected a number as another learning rate, got a schedule, which traced steps "
                "would not follow: compile the model with a new LazySGD"
            )
        keras.optimizers.Optimizer.learning_rate.fset(self, rate)

    def belong_to(self, rows: object) -> None:
        """Count the updates of some rows, from now on of these alone.

        Args:
          rows: an `InstanceClassifier`.

        Raises:
          ValueError: for an optimizer of other rows.
        """
        if self._rows is not None and self._rows() is not rows:
            raise ValueError(
                "expected a LazySGD of its own for each model, got one that another model was "
                "compiled with: its history is that of the other's rows; make a new one"
            )
        self._rows = weakref.ref(rows)

    def checks(self) -> list[tf.Operation]:
        """Assertions on the next step: its rate, and the room that the history has for it."""
        step, capacity = tf.identity(self.iterations), self.history.capacity
        rate = self._learning_rate
        rate = rate(step) if callable(rate) else tf.identity(rate)
        no_room = f"expected at most max_updates={capacity} steps of LazySGD, got one more:"
        no_room += " compile with a new one, with a larger max_updates"
        wrong = "expected a learning rate >= 0, got"
        return [
            tf.debugging.Assert(step < capacity, [no_room]),
            tf.debugging.Assert((rate >= 0) & tf.math.is_finite(rate), [wrong, rate]),
        ]

    def build(self, var_list: list[tf.Variable]) -> None:
        """Create one momentum u for each variable."""
        super().build(var_list)
        if getattr(self, "_built", False):
            return
        self.momentums = [self.add_variable_from_reference(v, "momentum") for v in var_list]
        self._built = True

    def skip_unless(self, finite: tf.Tensor) -> None:
        """Decide whether `apply_gradients` and `update` move anything from now on.

        Args:
          finite: bool scalar, the same in all replicas. Where it is False, a step leaves
            parameters, momentum and resting rows as they are.
        """
        self.taken.assign(finite)

    def update_step(self, gradient: tf.Tensor, variable: tf.Variable) -> None:
        """Update one variable by Eq. 2; called by `apply_gradients`."""
        momentum = self.momentums[self._index_dict[self._var_key(variable)]]
        gradient = tf.convert_to_tensor(gradient)  # weight decay makes a sparse gradient dense
        direction = gradient + self.coupled_weight_decay * tf.convert_to_tensor(variable)
        self._move(where_taken(self.taken, direction), variable, momentum)

    def apply_gradients(self, grads_and_vars, **kwargs) -> tf.Variable:
        """Update every variable by Eq. 2, and append M_t to the history."""
        step, grads_and_vars = tf.identity(self.iterations), list(grads_and_vars)
        result = super().apply_gradients(grads_and_vars, **kwargs)
        # Without a head, and with another optimizer for the backbone, Keras counts no step.
        if not grads_and_vars:
            result = self.iterations.assign_add(1)
        # Only now is `learning_rate` the rate of this update.
        taken = tf.identity(self.taken)
        matrix = tf.where(taken, self._update_matrix(), tf.eye(2, dtype=tf.float64))
        self.history.record(step, matrix)
        self.applied.assign_add(tf.cast(taken, tf.int64))
        return result

    def update(
        self, gradient: tf.Tensor, values: tf.Tensor, variable: tf.Variable, momentum: tf.Variable
    ) -> None:
        """Update in place by Eq. 2: u <- m u + (g + lambda w), w <- w - eta u.

        The rate is that of the last `apply_gradients`, so rows beside the network follow after it.

        Args:
          gradient: g, of the variable's shape; where the update is not taken, any numbers.
          values: w before the update; a caller that has read it already spares a copy.
          variable: w.
          momentum: u.
        """
        # A condition costs no pass over a large table, unlike a selection, but more time to trace.
        direction = tf.cond(
            self.taken,
            lambda: gradient + self.coupled_weight_decay * values,
            lambda: tf.zeros_like(gradient),
        )
        self._move(direction, variable, momentum)

    def caught_up_rows(
        self, weights: tf.Tensor, momentum: tf.Tensor, since: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Catch up rows that took no part since a step by Eq. 3: [w; u] <- M_{t-1} ... M_s [w; u].

        Args:
          weights: float32 [n, D], w at step `since`.
          momentum: float32 [n, D], u at step `since`.
          since: int64 [n], number of updates applied when the row last changed; below 0
            for none.

        Returns:
          float64 (w, u) after all updates applied so far; a row that rested for long may be too
          short for float32 to square.
        """
        since = tf.maximum(since, 0)
        product = self.history.between(since, tf.identity(self.iterations))[..., None]
        w, u = tf.cast(weights, tf.float64), tf.cast(momentum, tf.float64)
        caught_up_w = product[:, 0, 0] * w + product[:, 0, 1] * u
        caught_up_u = product[:, 1, 0] * w + product[:, 1, 1] * u
        return caught_up_w, caught_up_u

    def get_config(self) -> dict:
        return {
            "name": self.name,
            "learning_rate": self._serialize_hyperparameter(self._learning_rate),
            "momentum": self.momentum,
            "weight_decay": self.coupled_weight_decay,
            "max_updates": self.history.capacity,
        }

    def _move(self, direction: tf.Tensor, variable: tf.Variable, momentum: tf.Variable) -> None:
        move(variable, momentum, direction, self.learning_rate, self.momentum, self.taken)

    def _update_matrix(self) -> tf.Tensor:
        """Compute M_t of Eq. 3, float64 [2, 2]."""
        rate = tf.cast(self.learning_rate, tf.float64)
        decay = tf.constant(self.coupled_weight_decay, tf.float64)
        m = tf.constant(self.momentum, tf.float64)
        return tf.stack([tf.stack([1.0 - rate * decay, -rate * m]), tf.stack([decay, m])])
