"""Faster R-CNN on the fourth stage of a ResNet (ResNet-C4)."""

from typing import Any, NamedTuple

import tensorflow as tf
import tf_keras as keras

from pic_tf.evals.detection.boxes import anchors, clip, decode
from pic_tf.evals.detection.losses import assign, box_losses, proposal_losses
from pic_tf.evals.detection.roi_align import roi_align
from pic_tf.evals.detection.suppression import best_objects, propose
from pic_tf.evals.transfer.network import (
    batch_normalisation,
    decaying,
    has_small_stem,
    last_of_stage,
    synchronised,
    update,
)
from pic_tf.optim.lazy_sgd import LazySGD

_WEIGHTS = (10.0, 10.0, 5.0, 5.0)  # of the differences of a box from its proposal


class Proposals(NamedTuple):
    """Numbers of a detector, with the published ones as defaults.

    Attributes:
      sizes, ratios: of the anchors, see `boxes.anchors`.
      cells: side of the grid of a proposal, which the last stage halves.
      before_training, after_training: proposals before and after suppression in training.
      before, after: the same at test.
      anchors_learned, proposals_learned: anchors and proposals of an image to learn from.
      told: largest number of objects to tell in an image.

    Source: detectron2's R50-C4, with MoCo's numbers for VOC (https://arxiv.org/abs/1911.05722,
    Appendix A.2).
    """

    sizes: tuple[float, ...] = (32.0, 64.0, 128.0, 256.0, 512.0)
    ratios: tuple[float, ...] = (0.5, 1.0, 2.0)
    cells: int = 14
    before_training: int = 12_000
    after_training: int = 2000
    before: int = 6000
    after: int = 1000
    anchors_learned: int = 256
    proposals_learned: int = 512
    told: int = 100


class Detector(keras.Model):
    """Faster R-CNN whose proposals come from stage 3 of a ResNet (conv4), and classes from stage 4.

    Stage 4 (conv5) looks at the RoIAlign of each proposal, and one more batch normalisation stands
    behind it. Nothing is fixed: all layers learn, all batch normalisation takes the statistics of
    the batch, over all replicas.

    Args:
      backbone: a ResNet of `pic_tf.models.resnet`; its weights are copied.
      classes: K, number of classes.
      numbers: see `Proposals`.
      weight_decay: lambda, of kernels and biases; not of batch normalisation.
      seed: seed of the new layers and of the draws.

    Source: Ren et al. 2015 (https://arxiv.org/abs/1506.01497); the normalisation behind conv5: He
    et al. 2019 (https://arxiv.org/abs/1911.05722), Section 4.2.
    """

    def __init__(
        self,
        backbone: keras.Model,
        classes: int,
        numbers: Proposals = Proposals(),  # noqa: B008  (immutable)
        weight_decay: float = 1e-4,
        seed: int = 0,
    ):
        super().__init__(name="detector")
        self.numbers, self.classes, self.seed = numbers, classes, seed
        self.weight_decay = weight_decay
        backbone = synchronised(backbone)
        last = last_of_stage(backbone, 3)
        self.stride = 4 if has_small_stem(backbone) else 16
        self.trunk = keras.Model(backbone.input, last.output, name="trunk")
        behind = backbone.get_layer("features").input
        self.last_stage = keras.Model(last.output, behind, name="last_stage")
        channels, count = last.output.shape[-1], len(numbers.sizes) * len(numbers.ratios)
        names = {"proposal": 0.01, "objectness": 0.01, "shift": 0.01, "class": 0.01, "box": 0.001}
        start = {
            name: keras.initializers.RandomNormal(stddev=deviation, seed=seed + i)
            for i, (name, deviation) in enumerate(names.items())
        }
        convolution, dense = keras.layers.Conv2D, keras.layers.Dense
        self.proposal = convolution(
            channels, 3, 1, "same", activation="relu", kernel_initializer=start["proposal"]
        )
        self.objectness = convolution(count, 1, kernel_initializer=start["objectness"])
        self.shift = convolution(4 * count, 1, kernel_initializer=start["shift"])
        self.norm = batch_normalisation("last_stage_bn")
        self.class_head = dense(classes + 1, kernel_initializer=start["class"])
        self.box_head = dense(4 * classes, kernel_initializer=start["box"])
        for layer in (self.proposal, self.norm, self.class_head, self.box_head):
            layer.build(
                [None, None, None, channels if layer is self.proposal else behind.shape[-1]]
            )
        for layer in (self.objectness, self.shift):
            layer.build([None, None, None, channels])
        self._decaying = decaying(self)
        self.means = [keras.metrics.Mean(name) for name in _LOSSES]
        self.built = True

    @property
    def metrics(self) -> list[keras.metrics.Metric]:
        return self.means

    def compile(self, optimizer: LazySGD, **kwargs: Any) -> None:
        """Take an optimizer without decay of its own: not every tensor decays."""
        super().compile(optimizer=optimizer, **kwargs)
        optimizer.build(self.trainable_variables)

    def train_step(self, batch: tuple) -> dict[str, tf.Tensor]:
        """Update from a batch of `inputs.training_batches`."""
        images, sizes, objects, classes, there, step = batch
        context = tf.distribute.get_replica_context()
        replicas = tf.distribute.get_strategy().num_replicas_in_sync
        key = tf.stack([self.seed, tf.cast(step[0], tf.int32) * replicas])
        key += tf.stack([0, tf.cast(context.replica_id_in_sync_group, tf.int32)])
        with tf.GradientTape() as tape:
            losses = self.losses_of(images, sizes, objects, classes, there, key)
            loss = tf.add_n(losses) / replicas
        gradients = tape.gradient(loss, self.trainable_variables)
        update(self, gradients, self._decaying, self.weight_decay)
        for mean, value in zip(self.means, [tf.add_n(losses), *losses]):
            mean.update_state(value)
        return {mean.name: mean.result() for mean in self.means}

    def losses_of(
        self,
        images: tf.Tensor,
        sizes: tf.Tensor,
        objects: tf.Tensor,
        classes: tf.Tensor,
        there: tf.Tensor,
        key: tf.Tensor,
    ) -> list[tf.Tensor]:
        """Compute the losses of proposals and of boxes, four scalars, see `losses`.

        Args:
          images: float32 [B, H, W, 3], normalised, padded at the right and below.
          sizes: float32 [B, 2], height and width of each image without padding.
          objects, classes, there: float32 [B, G, 4], int32 [B, G], bool [B, G], padded.
          key: int32 [2], seed of the draws.
        """
        maps = self.trunk(images, training=True)
        places, logits, shifts = self._places(maps)
        numbers, count = self.numbers, tf.shape(images)[0]
        random = tf.random.stateless_uniform([count, tf.shape(places)[0]], key)
        learned = numbers.anchors_learned
        first = proposal_losses(logits, shifts, places, objects, there, random, learned)
        before, after = numbers.before_training, numbers.after_training
        boxes, valid = propose(logits, shifts, places, sizes, before, after)
        random = tf.random.stateless_uniform(
            [count, after + tf.shape(objects)[1]], key + tf.constant([1, 0])
        )
        boxes, aims, told, fine = assign(
            *(boxes, valid, objects, classes, there, random),
            *(numbers.proposals_learned, self.classes, _WEIGHTS),
        )
        scores, differences = self._judge(maps, tf.stop_gradient(boxes), True)
        aims, told = tf.reshape(aims, [-1, 4]), tf.reshape(told, [-1])
        second = box_losses(scores, differences, aims, told, tf.reshape(fine, [-1]))
        return [*first, *second]

    def detect(self, images: tf.Tensor, sizes: tf.Tensor) -> tuple[tf.Tensor, ...]:
        """Tell the objects in images.

        Args:
          images, sizes: as of `losses_of`.

        Returns:
          As of `suppression.best_objects`.
        """
        maps = self.trunk(images, training=False)
        places, logits, shifts = self._places(maps)
        numbers = self.numbers
        proposals, valid = propose(logits, shifts, places, sizes, numbers.before, numbers.after)
        scores, differences = self._judge(maps, proposals, False)
        shape = [tf.shape(images)[0], numbers.after, self.classes]
        boxes = decode(differences, tf.reshape(proposals, [-1, 1, 4]), _WEIGHTS)
        boxes = clip(tf.reshape(boxes, [shape[0], -1, 4]), sizes)
        likely = tf.reshape(tf.nn.softmax(scores)[:, :-1], shape)
        likely = tf.where(valid[..., None], likely, 0.0)
        return best_objects(likely, tf.reshape(boxes, [*shape, 4]), numbers.told)

    def _places(self, maps: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """Anchors [N, 4], their objectness [B, N] and their differences [B, N, 4]."""
        shape = tf.shape(maps)
        places = anchors(shape[1], shape[2], self.stride, self.numbers.sizes, self.numbers.ratios)
        hidden = self.proposal(maps)
        logits = tf.reshape(self.objectness(hidden), [shape[0], -1])
        return places, logits, tf.reshape(self.shift(hidden), [shape[0], -1, 4])

    def _judge(
        self, maps: tf.Tensor, boxes: tf.Tensor, training: bool
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Logits [M, K + 1] and differences [M, K, 4] of boxes [B, M / B, 4]."""
        grids = roi_align(maps, boxes, self.stride, self.numbers.cells)
        grids = self.norm(self.last_stage(grids, training=training), training=training)
        features = tf.reduce_mean(grids, [1, 2])
        differences = tf.reshape(self.box_head(features), [-1, self.classes, 4])
        return self.class_head(features), differences


_LOSSES = ("loss", "objectness", "proposals", "classes", "boxes")
