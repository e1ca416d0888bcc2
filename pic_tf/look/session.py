"""Open a backbone or a feature file, and images: what pictures of features are drawn from."""

import dataclasses
import pathlib
import tempfile

import numpy as np

from pic_tf.data.sources.named import open_dataset
from pic_tf.data.sources.pixel_format import RGB, PixelFormat
from pic_tf.data.sources.source import Source
from pic_tf.evals.features import cached_features, normalisation_of_pixels
from pic_tf.evals.run_behind import images_of
from pic_tf.evals.settings import PIXELS, EvaluationSettings, resolve
from pic_tf.evals.subset import Subset
from pic_tf.feature_files.settings import ENDINGS
from pic_tf.feature_files.table import FeatureFile, open_features
from pic_tf.look.settings import FeatureMapSettings, RetrievalSettings
from pic_tf.serving.exported import Exported, open_exported

# As of an evaluation.
_OWN = "model eval_dataset image_size eval_crop max_broken split_folders seed".split()


@dataclasses.dataclass(frozen=True, eq=False)
class Session:
    """A backbone and the images to look at.

    Attributes:
      exported: the backbone; None for raw pixels, and with a file.
      train: training images.
      held_out: held-out images, or None.
      views: settings of the views.
      cache: folder of cached features.
      file: features of all images; None to compute those that are asked for.
    """

    exported: Exported | None
    train: Source
    held_out: Source | None
    views: EvaluationSettings
    cache: pathlib.Path
    file: FeatureFile | None = None

    @property
    def name(self) -> str:
        """The name of the features in titles."""
        if self.file:
            return self.file.card["backbone"]
        return self.exported.name if self.exported else "raw pixels"

    def features(self) -> tuple[np.ndarray, np.ndarray]:
        """Give features of the training images, as `cached_features` does."""
        if self.file:
            features = self.file.of_part("train")
            return features, ~np.isnan(features[:, 0])
        return self._cached(self.train, self.views.max_broken, self.cache)

    def features_of(
        self, source: Source, instance_ids: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Give features of a few images; broken ones are left out, however many.

        Args:
          source: the images.
          instance_ids: int64 [n].

        Returns:
          (int64 [m] ids of those that could be decoded, float32 [m, C] their features).

        Raises:
          ValueError: for an image that cannot be read, or where none can be decoded.
        """
        found = self._from_file if self.file else self._computed
        features, decoded = found(source, instance_ids)
        if not decoded.any():
            raise ValueError(
                f"expected images of {source.name} that can be decoded, got none: choose others"
            )
        return instance_ids[decoded], features[decoded]

    def _from_file(self, source: Source, instance_ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        part = "train" if source is self.train else "held_out"
        features = self.file.of_part(part)[instance_ids]
        return features, ~np.isnan(features[:, 0])

    def _computed(self, source: Source, instance_ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        some = Subset(source, instance_ids)
        with tempfile.TemporaryDirectory() as folder:  # other ids the next time
            features, decoded = self._cached(some, 1.0, pathlib.Path(folder))
            return np.array(features), decoded

    def _cached(
        self, source: Source, max_broken: float, cache: pathlib.Path
    ) -> tuple[np.ndarray, np.ndarray]:
        views = {"image_size": self.views.image_size, "eval_crop": self.views.eval_crop}
        pixels = normalisation_of_pixels(
            self.exported, self.train, views["image_size"], self.views.max_broken
        )
        options = {"max_broken": max_broken, "cache": cache, "pixels": pixels}
        return cached_features(self.exported, source, **views, **options)


def open_session(settings: RetrievalSettings | FeatureMapSettings) -> Session:
    """Open backbone and images.

    Args:
      settings: names of both; an empty `dataset` stands for the one of the run.

    Returns:
      The session; nothing has been computed.

    Raises:
      ValueError: for a setting, backbone or data set that cannot be used.
    """
    if settings.model.endswith(ENDINGS):
        return _open_file(settings)
    exported = None if settings.model == PIXELS else open_exported(settings.model)
    views = EvaluationSettings(**{name: getattr(settings, name) for name in _OWN})
    dataset, eval_dataset, split_folders = images_of(settings)
    images = {"eval_dataset": eval_dataset, "split_folders": split_folders}
    views = resolve(dataclasses.replace(views, dataset=dataset, **images), exported)
    cache = pathlib.Path(settings.cache_dir or pathlib.Path(views.output_dir) / "features")
    pixels = exported.pixels if exported else None
    train, held_out = open_dataset(dataset, eval_dataset, views.max_broken, split_folders, pixels)
    return Session(exported, train, held_out, views, cache)


def _open_file(settings: RetrievalSettings | FeatureMapSettings) -> Session:
    """Open a feature file and its images; raises as `open_session`."""
    for name in ("image_size", "eval_crop"):
        if getattr(settings, name) is not None:
            raise ValueError(
                f"expected no --{name} with features that are computed already, got "
                f"{getattr(settings, name)}: leave it out"
            )
    file = open_features(settings.model)
    names = [settings.dataset, settings.eval_dataset, settings.split_folders]
    if not settings.dataset:
        names = [file.card[name] for name in ("dataset", "eval_dataset", "split_folders")]
        names[1] = settings.eval_dataset or names[1]
    pixels = PixelFormat(*file.card.get("pixels", RGB))
    train, held_out = open_dataset(*names[:2], settings.max_broken, names[2], pixels)
    sources = {"train": train} | ({"held_out": held_out} if held_out else {})
    found = {name: source.fingerprint() for name, source in sources.items()}
    if found != file.card["key"]["images"]:
        raise ValueError(
            f"expected the images whose features are in {settings.model!r}, got others in "
            f"{names[0]!r}: name those with --dataset, or run pic_tf.embed again"
        )
    views = EvaluationSettings(max_broken=settings.max_broken)
    return Session(None, train, held_out, views, pathlib.Path(), file)
