"""PIC as a Keras model: one train step from images and instance ids."""

import functools
from collections.abc import Callable

import tensorflow as tf
import tf_keras as keras

from pic_tf.instances.classifier import PAPER_NEGATIVES, InstanceClassifier
from pic_tf.instances.mixing import draw_share, partners_of
from pic_tf.instances.multi_crop import losses_of_views
from pic_tf.instances.row_model import RowModel
from pic_tf.instances.saving import check_registered
from pic_tf.models.probe import LinearProbe


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
      forget_after: steps of rest after which a row begins anew, an ablation; 0 for never.
      label_smoothing: share of the target that all live rows have in common (`instance_softmax`).
      mixup_probability: that the views of a step are mixed with one another (i-Mix, `mixing`).
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
        forget_after: int = 0,
        label_smoothing: float = 0.0,
        mixup_probability: float = 0.0,
        augment: Callable[..., tf.Tensor | tuple[tf.Tensor, ...]] | None = None,
        small_crops_move_rows: bool = False,
        seed: int = 0,
        rows_on_device: int | None = None,
        probe: LinearProbe | None = None,
        name: str = "pic",
    ):
        network = backbone, head, hidden_dim, embedding_dim
        super().__init__(*network, augment, probe, name=name)
        k = min(PAPER_NEGATIVES, num_instances) if num_negatives is None else num_negatives
        self.classifier = InstanceClassifier(
            num_instances,
            embedding_dim=self.projection.output_shape[-1],
            num_negatives=k,
            temperature=temperature,
            similarity=similarity,
            weight_correction=weight_correction,
            min_row_norm=min_row_norm,
            forget_after=forget_after,
            label_smoothing=label_smoothing,
            seed=seed,
            rows_on_device=rows_on_device,
        )
        if not 0 <= mixup_probability <= 1:
            raise ValueError(f"expected 0 <= mixup_probability <= 1, got {mixup_probability}")
        self.small_crops_move_rows = small_crops_move_rows
        self.mixup_probability = mixup_probability

    def _step(self, views, instance_ids, weights) -> None:
        """Take the step of the paper."""
        visited = tf.where(weights > 0, instance_ids, tf.constant(-1, tf.int64))
        slots, moved = self.classifier.admit(visited, self.lazy_sgd)
        # Copies: reading the variables again later would see later values.
        rows, statistics = tf.identity(self.classifier.weights_ring), self.guard.snapshot()
        partners = None
        if self.mixup_probability:
            seed, step = self.classifier.seed, self.lazy_sgd.iterations
            share = draw_share(self.mixup_probability, seed, step)
            partners = partners_of(slots, weights, share)

        with tf.GradientTape() as tape:  # Eq. 1
            tape.watch(rows)
            embed, all_move = functools.partial(self, training=True), self.small_crops_move_rows
            seen = losses_of_views(
                views, embed, self.classifier, rows, slots, weights, all_move, partners
            )
            loss = self._share(seen.weights * seen.losses)
            scaled = self.guard.scaled(loss)
        _, failed, (of_rows,) = self._descend(tape, loss, scaled, statistics, [rows])  # Eq. 2
        self.classifier.apply_gradient(of_rows, rows, self.lazy_sgd)

        self.step_metrics.update_views(*seen, ~failed)
        self.step_metrics.update_images(weights)
        self.step_metrics.update_rows(moved, self.classifier.ids >= 0)

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
        names = "head hidden_dim mixup_probability small_crops_move_rows name".split()
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
