"""Report the fate of rows: a table of all sweeps, a plot, one sentence."""

if __name__ == "__main__":
    raise SystemExit("error: expected python tools/long_run, got a part of it: see its --help")

import pathlib

import matplotlib
import numpy as np

from pic_tf.files.replaced import replaced

from .toy import MEASUREMENTS, Measurement, Problem

COLORS = ["tab:blue", "tab:red", "black", "tab:green", "tab:purple"]


def in_sweep(measurements: list[Measurement], sweep: int) -> Measurement:
    """Sum up a sweep (0, 1, ...): means, but the sum of `floored` and the norms of all."""
    part = measurements[sweep * MEASUREMENTS : (sweep + 1) * MEASUREMENTS]
    return Measurement(
        part[-1].step,
        norms=np.concatenate([m.norms for m in part]),
        own_row=float(np.mean([m.own_row for m in part])),
        own_image=float(np.mean([m.own_image for m in part])),
        loss=float(np.mean([m.loss for m in part])),
        floored=sum(m.floored for m in part),
        broken=max(m.broken for m in part),
    )


def print_table(arms: dict[str, list[Measurement]], sweeps: int) -> None:
    """Print every arm after every sweep."""
    print(
        f"{'sweep':>5} {'arm':16}{'median norm':>12}{'99th perc.':>11}{'own row':>9}"
        f"{'own image':>11}{'loss':>7}{'floored':>9}{'not finite':>12}"
    )
    for sweep in range(sweeps):
        for i, (name, measurements) in enumerate(arms.items()):
            m = in_sweep(measurements, sweep)
            median, high = np.percentile(m.norms, [50, 99])
            print(
                f"{'' if i else sweep + 1:>5} {name:16}{median:12.3g}{high:11.3g}{m.own_row:9.3f}"
                f"{m.own_image:11.3f}{m.loss:7.3f}{m.floored:9,}{m.broken:12,}"
            )


def conclusion(arms: dict[str, list[Measurement]], problem: Problem) -> str:
    """Describe the last sweep in one line."""
    parts = []
    for name, measurements in arms.items():
        m = in_sweep(measurements, problem.sweeps - 1)
        parts.append(
            f"with {name} {m.own_row:.1%} find their own row and {m.own_image:.1%} their own "
            f"image, 99 % of norms are below {np.percentile(m.norms, 99):.3g}"
        )
    broken = max(m.broken for measurements in arms.values() for m in measurements)
    return (
        f"conclusion: of views among {problem.config.num_instances:,}, in sweep {problem.sweeps}, "
        f"{'; '.join(parts)}; {'no' if not broken else f'{broken:,}'} rows are NaN or infinite"
    )


def plot(arms: dict[str, list[Measurement]], problem: Problem, picture: pathlib.Path) -> None:
    """Plot norms of the rows in the ring, and accuracies, against the step.

    Args:
      arms: name -> measurements.
      problem: the problem of all arms.
      picture: PNG file to write.
    """
    matplotlib.use("Agg")  # no screen needed
    import matplotlib.pyplot as plt

    figure, (norms, accuracy) = plt.subplots(1, 2, figsize=(10, 3.8), layout="constrained")
    for i, (name, measurements) in enumerate(arms.items()):
        # The third arm and those after it are drawn thinly over what they may coincide with.
        style = {"color": COLORS[i % len(COLORS)], "linewidth": 1.5 if i < 2 else 0.8}
        steps = [m.step for m in measurements]
        percentiles = [np.percentile(m.norms, [1, 50, 99]) for m in measurements]
        low, median, high = np.transpose(percentiles)
        norms.plot(steps, median, label=name, **style)
        norms.fill_between(steps, low, high, color=style["color"], alpha=0.2, linewidth=0)
        own_row, own_image = zip(*((m.own_row, m.own_image) for m in measurements))
        accuracy.plot(steps, own_row, label=f"{name}: own row", **style)
        accuracy.plot(steps, own_image, linestyle=":", label=f"{name}: own image", **style)
    norms.set_yscale("log")
    norms.set_title("norms of rows in use: median, 1st to 99th percentile")
    accuracy.set_ylim(0, 1)
    accuracy.set_title(f"views that find their own among {problem.config.num_instances:,}")
    for axis in (norms, accuracy):
        axis.set_xlabel(f"step (a sweep takes {problem.steps_per_sweep:,})")
        axis.grid(alpha=0.3)
    norms.margins(y=0.15)  # room for the legend below the curves
    norms.legend(fontsize="small", loc="lower center", ncols=3)
    accuracy.legend(fontsize="small", loc="center right")
    with replaced(picture, "wb") as file:
        figure.savefig(file, format="png", dpi=110)
    plt.close(figure)
