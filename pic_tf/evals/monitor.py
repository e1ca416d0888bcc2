"""Measure the features while they are being learned."""

import sys
from collections.abc import Callable, Sequence

import numpy as np
import tensorflow as tf
import tf_keras as keras
from tqdm import tqdm

from pic_tf.data.augment import normalise
from pic_tf.data.normalisation import IMAGENET, Normalisation
from pic_tf.evals.feature_health import COLLAPSED, ViewPairs, collapsed, in_words, rankme
from pic_tf.evals.features import inference, raw_pixels
from pic_tf.evals.knn import knn_accuracy
from pic_tf.evals.label_curve import Curves, label_curve
from pic_tf.evals.some_images import Extracted, SomeImages
from pic_tf.models.probe import LinearProbe


class FeatureMonitor(keras.callbacks.Callback):
    """Measure RankMe, cosines of views, and with labels the accuracy of kNN and of a linear probe.

    The logs of the epochs of an evaluation get `rankme`, `cosine_of_views` and `cosine_of_images`,
    with labels `knn`, and with a probe `probe`.

    Args:
      backbone: the network being trained.
      evaluated: a network alike on one device and in float32; it gets the weights before an
        evaluation.
      chief: whether this worker evaluates; the others only take part in reading the weights.
      searched: images whose features have the effective rank; with labels the bank of kNN.
      held_out: labelled images to classify; None where those searched have no labels.
      pairs: two views of some images.
      every: epochs between two evaluations; the last epoch is always evaluated.
      epochs: epochs of the run.
      k: neighbours that vote.
      temperature: temperature of the votes.
      label_counts: numbers of labels for `label_curves`; () for none.
      probe: a classifier that learns beside the network; None for none.
      beginning: the name of the network before it learns.
      normalisation: mean and deviation of each channel.

    Attributes:
      references: name of a figure -> what to compare with -> its value; {} until
        `measure_references`.
    """

    def __init__(
        self,
        backbone: keras.Model,
        evaluated: keras.Model,
        chief: bool,
        searched: SomeImages,
        held_out: SomeImages | None,
        pairs: ViewPairs,
        *,
        every: int,
        epochs: int,
        k: int,
        temperature: float,
        label_counts: Sequence[int] = (),
        probe: LinearProbe | None = None,
        beginning: str = "random network",
        normalisation: Normalisation = IMAGENET,
    ):
        super().__init__()
        self._backbone, self._evaluated, self._chief = backbone, evaluated, chief
        self._beginning = beginning
        self._searched, self._held_out, self._pairs = searched, held_out, pairs
        channels = len(normalisation.mean)
        self._features, self._probe = inference(evaluated, channels), probe
        self._normalisation = normalisation
        self._every, self._epochs = every, epochs
        self._k, self._temperature, self._label_counts = k, temperature, label_counts
        self._untrained = None  # features to compare with at the end
        self.references: dict[str, dict[str, float]] = {}

    def measure_references(self) -> None:
        """Measure what to compare with; every worker has to call it, before the network learns.

        Raises:
          ValueError: for an image that cannot be read, or too many that cannot be decoded.
        """
        copy_weights(self._backbone, self._evaluated)
        if not self._chief:
            return
        figures, beside = self._figures(), ""
        compared = ("knn", "rankme")
        self.references = {x: {self._beginning: figures[x]} for x in compared if x in figures}
        if self._held_out:
            pixels = self._accuracy(*self._extract(self._of_pixels))
            self.references["knn"]["raw pixels"] = pixels
            beside = f" (raw pixels {pixels:.4f})"
        if self._label_counts:
            self._untrained = self._extract(self._of_views)
        self._tell(f"{self._beginning}:", figures, beside)

    def on_epoch_end(self, epoch: int, logs: dict) -> None:
        if (epoch + 1) % self._every and epoch + 1 != self._epochs:
            return
        copy_weights(self._backbone, self._evaluated)
        if not self._chief:
            return
        figures = self._figures(self._probe)
        self._tell(f"epoch {epoch + 1}: loss {float(logs['loss']):.3f},", figures)
        if collapsed(figures["rankme"], figures["cosine_of_images"]):
            tqdm.write(COLLAPSED, file=sys.stderr)
        logs |= figures

    def label_curves(self) -> Curves:
        """Measure accuracy against labels: of the trained network, as it began, and pixels.

        Returns:
          The curves, of the plain network as it is now; {} where none are asked for.
        """
        if not self._label_counts:
            return {}
        kinds = {
            "pretrained": self._extract(self._of_views),
            self._beginning: self._untrained,
            "raw pixels": self._extract(self._of_pixels),
        }
        return {name: label_curve(*sets, self._label_counts) for name, sets in kinds.items()}

    def _figures(self, probe: LinearProbe | None = None) -> dict[str, float]:
        """Measure the network as it is: figures by the names of the logs."""
        searched, held_out = self._extract(self._of_views)
        cosines = self._pairs.cosines(self._features)
        figures = {"rankme": rankme(searched.features)}
        figures |= {"cosine_of_views": cosines.of_views, "cosine_of_images": cosines.of_images}
        if held_out:
            figures["knn"] = self._accuracy(searched, held_out)
        if probe:
            figures["probe"] = probe.accuracy_on(held_out.features, held_out.labels)
        return figures

    def _extract(
        self, features: Callable[[tf.data.Dataset], np.ndarray]
    ) -> tuple[Extracted, Extracted | None]:
        held_out = self._held_out and self._held_out.extract(features)
        return self._searched.extract(features), held_out

    def _of_views(self, batches: tf.data.Dataset) -> np.ndarray:
        normalised = (normalise(images, self._normalisation) for images in batches)
        return np.concatenate([self._features(images) for images in normalised])

    def _of_pixels(self, batches: tf.data.Dataset) -> np.ndarray:
        return raw_pixels(batches, self._normalisation)

    def _accuracy(self, bank: Extracted, queries: Extracted) -> float:
        return knn_accuracy(*bank, *queries, self._k, self._temperature)

    def _tell(self, beginning: str, figures: dict[str, float], beside: str = "") -> None:
        probe = f"linear probe {figures['probe']:.4f}, " if "probe" in figures else ""
        knn = f"kNN {figures['knn']:.4f}{beside}, " if "knn" in figures else ""
        length = self._evaluated.output_shape[-1]
        tqdm.write(f"{beginning} {probe}{knn}{in_words(figures, length)}", file=sys.stderr)


def copy_weights(trained: keras.Model, plain: keras.Model) -> None:
    """Copy weights to a plain network, also from one spread over replicas, on every worker."""
    # Of statistics, the mean over replicas.
    plain.set_weights([variable.numpy() for variable in trained.weights])
