"""Leave what a finished run promises: curves, backbone, and lines about what was learned."""

import pathlib

from pic_tf.callbacks.metrics_files import last_figures
from pic_tf.evals.feature_health import FIGURES, closing_lines
from pic_tf.evals.label_curve import Curves, draw_curves, table, write_curves
from pic_tf.runs.run_folder import EXPORT, LABEL_CURVE, LABEL_PICTURE, METRICS_FILE, PICTURE
from pic_tf.serving.of_run import export_trained
from pic_tf.settings.config import Config
from pic_tf.training.build import Parts
from pic_tf.training.plots import plot_training


def finish(config: Config, parts: Parts, output: pathlib.Path) -> tuple[str, ...]:
    """Draw the curves, export the backbone, and compare it with labels where that is asked for.

    Args:
      config: resolved configuration.
      parts: the parts of the run, its trained weights copied to the plain backbone.
      output: its output folder.

    Returns:
      Lines to print.

    Raises:
      OSError: where the export cannot be written.
    """
    metrics, references = output / METRICS_FILE, parts.monitor.references if parts.monitor else {}
    plot_training(metrics, output / PICTURE, references)
    export_trained(config, parts.plain_backbone, output / EXPORT, parts.total_steps, metrics)
    figures = last_figures(metrics, FIGURES)
    lines = closing_lines(figures, parts.plain_backbone.output_shape[-1])
    curves = parts.monitor.label_curves() if parts.monitor else {}
    return (*lines, *_report(curves, output)) if curves else lines


def _report(curves: Curves, output: pathlib.Path) -> list[str]:
    write_curves(curves, output / LABEL_CURVE)
    draw_curves(curves, "logistic regression on fixed features", output / LABEL_PICTURE)
    return table(curves)
