"""Draw loss, kNN accuracy and learning rate against the step: training.png."""

import pathlib

import matplotlib

from pic_tf.callbacks.metrics_files import read_metrics
from pic_tf.files.replaced import replaced


def plot_training(
    metrics: pathlib.Path, picture: pathlib.Path, references: dict[str, float]
) -> None:
    """Draw the numbers of metrics.csv.

    Args:
      metrics: the CSV file.
      picture: PNG file to write.
      references: name -> kNN accuracy drawn as a dashed line.
    """
    matplotlib.use("Agg")  # no screen needed
    import matplotlib.pyplot as plt

    rows = read_metrics(metrics)

    def series(name: str) -> tuple[list[int], list[float]]:
        known = [row for row in rows if row[name]]
        return [int(row["step"]) for row in known], [float(row[name]) for row in known]

    knn = series("knn")
    panels = [
        ("loss", "loss"),
        ("accuracy", "own instance first"),
        ("learning_rate", "learning rate"),
    ]
    if knn[0]:
        panels.insert(1, ("knn", "kNN accuracy, held-out images"))
    figure, axes = plt.subplots(
        1, len(panels), figsize=(4.2 * len(panels), 3.4), layout="constrained"
    )
    for axis, (name, title) in zip(axes, panels):
        axis.plot(
            *series(name), marker="o" if name == "knn" else None, markersize=4, color="tab:blue"
        )
        if name == "knn" and series("probe")[0]:
            axis.plot(
                *series("probe"), marker="s", markersize=4, color="tab:purple", label="linear probe"
            )
        axis.set_title(title)
        axis.set_xlabel("step")
        axis.grid(alpha=0.3)
        if name == "knn":
            for (label, value), color in zip(references.items(), ("tab:orange", "tab:green")):
                axis.axhline(value, linestyle="--", color=color, label=f"{label} {value:.3f}")
            axis.legend(loc="best", fontsize="small")
    with replaced(picture, "wb") as file:
        figure.savefig(file, format="png", dpi=120)
    plt.close(figure)
