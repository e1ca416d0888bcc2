"""Measure the features while they are being learned."""

import sys

import numpy as np
import tensorflow as tf
import tf_keras as keras
from tqdm import tqdm

from pic_tf.data.decode.broken import BrokenImages
from pic_tf.data.pipeline import evaluation_batches, find_unreadable
from pic_tf.data.sources.source import Source
from pic_tf.evals.features import Features, inference, raw_pixels
from pic_tf.evals.knn import knn_accuracy
from pic_tf.models.probe import LinearProbe


class KnnMonitor(keras.callbacks.Callback):
    """Weighted kNN accuracy on held-out images, and that of a linear probe.

    The logs of the epochs of an evaluation get `knn` and `probe`.

    Args:
      backbone: the network being trained.
      evaluated: a network alike on one device and in float32; it gets the weights before an
        evaluation.
      chief: whether this worker evaluates; the others only take part in reading the weights.
      labelled: labelled images, the bank.
      held_out: labelled images to classify.
      every: epochs between two evaluations; the last epoch is always evaluated.
      epochs: epochs of the run.
      image_size: side of a view in pixels.
      eval_crop: side of the central crop, share of the short side.
      images: at most so many images of each, drawn by `seed`.
      k: neighbours that vote.
      temperature: temperature of the votes.
      max_broken: share of either's images that may be broken; those are left out.
      seed: seed of the draw of images.
      probe: a classifier that learns beside the network; None for none.

    Attributes:
      raw_pixels: accuracy with normalised pixels as features; NaN until `measure_references`.
      random_init: accuracy with the backbone before it learns; NaN until then.
    """

    def __init__(
        self,
        backbone: keras.Model,
        evaluated: keras.Model,
        chief: bool,
        labelled: Source,
        held_out: Source,
        *,
        every: int,
        epochs: int,
        image_size: int,
        eval_crop: float,
        images: int,
        k: int,
        temperature: float,
        max_broken: float,
        seed: int,
        probe: LinearProbe | None = None,
    ):
        super().__init__()
        self._backbone, self._evaluated, self._chief = backbone, evaluated, chief
        self._features, self._probe = inference(evaluated), probe
        self._every, self._epochs = every, epochs
        self._k, self._temperature = k, temperature
        # Lists of its own: images left out must not depend on the windows that training has seen.
        self._broken = (BrokenImages(labelled), BrokenImages(held_out))
        self._max_broken = max_broken
        self._images, self._batches, self._labels = [], [], []
        for source, broken in zip((labelled, held_out), self._broken):
            ids = np.arange(len(source))
            if len(ids) > images:
                ids = np.sort(np.random.default_rng(seed).choice(ids, images, replace=False))
            self._images.append((source, ids))
            batches = evaluation_batches(
                source, ids, image_size=image_size, crop_fraction=eval_crop, broken=broken
            )
            self._batches.append(batches)
            self._labels.append(source.labels[ids])
        self.raw_pixels = self.random_init = float("nan")

    def measure_references(self) -> None:
        """Measure what to compare with; every worker has to call it, before the network learns.

        Raises:
          ValueError: for an image that cannot be read, or too many that cannot be decoded.
        """
        copy_weights(self._backbone, self._evaluated)
        if self._chief:
            self.raw_pixels = self._accuracies(raw_pixels)["knn"]
            self.random_init = self._accuracies(self._features)["knn"]

    def on_epoch_end(self, epoch: int, logs: dict) -> None:
        if (epoch + 1) % self._every and epoch + 1 != self._epochs:
            return
        copy_weights(self._backbone, self._evaluated)
        if not self._chief:
            return
        logs |= self._accuracies(self._features, self._probe)
        probe = f", linear probe {logs['probe']:.4f}" if self._probe else ""
        tqdm.write(
            f"epoch {epoch + 1}: loss {float(logs['loss']):.3f}{probe}, kNN {logs['knn']:.4f} "
            f"(random initialisation {self.random_init:.4f}, raw pixels {self.raw_pixels:.4f})",
            file=sys.stderr,
        )

    def _accuracies(self, features: Features, probe: LinearProbe | None = None) -> dict[str, float]:
        try:
            bank, queries = (features(batches) for batches in self._batches)
        except tf.errors.OpError as error:
            unreadable = (find_unreadable(*images) for images in self._images)
            raise (next(filter(None, unreadable), None) or error) from error
        for broken in self._broken:
            broken.report(self._max_broken, "kNN: ")
        (bank, bank_labels), (queries, labels) = (
            (values[fine], of_values[fine])
            for values, of_values, fine in zip((bank, queries), self._labels, self._decodable())
        )
        knn = knn_accuracy(bank, bank_labels, queries, labels, self._k, self._temperature)
        return {"knn": knn} | ({"probe": probe.accuracy_on(queries, labels)} if probe else {})

    def _decodable(self) -> list[np.ndarray]:
        """bool [n] of each of the two sets of images."""
        return [broken.decodable(ids) for broken, (_, ids) in zip(self._broken, self._images)]


def copy_weights(trained: keras.Model, plain: keras.Model) -> None:
    """Copy weights to a plain network, also from one spread over replicas, on every worker."""
    # Of statistics, the mean over replicas.
    plain.set_weights([variable.numpy() for variable in trained.weights])
