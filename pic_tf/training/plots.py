"""Draw loss, features and learning rate against the step: training.png."""

import pathlib

import matplotlib

from pic_tf.callbacks.metrics_files import read_metrics
from pic_tf.files.replaced import replaced

# Title of a panel: the columns of metrics.csv in it, each with its name in the legend.
_PANELS = {
    "loss": {"loss": ""},
    "kNN accuracy, held-out images": {"knn": "kNN", "probe": "linear probe"},
    "RankMe, effective rank of the features": {"rankme": "RankMe"},
    "mean cosine of features": {
        "cosine_of_views": "two views of an image",
        "cosine_of_images": "different images",
    },
    "own instance first": {"accuracy": ""},
    "learning rate": {"learning_rate": ""},
}
_A_ROW = 3  # panels
_COLOURS = ("tab:blue", "tab:purple")
_REFERENCE_COLOURS = ("tab:orange", "tab:green")


def plot_training(
    metrics: pathlib.Path, picture: pathlib.Path, references: dict[str, dict[str, float]]
) -> None:
    """Draw the numbers of metrics.csv; a panel without any is left out, and a picture of none.

    Args:
      metrics: the CSV file; a full disk may have kept it from being written.
      picture: PNG file to write.
      references: column of metrics.csv -> name -> value drawn as a dashed line.
    """
    matplotlib.use("Agg")  # no screen needed
    import matplotlib.pyplot as plt

    rows = read_metrics(metrics) if metrics.exists() else []

    def series(name: str) -> tuple[list[int], list[float]]:
        known = [row for row in rows if row.get(name)]
        return [int(row["step"]) for row in known], [float(row[name]) for row in known]

    panels = {
        title: columns
        for title, columns in _PANELS.items()
        if any(series(name)[0] for name in columns)
    }
    if not panels:
        return
    across = min(_A_ROW, len(panels))
    down = -(-len(panels) // across)
    figure, axes = plt.subplots(
        down, across, figsize=(4.2 * across, 3.4 * down), layout="constrained", squeeze=False
    )
    for axis in axes.flat[len(panels) :]:
        axis.set_axis_off()
    for axis, (title, columns) in zip(axes.flat, panels.items()):
        for (name, label), colour in zip(columns.items(), _COLOURS):
            steps, values = series(name)
            if steps:
                style = {"marker": "o", "markersize": 4, "label": label} if label else {}
                axis.plot(steps, values, color=colour, **style)
            known = references.get(name, {}).items()
            for (reference, value), dashed in zip(known, _REFERENCE_COLOURS):
                axis.axhline(value, linestyle="--", color=dashed, label=f"{reference} {value:.3g}")
        axis.set_title(title)
        axis.set_xlabel("step")
        axis.grid(alpha=0.3)
        if axis.get_legend_handles_labels()[0]:
            axis.legend(loc="best", fontsize="small")
    with replaced(picture, "wb") as file:
        figure.savefig(file, format="png", dpi=120)
    plt.close(figure)
