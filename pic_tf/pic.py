"""PIC as a Keras model: one train step from images and instance ids."""

from collections.abc import Callable

import tensorflow as tf
import tf_keras as keras

from pic_tf.instances.classifier import PAPER_NEGATIVES, InstanceClassifier
from pic_tf.instances.health import LogHistogram
from pic_tf.models.probe import LinearProbe
from pic_tf.models.projection import projection_head
from pic_tf.optim.lazy_sgd import LazySGD
from pic_tf.replicas import collectives


class PIC(keras.Model):
    """Parametric instance classification around any Keras backbone.

    One view an image and step, every image its own class: the embedding z of a view must find the
    weight row of its own instance among the K most recently visited ones (Eq. 1).

        model = PIC(backbone, num_instances=len(images))
        model.compile(LazySGD(WarmupCosine(0.06, total_steps)))
        model.fit(batches_of_images_and_instance_ids)

    Several views of an image in a step work as well: of one size, or in groups of different sizes (multi-crop). The
    loss is then the mean over all views.

    Args:
      backbone: Keras model, images -> features [B, C] or feature maps [B, h, w, C], which are
        averaged over h and w.
      num_instances: N, number of training images; ids are 0 ... N - 1.
      num_negatives: K; None for min(65536, N). K = N is the full soft-max.
      head: "mlp", "linear" or "none", see `projection_head`.
      hidden_dim: width of the mlp head's hidden layer.
      embedding_dim: D; with head "none" D is C.
      temperature: tau.
      similarity: "cosine" or "dot".
      weight_correction: catch up rows that return to the ring (Eq. 3).
      min_row_norm: norm floor of returning rows; None for 0.01 sqrt(D), 0 for off.
      augment: maps the data set's images to the backbone's input, e.g.
        `lambda batch: Augmentation()(*batch)` for batches of (views, random); None if the data set
        already yields what the backbone takes. It may give a tuple of groups of views of different sizes.
      small_crops_move_rows: whether the views of all groups move the instance weights, or those of the first alone,
        while the others only look for their rows.
      seed: of the initial instance weights.
      rows_on_device: resting rows of a replica that are on its device, where a `Pager` keeps the others in host memory
        or on disk; None for all of them.
      probe: a `LinearProbe` on the backbone's features that learns from labelled images which the batches bring
        along; it changes nothing else.

    Attributes:
      row_norms: `LogHistogram` over the epoch of the norms of rows that came from the store, before the floor.
      row_gaps: `LogHistogram` over the epoch of the steps that returning rows were away.
      skipped: int64 variable, steps skipped so far because loss or gradient was not finite.
      last_skipped: int64 variable, the last of them, -1 for none.

    A loss or gradient that is not finite never reaches a weight, a row, a momentum or a batch statistic: the step
    is skipped, as if its gradient were one that moves nothing (M_t = I for resting rows), and counted.

    Several replicas: build and compile it in the strategy's scope. Batch B and K are those of all replicas
    together, replica r gets the instances with `id % R == r` (`pic_tf.distribute`) and keeps their rows. Batch
    normalisation uses the statistics of a replica's own views; PIC has no second branch that could leak
    through them, so it needs no synchronised one.

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
        feature_dim = self._feature_dim()
        if head == "none":
            embedding_dim = feature_dim
        self.projection = projection_head(head, feature_dim, hidden_dim, embedding_dim)
        self.classifier = InstanceClassifier(
            num_instances,
            embedding_dim,
            min(PAPER_NEGATIVES, num_instances) if num_negatives is None else num_negatives,
            temperature,
            similarity,
            weight_correction,
            min_row_norm,
            seed,
            rows_on_device,
        )
        self.augment, self.small_crops_move_rows = augment, small_crops_move_rows
        self.mean_loss = keras.metrics.Mean("loss")
        self.mean_accuracy = keras.metrics.Mean("accuracy")
        self.mean_row_norm = keras.metrics.Mean("row_norm")
        self.mean_live_rows = keras.metrics.Mean("live_rows")
        self.sum_floored = keras.metrics.Sum("floored")
        self.sum_left_out = keras.metrics.Sum("left_out")
        self.row_norms = LogHistogram(1e-12, 1e12, 8, "row_norms")
        self.row_gaps = LogHistogram(1.0, 1e9, 4, "row_gaps")
        self.skipped = collectives.local_variable(lambda: tf.constant(0, tf.int64), "skipped")
        self.last_skipped = collectives.local_variable(lambda: tf.constant(-1, tf.int64), "last_skipped")

    @property
    def metrics(self) -> list[keras.metrics.Metric]:
        return [*self._shown_metrics(), self.row_norms, self.row_gaps]

    def _shown_metrics(self) -> list[keras.metrics.Metric]:
        means = [self.mean_loss, self.mean_accuracy, self.mean_row_norm, self.mean_live_rows]
        return [*means, self.sum_floored, self.sum_left_out, *([self.probe.accuracy] if self.probe else [])]

    def compile(
        self, optimizer: LazySGD, backbone_optimizer: keras.optimizers.Optimizer | None = None, **kwargs
    ) -> None:
        """As Keras' own, for the one optimizer that can catch resting rows up.

        Under the policy mixed_float16 the loss is scaled; a step whose gradients overflow is skipped and the scale
        halved.

        Args:
          optimizer: a `LazySGD`, for rows and head, and for the backbone too unless that has its own.
          backbone_optimizer: another Keras optimizer, with a learning rate of its own, for the backbone. It is told of
            steps to skip where it has a method `skip_unless`, as `LARS` has; otherwise it gets zeros as gradients.
          **kwargs: `run_eagerly`, `steps_per_execution` and `jit_compile`, as in Keras. `jit_compile` compiles
            the whole step with XLA, but for the check of the ids.

        Raises:
          TypeError: for another optimizer.
          ValueError: for an optimizer made outside the strategy's scope, or settings that exclude each other.
        """
        jit_compile = kwargs.pop("jit_compile", None)
        strategy = self.distribute_strategy
        if not isinstance(optimizer, LazySGD):
            raise TypeError(
                f"expected a pic_tf.LazySGD, got {type(optimizer).__name__}: other optimizers cannot update rows "
                "that rest between visits"
            )
        if not strategy.extended.variable_created_in_scope(optimizer.history.products):
            raise ValueError("expected a LazySGD made in the strategy's scope, got one made outside: build it there")
        if jit_compile and strategy.num_replicas_in_sync > 1:
            raise ValueError(
                f"expected jit_compile=False with {strategy.num_replicas_in_sync} replicas, got True: XLA does not "
                "compile what crosses between them (on TPUs the step is always compiled)"
            )
        super().compile(optimizer=optimizer, **kwargs)
        # What a step returns is already the same in all replicas; Keras would add it up.
        self.distribute_reduction_method = "first"
        # Keras wraps it where the policy is mixed_float16.
        self.loss_scaling = self.optimizer if self.optimizer is not optimizer else None
        can_skip = hasattr(backbone_optimizer, "skip_unless")
        if self.loss_scaling and backbone_optimizer and not (can_skip and self.projection.trainable_variables):
            raise ValueError(
                "expected no backbone_optimizer with mixed_float16, or LARS beside a head that trains, got "
                f"{type(backbone_optimizer).__name__}: use mixed_bfloat16"
            )
        self.lazy_sgd, self.backbone_optimizer = optimizer, backbone_optimizer
        self._that_skip = [optimizer, *([backbone_optimizer] if can_skip else [])]
        self._update_function = tf.function(self._update, jit_compile=True) if jit_compile else self._update

    def build_optimizers(self) -> None:
        """Create the momentum of backbone and head now, so that a checkpoint can bring it back."""
        of_backbone, of_head = self.backbone.trainable_variables, self.projection.trainable_variables
        if self.backbone_optimizer is None:
            self.optimizer.build([*of_backbone, *of_head])
            return
        self.optimizer.build(of_head)
        if hasattr(self.backbone_optimizer, "build"):
            self.backbone_optimizer.build(of_backbone)
        else:  # of the old kind, as tensorflow-addons' are; they have no public way to it
            self.backbone_optimizer._create_all_weights(of_backbone)

    def features(self, images: tf.Tensor, training: bool = False) -> tf.Tensor:
        """[B, C] features of the backbone's input."""
        features = self.backbone(images, training=training)
        return tf.reduce_mean(features, axis=[1, 2]) if features.shape.rank == 4 else features

    def call(self, images: tf.Tensor, training: bool = False) -> tf.Tensor:
        """float [B, D] embeddings of the backbone's input."""
        return self.projection(self.features(images, training), training=training)

    def train_step(self, data) -> dict[str, tf.Tensor]:
        """One update of backbone, head and the ring's rows from (images, instance ids).

        Args:
          data: (images, instance_ids integer [b]) or (images, instance_ids, weights float [b]), this replica's,
            b = B / R. `images` are what `augment` takes, or the backbone: [b n, ...], the n views of each image one
            after another, or a tuple of such groups. An image of weight 0 counts as not visited: its views have no
            loss and its row does not come to the ring. With a probe, a fourth element: (images as the backbone takes
            them [p, ...], labels [p], weights [p]), labelled images for it.

        Returns:
          loss, accuracy (own instance first among the live ones, of views that move rows), row_norm (of the rows that
          came from the store) and live_rows, means over the epoch; floored, how often the floor lifted a row in the
          epoch; left_out, how many images had weight 0 in it; skipped, steps skipped so far; learning_rate of this
          step; probe_accuracy on the probe's own batches.
        """
        images, instance_ids, weights, labelled = _unpack(data, self.probe is not None)
        instance_ids = tf.cast(instance_ids, tf.int64)
        # Every change of state waits for the batch: where a finite data set ends, or an image cannot be read, ops
        # that need no batch (step counter, history) would otherwise run once more. XLA would drop the checks.
        with tf.control_dependencies([instance_ids, *self.classifier.checks(instance_ids)]):
            weights = tf.ones_like(instance_ids, tf.float32) if weights is None else tf.cast(weights, tf.float32)
            return self._update_function(images, tf.identity(instance_ids), tf.identity(weights), labelled)

    def _update(self, images, instance_ids: tf.Tensor, weights: tf.Tensor, labelled) -> dict[str, tf.Tensor]:
        """The step itself; reads as in the paper."""
        images = images if self.augment is None else self.augment(images)
        groups = images if isinstance(images, (tuple, list)) else [images]

        visited = tf.where(weights > 0, instance_ids, tf.constant(-1, tf.int64))
        slots, happened = self.classifier.admit(visited, self.lazy_sgd)
        # A copy: reading the variable again later would see later values.
        rows = tf.identity(self.classifier.weights_ring)
        statistics = [tf.identity(variable) for variable in self._statistics()]
        with tf.GradientTape() as tape:
            tape.watch(rows)
            results = [self._losses_of(views, rows, slots, group) for group, views in enumerate(groups)]
            losses = tf.concat([losses for losses, _ in results], axis=0)
            of_views = tf.concat([_of_views(weights, losses) for losses, _ in results], axis=0)
            # The replica's share: Keras adds the gradients of all.
            loss = tf.reduce_mean(of_views * losses) / collectives.count()
            if self.losses:  # regularisation of the user's backbone
                loss += tf.add_n(self.losses) / collectives.count()
            scaled = self.loss_scaling.get_scaled_loss(loss) if self.loss_scaling else loss
        variables = [*self.backbone.trainable_variables, *self.projection.trainable_variables]
        gradients = tape.gradient(scaled, [*variables, rows])
        if self.loss_scaling:
            gradients = self.loss_scaling.get_unscaled_gradients(gradients)
        finite = self._guard(loss, gradients, statistics)
        *gradients, row_gradient = gradients
        self._apply_gradients(gradients, variables, finite)
        self.classifier.apply_gradient(row_gradient, rows, self.lazy_sgd)

        if self.probe:
            probe_images, labels, probe_weights = labelled
            self.probe.learn(self.features(probe_images), labels, probe_weights)

        live = tf.reduce_sum(tf.cast(self.classifier.ids >= 0, tf.float32)) * collectives.count()
        taken, correct = tf.cast(finite, tf.float32), results[0][1]
        self.mean_loss.update_state(tf.where(finite, losses, 0.0), sample_weight=taken * of_views)
        self.mean_accuracy.update_state(correct, sample_weight=taken * _of_views(weights, correct))
        self.mean_row_norm.update_state(happened["norm"], sample_weight=tf.cast(happened["fetched"], tf.float32))
        self.mean_live_rows.update_state(live)
        self.sum_floored.update_state(tf.cast(happened["floored"], tf.float32))
        self.sum_left_out.update_state(tf.cast(weights == 0, tf.float32))
        self.row_norms.update_state(happened["norm"], happened["fetched"])
        self.row_gaps.update_state(happened["gap"], happened["returning"])
        logs = {metric.name: metric.result() for metric in self._shown_metrics()}
        logs["skipped"] = tf.identity(self.skipped)
        return logs | {"learning_rate": tf.identity(self.lazy_sgd.learning_rate)}

    def _losses_of(self, views: tf.Tensor, rows: tf.Tensor, slots: tf.Tensor, group: int) -> tuple:
        """Loss float32 [b n] and accuracy bool [b n] of a group of views."""
        if group and not self.small_crops_move_rows:
            rows = tf.stop_gradient(rows)
        embedding = self(views, training=True)
        return self.classifier(embedding, rows, _of_views(slots, embedding))

    def _guard(self, loss: tf.Tensor, gradients: list, statistics: list[tf.Tensor]) -> tf.Tensor:
        """Whether loss and gradients of all replicas are finite; else nothing of this step will stay.

        Looks at loss + 1/2 |g|^2 + batch statistics, so a gradient too long for float32 to square counts as not finite.
        """
        parts = [tf.nn.l2_loss(tf.convert_to_tensor(g)) for g in gradients if g is not None]
        # An input of 1e21 leaves a finite loss, but no finite variance.
        parts += [tf.reduce_sum(v) for v in self._statistics() if v.dtype.is_floating]
        everything = loss + tf.add_n([tf.cast(part, tf.float32) for part in parts])
        of_loss, all_sums = tf.unstack(collectives.all_sum(tf.stack([loss, everything])))
        finite = tf.math.is_finite(all_sums)
        for optimizer in self._that_skip:
            optimizer.skip_unless(finite)

        def put_back() -> None:
            # The forward pass has moved them.
            for variable, before in zip(self._statistics(), statistics):
                variable.assign(before)

        tf.cond(finite, lambda: None, put_back)
        failed = ~finite
        if self.loss_scaling:  # an overflow is what it looks for, while there is scale left to take off
            failed &= ~tf.math.is_finite(of_loss) | (self.loss_scaling.loss_scale <= 1.0)
        self.skipped.assign_add(tf.cast(failed, tf.int64))
        self.last_skipped.assign(tf.where(failed, self.lazy_sgd.iterations, self.last_skipped))
        return finite

    def _apply_gradients(self, gradients: list, variables: list, finite: tf.Tensor) -> None:
        """Eq. 2 for backbone and head, whose gradients the replicas sum."""
        if self.backbone_optimizer:
            of_backbone = len(self.backbone.trainable_variables)
            own, gradients = gradients[:of_backbone], gradients[of_backbone:]
            if self.backbone_optimizer not in self._that_skip:
                own = [g if g is None else tf.where(finite, g, 0.0) for g in own]
            self.backbone_optimizer.apply_gradients(zip(own, variables))
            variables = variables[of_backbone:]
        if self.loss_scaling:
            # It looks at these alone, and must skip whatever the guard skips.
            last = max(i for i, g in enumerate(gradients) if g is not None)
            gradients[last] = tf.where(finite, gradients[last], tf.cast(float("nan"), gradients[last].dtype))
        self.optimizer.apply_gradients(zip(gradients, variables))

    def _statistics(self) -> list[tf.Variable]:
        """What the forward pass moves: each replica's own batch statistics."""
        weights = [*self.backbone.non_trainable_weights, *self.projection.non_trainable_weights]
        own = tf.VariableSynchronization.ON_READ
        return weights if collectives.count() == 1 else [v for v in weights if v.synchronization == own]

    def test_step(self, data) -> dict[str, tf.Tensor]:
        """Refused: a held-out image has no row of its own, so there is no loss to evaluate."""
        raise NotImplementedError(
            "expected fit without validation data, got evaluate: use pic_tf.evals on the backbone"
        )

    def _feature_dim(self) -> int:
        shape = getattr(self.backbone, "output_shape", None)
        if not isinstance(shape, tuple) or len(shape) not in (2, 4) or shape[-1] is None:
            raise ValueError(
                f"expected a backbone with one output [B, C] or [B, h, w, C] of known C, got {shape}: build it with "
                "keras.Input, or wrap it in a keras.Sequential with an input shape"
            )
        return shape[-1]


def _of_views(values: tf.Tensor, views: tf.Tensor) -> tf.Tensor:
    """[b] of images -> [b n] of the n views of each; `views` is anything [b n, ...]."""
    return tf.repeat(values, tf.shape(views)[0] // tf.size(values))


def _unpack(data, probed: bool) -> tuple:
    """(images, instance_ids, weights or None, labelled images for the probe or None)."""
    lengths = (4,) if probed else (2, 3)
    if not isinstance(data, tuple) or len(data) not in lengths:
        got = f"a tuple of {len(data)}" if isinstance(data, tuple) else type(data).__name__
        expected = "(images, instance_ids) or (images, instance_ids, weights)"
        if probed:
            expected = "(images, instance_ids, weights, labelled images) for a model with a probe"
        raise ValueError(f"expected batches of {expected}, got {got}: number your images from 0 to N - 1")
    return (*(*data, None)[:3], data[3] if probed else None)
