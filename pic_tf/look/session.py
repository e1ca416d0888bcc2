"""Open a backbone and images, and compute the features that pictures are drawn from."""

import dataclasses
import pathlib
import tempfile

import numpy as np

from pic_tf.data.sources.named import open_dataset
from pic_tf.data.sources.source import Source
from pic_tf.evals.features import cached_features
from pic_tf.evals.run_behind import run_behind
from pic_tf.evals.settings import PIXELS, EvaluationSettings, resolve
from pic_tf.evals.subset import Subset
from pic_tf.look.settings import FeatureMapSettings, RetrievalSettings
from pic_tf.serving.exported import Exported, open_exported

# As of an evaluation.
_OWN = "model eval_dataset image_size eval_crop max_broken split_folders seed".split()


@dataclasses.dataclass(frozen=True, eq=False)
class Session:
    """A backbone and the images to look at.

    Attributes:
      exported: the backbone; None for raw pixels.
      train: training images.
      held_out: held-out images, or None.
      views: settings of the views.
      cache: folder of cached features.
    """

    exported: Exported | None
    train: Source
    held_out: Source | None
    views: EvaluationSettings
    cache: pathlib.Path

    @property
    def name(self) -> str:
        """The name of the features in titles."""
        return self.exported.name if self.exported else "raw pixels"

    def features(self) -> tuple[np.ndarray, np.ndarray]:
        """Compute features of the training images, as `cached_features` does."""
        return self._cached(self.train, self.views.max_broken, self.cache)

    def features_of(
        self, source: Source, instance_ids: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Compute features of a few images; broken ones are left out, however many.

        Args:
          source: the images.
          instance_ids: int64 [n].

        Returns:
          (int64 [m] ids of those that could be decoded, float32 [m, C] their features).

        Raises:
          ValueError: for an image that cannot be read, or where none can be decoded.
        """
        some = Subset(source, instance_ids)
        with tempfile.TemporaryDirectory() as folder:  # other ids the next time
            features, decoded = self._cached(some, 1.0, pathlib.Path(folder))
            if not decoded.any():
                raise ValueError(
                    f"expected images of {source.name} that can be decoded, got none: choose others"
                )
            return instance_ids[decoded], features[decoded]

    def _cached(
        self, source: Source, max_broken: float, cache: pathlib.Path
    ) -> tuple[np.ndarray, np.ndarray]:
        views = {"image_size": self.views.image_size, "eval_crop": self.views.eval_crop}
        return cached_features(self.exported, source, max_broken=max_broken, cache=cache, **views)


def open_session(settings: RetrievalSettings | FeatureMapSettings) -> Session:
    """Open backbone and images.

    Args:
      settings: names of both; an empty `dataset` stands for the one of the run.

    Returns:
      The session; nothing has been computed.

    Raises:
      ValueError: for a setting, backbone or data set that cannot be used.
    """
    exported = None if settings.model == PIXELS else open_exported(settings.model)
    dataset = settings.dataset
    views = EvaluationSettings(**{name: getattr(settings, name) for name in _OWN})
    if not dataset:
        of_run = run_behind(settings.model)
        dataset = of_run.dataset
        eval_dataset, split_folders = of_run.eval_dataset, of_run.split_folders
        views = dataclasses.replace(
            views, eval_dataset=views.eval_dataset or eval_dataset, split_folders=split_folders
        )
    views = resolve(dataclasses.replace(views, dataset=dataset), exported)
    cache = pathlib.Path(settings.cache_dir or pathlib.Path(views.output_dir) / "features")
    train, held_out = open_dataset(
        dataset, views.eval_dataset, views.max_broken, views.split_folders
    )
    return Session(exported, train, held_out, views, cache)
