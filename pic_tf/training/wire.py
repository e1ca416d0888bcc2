"""Put the callbacks of a run together, in the order in which they act."""

import pathlib
from collections.abc import Callable, Sequence

import tf_keras as keras

from pic_tf.callbacks.broken_images import BrokenImageReport
from pic_tf.callbacks.metrics_files import EventFiles, MetricsFile, RowHealth
from pic_tf.callbacks.non_finite import NonFiniteReport
from pic_tf.callbacks.paging import PagingCallback
from pic_tf.callbacks.progress import ProgressBar
from pic_tf.callbacks.stop_and_save import CheckpointCallback
from pic_tf.data.sources.source import Source
from pic_tf.replicas.collectives import values_of
from pic_tf.replicas.devices import is_chief, several_workers
from pic_tf.runs.run_folder import METRICS_FILE, NON_FINITE_REPORTS, TENSORBOARD
from pic_tf.runs.variables import metric_variables
from pic_tf.settings.config import Config
from pic_tf.training.build import Parts


def wire(
    config: Config,
    train: Source,
    parts: Parts,
    start: int,
    texts: Callable[[], dict[str, str]],
    own: Sequence[keras.callbacks.Callback] = (),
) -> tuple[list[keras.callbacks.Callback], CheckpointCallback]:
    """Make the callbacks of a run.

    Args:
      config: resolved configuration.
      train: training images.
      parts: the parts of the run, at its first step.
      start: this step.
      texts: gives the text files that stand beside a checkpoint.
      own: callbacks of the user.

    Returns:
      (all callbacks, the progress bar first; the last of them, which saves the state).
    """
    strategy, output = parts.model.distribute_strategy, pathlib.Path(config.output_dir)
    chief, single_worker = is_chief(strategy), not several_workers(strategy)
    non_finite = NonFiniteReport(
        config.max_skipped_steps if config.on_nan == "skip" else 0,
        output / NON_FINITE_REPORTS,
        train,
        parts.inputs.batches,
        parts.learning_rate,
        chief,
    )
    state = CheckpointCallback(
        parts.checkpoints,
        config.checkpoint_every,
        texts,
        values_of(metric_variables(parts.model), strategy) if start % parts.steps_per_epoch else [],
        non_finite.check,
        single_worker,
    )
    files = [MetricsFile(output / METRICS_FILE)] if chief else []
    if config.tensorboard:
        files += [RowHealth()] if config.has_rows else []
        files += [EventFiles(output / TENSORBOARD)] if chief else []
    callbacks = [
        ProgressBar(parts.total_steps, start, config.batch_size, chief),
        parts.pager and PagingCallback(parts.pager, start),
        BrokenImageReport(parts.inputs.broken, config.max_broken, single_worker),
        non_finite,
        parts.monitor,
        *files,
        *own,
        state,
    ]
    return [callback for callback in callbacks if callback], state
