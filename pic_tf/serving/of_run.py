"""Export the backbone of a run."""

import dataclasses
import os
import pathlib
import sys

import tf_keras as keras

from pic_tf.callbacks.metrics_files import last_figures
from pic_tf.data.sources.named import short_name
from pic_tf.runs import checkpoint_files
from pic_tf.runs.run_folder import CHECKPOINTS, FLAGS_FILE, METRICS_FILE
from pic_tf.runs.state import restore_backbone
from pic_tf.serving.saved_model import export_backbone
from pic_tf.settings import check, flag_files, quantities
from pic_tf.settings.config import Config
from pic_tf.settings.networks import plain_backbone

# Figures of the model card: equal runs have them in common.
FIGURES = ("epoch", "loss", "accuracy", "knn", "probe")


def export_run(run_dir: str, path: str, untrained: bool = False) -> int:
    """Export the backbone of a run's newest checkpoint.

    Args:
      run_dir: output folder of the run.
      path: folder to write the SavedModel to.
      untrained: export it as it was before the first step instead.

    Returns:
      The step of the checkpoint; 0 for the untrained one.

    Raises:
      ValueError: where there is no run or no checkpoint.
    """
    checkpoints = pathlib.Path(run_dir) / CHECKPOINTS
    found, damaged = checkpoint_files.newest(checkpoints)
    if found is None:
        got = f"{len(damaged)} damaged ones" if damaged else "none"
        raise ValueError(
            f"expected a checkpoint in {run_dir!r}, got {got}: "
            "name the output folder of a run that has reached --checkpoint_every"
        )
    config = flag_files.from_flagfile(str(found / FLAGS_FILE))
    check.check(config)
    keras.utils.set_random_seed(config.seed)  # an untrained one is what training began with
    backbone, step = plain_backbone(config), 0
    if not untrained:
        restore_backbone(found, backbone)
        step = checkpoint_files.step_of(found)
    export_trained(config, backbone, path, step, found / METRICS_FILE)
    return step


def export_trained(
    config: Config, backbone: keras.Model, path: str | os.PathLike, step: int, metrics: pathlib.Path
) -> None:
    """Export a backbone with a card of its training and of the last figures.

    Args:
      config: configuration of the run.
      backbone: the network, on one device and in float32.
      path: folder to write the SavedModel to.
      step: updates that it has seen; 0 for none.
      metrics: the run's metrics.csv.

    Raises:
      ValueError: where something else than an export is at `path`.
      OSError: where it cannot be written.
    """
    # Tracing takes a while, 7 CPU s for a ResNet-50.
    print(f"writing the backbone to {path}", file=sys.stderr)
    fields = [field for field in dataclasses.fields(config) if field.metadata["trajectory"]]
    flags = {field.name: getattr(config, field.name) for field in fields}
    training = {
        "dataset": short_name(config.dataset),
        "images": config.num_instances,
        "step": step,
        "total_steps": quantities.total_steps(config),
        "figures": last_figures(metrics, FIGURES) if step else {},
        "flags": flags,
    }
    size = max(view.size for view in config.views())
    export_backbone(
        backbone,
        path,
        backbone_input="normalised",
        trained_size=size,
        eval_crop=config.eval_crop,
        training=training,
        normalisation=config.normalisation,
        bit_depth=config.bit_depth,
    )
