"""Learning-rate schedules."""

import math

import tensorflow as tf
import tf_keras as keras


@keras.utils.register_keras_serializable("pic_tf")
class WarmupCosine(keras.optimizers.schedules.LearningRateSchedule):
    """Linear warm-up, then half a cosine, step by step.

        eta_t = peak (0.01 + 0.99 t / w)                                     for t < w,
        eta_t = end + (peak - end) (1 + cos(pi (t - w) / (T - w))) / 2       for t >= w.

    Args:
      peak: learning rate after the warm-up.
      total_steps: T, steps of the whole run.
      warmup_steps: w, steps of the warm-up, 0 <= w < T.
      end: learning rate after T steps.

    Raises:
      ValueError: for a warm-up that leaves no step, or a rate that is not positive.

    Source: the authors' settings: warm-up from a hundredth of the rate, cosine to 1e-6.
    """

    def __init__(self, peak: float, total_steps: int, warmup_steps: int = 0, end: float = 1e-6):
        super().__init__()
        if not 0 <= warmup_steps < total_steps:
            raise ValueError(
                f"expected 0 <= warmup_steps < total_steps ({total_steps}), got {warmup_steps}"
            )
        if not peak > 0 or end < 0:
            raise ValueError(f"expected peak > 0 and end >= 0, got peak {peak} and end {end}")
        self.peak = peak
        self.total_steps = total_steps
        self.warmup_steps = warmup_steps
        self.end = end

    def __call__(self, step: tf.Tensor | int) -> tf.Tensor:
        """Compute the rate of an integer step, a float32 scalar."""
        # float64 inside: float32 cannot count past 2^24 steps.
        t = tf.cast(step, tf.float64)
        w = float(self.warmup_steps)
        warm = self.peak * (0.01 + 0.99 * t / max(w, 1.0))
        progress = tf.clip_by_value((t - w) / (self.total_steps - w), 0.0, 1.0)
        cosine = self.end + (self.peak - self.end) * 0.5 * (1.0 + tf.cos(math.pi * progress))
        return tf.cast(tf.where(t < w, warm, cosine), tf.float32)

    def get_config(self) -> dict:
        return {
            "peak": self.peak,
            "total_steps": self.total_steps,
            "warmup_steps": self.warmup_steps,
            "end": self.end,
        }


@keras.utils.register_keras_serializable("pic_tf")
class WarmupSteps(keras.optimizers.schedules.LearningRateSchedule):
    """Linear warm-up from a thousandth, then a tenth at each of some steps.

        eta_t = peak (0.001 + 0.999 t / w)             for t < w,
        eta_t = peak 0.1^(number of steps s_i <= t)    for t >= w.

    Args:
      peak: learning rate after the warm-up.
      decay_steps: s_i.
      warmup_steps: w.

    Source: detectron2's schedule (WarmupMultiStepLR).
    """

    def __init__(self, peak: float, decay_steps: tuple[int, ...], warmup_steps: int = 0):
        super().__init__()
        self.peak, self.decay_steps, self.warmup_steps = peak, tuple(decay_steps), warmup_steps

    def __call__(self, step: tf.Tensor | int) -> tf.Tensor:
        """Compute the rate of an integer step, a float32 scalar."""
        t = tf.cast(step, tf.int64)
        passed = tf.add_n([tf.cast(t >= s, tf.float32) for s in self.decay_steps])
        warm = 0.001 + 0.999 * tf.cast(t, tf.float32) / max(self.warmup_steps, 1)
        return self.peak * tf.where(t < self.warmup_steps, warm, 0.1**passed)

    def get_config(self) -> dict:
        return {
            "peak": self.peak,
            "decay_steps": self.decay_steps,
            "warmup_steps": self.warmup_steps,
        }
