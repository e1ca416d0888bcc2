"""Do in one Python call what one command does: pretrain, evaluate, embed."""

import dataclasses
import os
import pathlib
from collections.abc import Sequence
from typing import Any

import tf_keras as keras

from pic_tf.evals import protocols
from pic_tf.evals.report import Report
from pic_tf.evals.settings import EvaluationSettings
from pic_tf.evals.transfer.report import TransferReport
from pic_tf.feature_files import compute
from pic_tf.feature_files.settings import EmbedSettings
from pic_tf.feature_files.table import FeatureFile, open_features
from pic_tf.runs.run_folder import PICTURE
from pic_tf.settings.config import Config
from pic_tf.settings.keywords import described_by, from_keywords
from pic_tf.whole_run import start


@dataclasses.dataclass(frozen=True)
class Run:
    """End of a run; a notebook shows its curves.

    Attributes:
      output_dir: folder of the run.
      step: updates applied.
      finished: False where a signal or a callback ended it early; the same call goes on.
      backbone: folder of the SavedModel; None where the run did not finish.
    """

    output_dir: pathlib.Path
    step: int
    finished: bool
    backbone: pathlib.Path | None

    def _repr_png_(self) -> bytes | None:
        """The curves, for notebooks."""
        picture = self.output_dir / PICTURE
        return picture.read_bytes() if self.finished and picture.exists() else None


@described_by(Config)
def pretrain(
    *,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    flagfile: str | os.PathLike = "",
    allow_changed_flags: bool = False,
    **settings: Any,
) -> Run:
    """Pretrain a backbone, as `python -m pic_tf.train` does.

    The same call again goes on with an interrupted run. `print` and a bar tell what happens.

    Args:
      callbacks: Keras callbacks of yours. The logs of an epoch are numbers, and two arrays,
        histograms `row_norms` and `row_gaps`. A run that was stopped within an epoch, or whose
        backbone is frozen at first, calls `on_train_begin` and `on_train_end` more than once. One
        that sets `model.stop_training`, as EarlyStopping, ends the call with the state saved.
      flagfile: flag file or recipe for settings that no keyword names.
      allow_changed_flags: go on with the run in `output_dir` although its settings were others.
      **settings: those below.

    Returns:
      End of the run.

    Raises:
      TypeError: for a keyword that is no setting, or a value of another type.
      ValueError: for a setting, callbacks or images that cannot be used.
      FloatingPointError: for a loss or gradient that is not finite.
      OSError: where the output folder cannot be written.
    """
    _check_callbacks(callbacks)
    config = from_keywords(Config, flagfile, settings)
    result = start(config, allow_changed_flags=allow_changed_flags, callbacks=callbacks)
    return Run(pathlib.Path(config.output_dir), result.step, result.finished, result.export)


def _check_callbacks(callbacks: Sequence[keras.callbacks.Callback]) -> None:
    """Refuse callbacks that set a model back: checkpoints, metrics and rows on disk would not."""
    for callback in callbacks:
        back = isinstance(callback, keras.callbacks.BackupAndRestore)
        if back or getattr(callback, "restore_best_weights", False):
            name = type(callback).__name__ + "(restore_best_weights=True)" * (not back)
            raise ValueError(
                f"expected callbacks that leave the state of the run alone, got {name}: leave it "
                "out; the run saves itself, and the same call goes on"
            )


@described_by(EvaluationSettings)
def evaluate(*, flagfile: str | os.PathLike = "", **settings: Any) -> Report | TransferReport:
    """Judge a backbone, as `python -m pic_tf.evaluate` does.

    Args:
      flagfile: flag file or recipe for settings that no keyword names.
      **settings: those below.

    Returns:
      Accuracies (`top1`, `top5`, `of_class`) and confusions; `values` of detection and
      segmentation. Files are in the output folder.

    Raises:
      TypeError: for a keyword that is no setting, or a value of another type.
      ValueError: for a setting, a backbone or images that cannot be used.
      FloatingPointError: where a loss is not finite.
      OSError: where the output folder cannot be written.
    """
    report, _ = protocols.run(from_keywords(EvaluationSettings, flagfile, settings))
    print(report.table())
    return report


@described_by(EmbedSettings)
def embed(*, flagfile: str | os.PathLike = "", **settings: Any) -> FeatureFile:
    """Write the features of all images into a file, as `python -m pic_tf.embed` does.

    Args:
      flagfile: flag file for settings that no keyword names.
      **settings: those below.

    Returns:
      The file, open: `features` is float32 [N, C], mapped from the disk, NaN for broken images.

    Raises:
      TypeError: for a keyword that is no setting, or a value of another type.
      ValueError: for a setting, a backbone or images that cannot be used.
      OSError: where the file cannot be written.
    """
    embedded = from_keywords(EmbedSettings, flagfile, settings)
    print(compute.embed(embedded))
    return open_features(embedded.output)
