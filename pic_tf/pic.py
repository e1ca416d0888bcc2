"""PIC as a Keras model: one train step from images and instance ids."""

import functools
from collections.abc import Callable

import tensorflow as tf
import tf_keras as keras

from pic_tf.instances.batch import check_views, unpack
from pic_tf.instances.classifier import PAPER_NEGATIVES, InstanceClassifier
from pic_tf.instances.health import StepMetrics
from pic_tf.instances.multi_crop import losses_of_views
from pic_tf.instances.row_model import RowModel
from pic_tf.instances.saving import check_registered
from pic_tf.models.probe import LinearProbe
from pic_tf.models.projection import feature_dim, projection_head
from pic_tf.replicas import collectives


@keras.utils.register_keras_serializable("pic_tf")
class PIC(RowModel):
    """Parametric instance classification around any Keras backbone.

    One view an image and step, every image its own class: the embedding z of a view must find the
    weight row of its own instance among those of the last K visits (Eq. 1). Of several views
    an image, in groups of different sizes too (multi-crop), the loss is the mean over all views.

        model = PIC(backbone, num_instances=len(images))
        model.compile(LazySGD(WarmupCosine(0.06, total_steps)))
        model.fit(batches_of_images_and_instance_ids)

    Args:
      backbone: Keras model, images -> features [B, C], or [B, h, w, C] to average over h and w.
      num_instances: N, number of training images; ids are 0 ... N - 1.
      num_negatives: K; None for min(65536, N). K = N is the full soft-max.
      head: "mlp", "mlp_bn", "linear" or "none", see `projection_head`.
      hidden_dim: width of the mlp head's hidden layer.
      embedding_dim: D; with head "none" D is C.
      temperature: tau.
      similarity: "cosine" or "dot".
      weight_correction: catch up rows that return to the ring (Eq. 3).
      min_row_norm: norm floor of returning rows; None for 0.01 sqrt(D), 0 for off.
      augment: function from images to the backbone's input or a tuple of inputs of different
        sizes, as `lambda batch: Augmentation()(*batch)` of (views, random); None for no change.
      small_crops_move_rows: whether all groups of views move rows, or the first alone.
      seed: of the initial instance weights.
      rows_on_device: resting rows of a replica on its device, others with a `Pager`; None for all.
      probe: learns from labelled images which the batches bring along, and changes nothing else.

    Attributes:
      row_norms, row_gaps: `LogHistogram` of norms and absences of returning rows (`StepMetrics`).
      skipped, last_skipped: int64 variables, number of skipped steps and the last one, -1 for none.
        What is not finite reaches no weight, row, momentum or batch statistic (`StepGuard`).

    Several replicas: build and compile it in the strategy's scope. B and K are those of all;
    replica r gets the instances with `id % R == r` and keeps their rows. Batch normalisation sees a
    replica's own views only: no second branch could leak through its statistics.

    Raises:
      ValueError: for a backbone with an unknown number of features, or values out of range.

    Source: paper, Section 2.1.
    """

    def __init__(
        self,
        backbone: keras.Model,
        num_instances: int,
        num_negatives: int | None = None,
        head: str = "mlp",
        hidden_dim: int = 2048,
        embedding_dim: int = 128,
        temperature: float = 0.2,
        similarity: str = "cosine",
        weight_correction: bool = True,
        min_row_norm: float | None = None,
        augment: Callable[..., tf.Tensor | tuple[tf.Tensor, ...]] | None = None,
        small_crops_move_rows: bool = False,
        seed: int = 0,
        rows_on_device: int | None = None,
        probe: LinearProbe | None = None,
        name: str = "pic",
    ):
        super().__init__(name=name)
        self.backbone, self.probe = backbone, probe
        self.head, self.hidden_dim = head, hidden_dim
        c = feature_dim(backbone)
        k = min(PAPER_NEGATIVES, num_instances) if num_negatives is None else num_negatives
        self.projection = projection_head(head, c, hidden_dim, embedding_dim)
        self.classifier = InstanceClassifier(
            num_instances,
            embedding_dim=c if head == "none" else embedding_dim,
            num_negatives=k,
            temperature=temperature,
            similarity=similarity,
            weight_correction=weight_correction,
            min_row_norm=min_row_norm,
            seed=seed,
            rows_on_device=rows_on_device,
        )
        self.augment, self.small_crops_move_rows = augment, small_crops_move_rows
        self.step_metrics = StepMetrics()
        self.row_norms, self.row_gaps = self.step_metrics.row_norms, self.step_metrics.row_gaps
        self.built = True  # all weights are there: Keras need not warn where it saves them

    def features(self, images: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Compute features, float [B, C], of the backbone's input."""
        features = self.backbone(images, training=training)
        return tf.reduce_mean(features, axis=[1, 2]) if features.shape.rank == 4 else features

    def call(self, images: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Compute embeddings, float [B, D], of the backbone's input."""
        return self.projection(self.features(images, training), training=training)

    def train_step(self, data: tuple) -> dict[str, tf.Tensor]:
        """Update backbone, head and the ring's rows once.

        Args:
          data: this replica's share of a batch, as `pic_tf.instances.batch.unpack` takes it.

        Returns:
          The numbers of `StepMetrics` over the epoch so far; skipped, steps skipped so far;
          learning_rate of this step; probe_accuracy on the probe's own batches.
        """
        batch = unpack(data, self.probe is not None)
        images, instance_ids, weights, labelled = batch
        checks = batch.checks(self.augment is not None) + self.lazy_sgd.checks()
        checks += self.classifier.checks(instance_ids)
        # Every change of state waits for the batch: without one (the data end, an image is broken)
        # step counter and history, which need none, would go on. XLA would drop the checks.
        with tf.control_dependencies([instance_ids, *checks]):
            instance_ids, weights = tf.identity(instance_ids), tf.identity(weights)
            return self._update_function(images, instance_ids, weights, labelled)

    def _update(self, images, instance_ids, weights, labelled) -> dict[str, tf.Tensor]:
        """Augment, and take the step with views that fit."""
        views = images if self.augment is None else self.augment(images)
        with tf.control_dependencies(check_views(views, instance_ids)):
            return self._step(views, instance_ids, weights, labelled)

    def _step(self, views, instance_ids, weights, labelled) -> dict[str, tf.Tensor]:
        """Take the step of the paper."""
        visited = tf.where(weights > 0, instance_ids, tf.constant(-1, tf.int64))
        slots, moved = self.classifier.admit(visited, self.lazy_sgd)
        # Copies: reading the variables again later would see later values.
        rows, statistics = tf.identity(self.classifier.weights_ring), self.guard.snapshot()

        with tf.GradientTape() as tape:  # Eq. 1
            tape.watch(rows)
            embed, all_move = functools.partial(self, training=True), self.small_crops_move_rows
            seen = losses_of_views(views, embed, self.classifier, rows, slots, weights, all_move)
            # This replica's share: the optimizers add the gradients of all.
            loss = tf.reduce_mean(seen.weights * seen.losses) / collectives.count()
            if self.losses:  # regularisation of the user's backbone
                loss += tf.add_n(self.losses) / collectives.count()
            scaled = self.guard.scaled(loss)
        trained = [*self.backbone.trainable_variables, *self.projection.trainable_variables]
        gradients = self.guard.unscaled(tape.gradient(scaled, [*trained, rows]))
        step = self.lazy_sgd.iterations
        finite, failed = self.guard.check(loss, gradients, statistics, step)

        for optimizer, variables in self._optimizers():  # Eq. 2
            self.guard.apply(optimizer, gradients[: len(variables)], variables, finite)
            gradients = gradients[len(variables) :]
        self.classifier.apply_gradient(gradients[-1], rows, self.lazy_sgd)
        if self.probe:
            self.probe.learn(self.features(labelled[0]), *labelled[1:], self.lazy_sgd.iterations)
        self.step_metrics.update_views(*seen, ~failed)
        self.step_metrics.update_rows(moved, self.classifier.ids >= 0, weights == 0)
        logs = {metric.name: metric.result() for metric in self._shown_metrics}
        rate = tf.identity(self.lazy_sgd.learning_rate)
        return logs | {"skipped": tf.identity(self.skipped), "learning_rate": rate}

    def get_config(self) -> dict:
        """Describe the model, for `keras.models.load_model`.

        Raises:
          ValueError: for an `augment` that Keras could not find again.
        """
        serialize = keras.saving.serialize_keras_object
        config = {"backbone": serialize(self.backbone), "augment": None, "probe": None}
        if self.augment is not None:
            check_registered(self.augment)
            config["augment"] = serialize(self.augment)
        if self.probe:
            config["probe"] = serialize(self.probe)
        rows = self.classifier.get_config()
        names = "head hidden_dim small_crops_move_rows name".split()
        config |= rows | {name: getattr(self, name) for name in names}
        return config | {"precision": self.dtype_policy.name}

    @classmethod
    def from_config(cls, config: dict, custom_objects: dict | None = None) -> "PIC":
        """Build a model as `get_config` describes it."""
        config, policy = dict(config), keras.mixed_precision.global_policy()
        keras.mixed_precision.set_global_policy(config.pop("precision"))
        try:
            for name in ("backbone", "augment", "probe"):
                config[name] = keras.saving.deserialize_keras_object(config[name], custom_objects)
            return cls(**config)
        finally:
            keras.mixed_precision.set_global_policy(policy)

    @property
    def metrics(self) -> list[keras.metrics.Metric]:
        """All running metrics, which `fit` resets where an epoch begins."""
        probed = [self.probe.accuracy] if self.probe else []
        return [*self.step_metrics.numbers, *probed, self.row_norms, self.row_gaps]

    @property
    def _shown_metrics(self) -> list[keras.metrics.Metric]:
        steps = self.step_metrics
        shown = steps.numbers if self.classifier.store else steps.numbers_where_no_row_rests
        return [*shown, self.probe.accuracy] if self.probe else shown
