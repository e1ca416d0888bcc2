"""Report the costs of rows on disk: a table, verdicts on targets, a plot."""

if __name__ == "__main__":
    raise SystemExit("error: expected python tools/benchmark, got a part of it: see its --help")

import dataclasses
import pathlib

import matplotlib
import numpy as np

from pic_tf.files.replaced import replaced
from pic_tf.settings.plan import as_text

from .step import Sizes

FLAT = 0.10  # target: spread of the time of a step over N
RESIDENT_FLAT = 0.05  # target: spread of the resident memory over N
OVERHEAD = 1.10  # target: time of a step with rows on disk / on the device


@dataclasses.dataclass(frozen=True)
class Costs:
    """Costs of a variant.

    Attributes:
      name: name in the table.
      count: N.
      window: W; a window of other length moves other numbers of bytes a step.
      step: milliseconds of each counted step.
      turn: milliseconds of waiting in each turn of the window.
      turn_cpu: CPU milliseconds of a turn, of all threads, until all is written and read.
      moved: bytes written in a step, and as many read.
      resident: bytes of this process.
    """

    name: str
    count: int
    window: int
    step: list[float]
    turn: list[float]
    turn_cpu: list[float]
    moved: float
    resident: int

    def steps_per_turn(self, batch_size: int) -> int:
        return self.window // batch_size

    def mean_step(self, batch_size: int) -> float:
        """Milliseconds a step with its share of a turn."""
        turn = np.median(self.turn or [0.0])
        return float(np.median(self.step) + turn / self.steps_per_turn(batch_size))


def print_table(found: dict[tuple, Costs], sizes: Sizes, backbone_ms: float) -> None:
    b = sizes.batch_size
    columns = f"{'W':>9}{'step ms':>9}{'quartiles':>18}{'turn ms':>9}"
    columns += f"{'CPU':>7}{'a step':>9}{'moved':>10}{'MiB':>8}"
    print(f"\n{'variant':26}{columns}")
    for of in found.values():
        low, middle, high = np.percentile(of.step, [25, 50, 75])
        turn, cpu = (np.median(x) if x else 0.0 for x in (of.turn, of.turn_cpu))
        print(
            f"{of.name:26}{of.window:9,}{middle:9.1f}{f'{low:.1f} .. {high:.1f}':>18}{turn:9.1f}"
            f"{cpu:7.0f}{of.mean_step(b):9.1f}{as_text(of.moved):>10}{of.resident / 2**20:8,.0f}"
        )
    print("turn: wait of training as the window moves on, once in W / B steps; CPU: of all threads")
    print("moved: written a step, and as much read; MiB: resident memory of the whole process")
    disk = [of for (kind, _), of in found.items() if kind == "disk"]
    widest = [of for of in disk if of.window == max(x.window for x in disk)]
    steps, resident = [of.mean_step(b) for of in disk], [of.resident for of in widest]
    for name, values, target in (
        ("step on disk, (max - min) / min over N", steps, FLAT),
        ("resident memory, the same over N of one window", resident, RESIDENT_FLAT),
    ):
        spread = max(values) / min(values) - 1
        met = "met" if spread <= target else "NOT met"
        print(f"{name}: {spread:.1%}, target <= {target:.0%}: {met}")
    for (kind, count), of in found.items():
        beside = found.get(("disk", count))
        if kind == "device" and beside:
            alone = beside.mean_step(b) / of.mean_step(b)
            hidden = (backbone_ms + beside.mean_step(b)) / (backbone_ms + of.mean_step(b))
            print(
                f"disk / device, N = {count:,}: {alone:.3f}, with a backbone of {backbone_ms:g} ms "
                f"{hidden:.3f}, target <= {OVERHEAD}: {'met' if hidden <= OVERHEAD else 'NOT met'}"
            )


def plot(found: dict[tuple, Costs], sizes: Sizes, path: str) -> None:
    matplotlib.use("Agg")  # no screen needed
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
    for kind, colour, marker in (("device", "tab:orange", "s"), ("disk", "tab:blue", "o")):
        of_kind = sorted((of for (k, _), of in found.items() if k == kind), key=lambda of: of.count)
        counts = [of.count for of in of_kind]
        for axis, values in (
            (axes[0], [of.mean_step(sizes.batch_size) for of in of_kind]),
            (axes[1], [of.resident / 2**20 for of in of_kind]),
        ):
            axis.loglog(counts, values, marker=marker, color=colour, label=f"rows: {kind}")
    for axis, title, unit in zip(
        axes, ("time of a step without backbone", "resident memory"), ("ms", "MiB")
    ):
        axis.set_title(title, fontsize=11)
        axis.set_xlabel("images N")
        axis.set_ylabel(unit)
        axis.grid(True, which="both", alpha=0.3)
        axis.legend()
    axes[0].set_ylim(10, 10_000)
    axes[1].set_ylim(100, 10_000)
    with replaced(pathlib.Path(path), "wb") as file:
        figure.savefig(file, format="png", dpi=130)
    plt.close(figure)
