"""Report a study: a Markdown table and a picture, of all runs that have been taken."""

import pathlib
from typing import Any

import matplotlib
import numpy as np

from pic_tf.files.replaced import replaced
from pic_tf.studies.definition import Study
from pic_tf.studies.run import Place, figures_of, missing_evaluations

TABLE, PICTURE = "results.md", "results.png"


def mean_and_deviation(values: list[float]) -> str:
    """Format a mean with its standard deviation (n - 1), as "53.2 ± 0.8"."""
    if not values:
        return ""
    mean = f"{np.mean(values):.1f}"
    return f"{mean} ± {np.std(values, ddof=1):.1f}" if len(values) > 1 else mean


def difference(values: dict[int, float], reference: dict[int, float]) -> str:
    """Format the mean difference of runs of equal seeds with its standard error, as "+1.2 ± 0.3".

    Args:
      values: seed -> figure.
      reference: seed -> figure to take off.
    """
    pairs = [values[seed] - reference[seed] for seed in sorted(values.keys() & reference.keys())]
    if not pairs:
        return ""
    mean = f"{np.mean(pairs):+.1f}"
    error = np.std(pairs, ddof=1) / np.sqrt(len(pairs)) if len(pairs) > 1 else None
    return mean if error is None else f"{mean} ± {error:.1f}"


def write(study: Study, place: Place) -> str:
    """Write table and picture of the runs taken so far.

    Args:
      study: the study.
      place: its folders.

    Returns:
      The table, to print.

    Raises:
      OSError: where they cannot be written.
    """
    taken = {
        variant.name: {
            seed: figures
            for seed in study.seeds
            if (figures := figures_of(place.folder(variant, seed)))
        }
        for variant in study.variants
    }
    text = _table(study, taken)
    with replaced(place.output / TABLE, encoding="utf-8") as file:
        file.write(text)
    _draw(study, taken, place.output / PICTURE)
    return text


def _table(study: Study, taken: dict[str, dict[int, dict[str, Any]]]) -> str:
    """Format accuracies in percent, mean and standard deviation over seeds."""
    names = list(study.evaluations)
    head = ["variant", *(f"{name}, %" for name in names)]
    if study.reference:
        head += [f"{name} against the reference" for name in names]
    paper = any(variant.paper is not None for variant in study.variants)
    head += ["n", "views", "CPU hours a run"] + (["paper, %"] if paper else [])
    lines = [f"# {study.title}", "", _row(head), _row(["---"] * len(head))]
    accuracies = {
        variant: {name: _accuracies(study, runs, name) for name in names}
        for variant, runs in taken.items()
    }
    for variant in study.variants:
        runs, accuracy = taken[variant.name], accuracies[variant.name]
        cells = [variant.name, *(mean_and_deviation([*accuracy[name].values()]) for name in names)]
        if study.reference:
            apart = variant.name == study.reference
            reference = accuracies[study.reference]
            cells += ["" if apart else difference(accuracy[n], reference[n]) for n in names]
        views = " to ".join(f"{v:,}" for v in sorted({run["views"] for run in runs.values()}))
        hours = [run["cpu_seconds"] / 3600 for run in runs.values()]
        n = max(map(len, accuracy.values()))  # seeds in the means
        cells += [str(n), views, f"{np.mean(hours):.2f}" if hours else ""]
        cells += [f"{variant.paper:g}" if variant.paper is not None else ""] if paper else []
        lines.append(_row(cells))
    runs = [run for of_variant in taken.values() for run in of_variant.values()]
    lines += ["", *_made_by(runs)]
    return "\n".join(lines) + "\n"


def _accuracies(study: Study, runs: dict[int, dict[str, Any]], name: str) -> dict[int, float]:
    """Give the accuracy of each seed that was evaluated with the flags of the study."""
    return {
        seed: run["accuracy"][name]
        for seed, run in runs.items()
        if name not in missing_evaluations(study, run)
    }


def _made_by(runs: list[dict[str, Any]]) -> list[str]:
    """Say what the figures were measured on."""
    if not runs:
        return ["No run has been taken."]
    names = ("hardware", "pic_tf", "tensorflow", "date")
    facts = {name: sorted({run[name] for run in runs}) for name in names}
    first, last = facts["date"][0], facts["date"][-1]
    return [
        "Mean ± standard deviation over seeds; differences: mean ± standard error over equal "
        f"seeds. {'; '.join(facts['hardware'])}; pic_tf {', '.join(facts['pic_tf'])}; TensorFlow "
        f"{', '.join(facts['tensorflow'])}; {first if first == last else f'{first} to {last}'}."
    ]


def _row(cells: list[str]) -> str:
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def _draw(study: Study, taken: dict[str, dict[int, dict[str, Any]]], path: pathlib.Path) -> None:
    """Draw each run as a point, and mean and standard deviation of each variant."""
    matplotlib.use("Agg")  # no screen needed
    import matplotlib.pyplot as plt

    names, variants = list(study.evaluations), study.variants
    figure, axes = plt.subplots(
        1,
        len(names),
        figsize=(2.5 + 3.2 * len(names), 1.4 + 0.35 * len(variants)),
        sharey=True,
        squeeze=False,
        layout="constrained",
    )
    for axis, name in zip(axes[0], names):
        for y, variant in enumerate(variants):
            values = [*_accuracies(study, taken[variant.name], name).values()]
            if not values:
                continue
            axis.plot(values, [y] * len(values), "o", color="tab:blue", alpha=0.4, markersize=5)
            spread = np.std(values, ddof=1) if len(values) > 1 else None
            axis.errorbar(np.mean(values), y, xerr=spread, fmt="|", color="black", markersize=12)
        axis.set_title(f"{name}, %", fontsize=10)
        axis.grid(alpha=0.3)
    axes[0][0].set_yticks(range(len(variants)), [variant.name for variant in variants])
    axes[0][0].invert_yaxis()
    figure.suptitle(study.title, fontsize=11)
    with replaced(path, "wb") as file:
        figure.savefig(file, format="png", dpi=120)
    plt.close(figure)
