"""Make the batches of a run: a function of replica and steps alone."""

import dataclasses

import tensorflow as tf

from pic_tf.data.crops import Crop
from pic_tf.data.decode.broken import BrokenImages
from pic_tf.data.normalisation import IMAGENET, Normalisation
from pic_tf.data.order import SlidingWindow
from pic_tf.data.pipeline import OfOne, labelled_batches, pretraining_batches
from pic_tf.data.sources.source import Source


@dataclasses.dataclass(frozen=True)
class Inputs:
    """Batches of a run, and of the linear probe beside it.

    Attributes:
      source: training images.
      orders: order of visits of each replica.
      crops: kinds of crops of an image in a step.
      seed: of crops and augmentation.
      broken: list of training images that cannot be decoded.
      augment: augmentation of a view on the host; None where the model augments.
      labelled: labelled images for the linear probe; None without one.
      probe_batch_size: labelled images a step, over all replicas.
      probe_crop: their crop.
      normalisation: mean and deviation of each channel, for the probe.
    """

    source: Source
    orders: list[SlidingWindow]
    crops: tuple[Crop, ...]
    seed: int
    broken: BrokenImages
    augment: OfOne | None = None
    labelled: Source | None = None
    probe_batch_size: int = 0
    probe_crop: Crop | None = None
    normalisation: Normalisation = IMAGENET

    def batches(self, replica: int, start_step: int, stop_step: int) -> tf.data.Dataset:
        """Give the training batches of a replica, of the steps start_step ... stop_step - 1."""
        return pretraining_batches(
            self.source,
            self.orders[replica],
            crops=self.crops,
            seed=self.seed,
            start_step=start_step,
            stop_step=stop_step,
            broken=self.broken,
            augment=self.augment,
        )

    def of_replica(
        self, start_step: int, stop_step: int, replica: int, num_replicas: int
    ) -> tf.data.Dataset:
        """Give the batches of training, each with the batch of the linear probe, if there is one.

        Args:
          start_step: first step.
          stop_step: one past the last step.
          replica: r.
          num_replicas: R.

        Returns:
          Dataset of (groups, instance_ids, weights) or, with a probe, (groups, instance_ids,
          weights, labelled).
        """
        batches = self.batches(replica, start_step, stop_step)
        if self.labelled is None:
            return batches
        n, seed = len(self.labelled), self.seed + 1  # other crops than those of training
        of_probe = labelled_batches(
            self.labelled,
            SlidingWindow(n, self.probe_batch_size, n, n, seed, replica, num_replicas),
            crop=self.probe_crop,
            seed=seed,
            start_step=start_step,
            stop_step=stop_step,
            broken=BrokenImages(self.labelled),
            normalisation=self.normalisation,
        )
        return tf.data.Dataset.zip((batches, of_probe)).map(lambda batch, probe: (*batch, probe))
