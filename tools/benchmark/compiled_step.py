"""Time the compiled training step on an accelerator that has JAX, be there no TensorFlow.

    python tools/benchmark/compiled_step.py export FOLDER        # where pic_tf is, CPUs are enough
    python tools/benchmark/compiled_step.py run FOLDER           # where JAX is; copy this file too

`export` writes the steps as StableHLO, the compiler's input, which is the same from TensorFlow and
from JAX. `run` compiles them, feeds the variables back from step to step, compares tiny ones with
the results of TensorFlow, and times the others: medians of 30 steps, of each alone (`step ms`, with
the wait for its end) and of all without waiting in between (`queue ms`, as in training). Memory is
that of the program: its inputs, its results beside them, and what it needs meanwhile. Figures go to
figures.json and figures.md.

Exit codes: 0 done; 1 wrong input, or results that differ from those of TensorFlow.
"""

import argparse
import json
import os
import pathlib
import re
import sys
import time

import numpy as np

if not __package__:  # started as a file
    sys.path[0] = str(pathlib.Path(__file__).parents[1])
    __package__ = "benchmark"

from .compiled_program import Step, batches, extended, initial_state

STEPS, WARM_UP = 30, 5
TOLERANCE = 1e-3  # float32 of another order of summation, grown by 20 steps of training
GOALS = [  # name, setting over another setting, at most (or at least, where negative)
    ("head, 1e5 to 3e7 instances", "head, TF32, N = 30,000,000", "head, TF32, N = 100,000", 1.10),
    ("head / its products", "head, TF32, N = 1,280,000", "three products, TF32", 1.30),
    ("full soft-max / head", "full soft-max, TF32", "head, TF32, N = 1,280,000", -15.0),
    (
        "PIC / supervised",
        "PIC, ResNet-50, 224 px, B 256, bfloat16",
        "supervised, ResNet-50, 224 px, B 256, bfloat16",
        1.05,
    ),
    ("augmentation / PIC", "augmentation, B 256", "PIC, ResNet-50, 224 px, B 256, bfloat16", 0.05),
]


def check(step: Step, described: dict, arrays) -> str:
    """Compare steps with those of TensorFlow, and with themselves once more.

    Raises:
      ValueError: where losses or the state at the end differ by more than the tolerance.
    """
    import jax

    stem, draws = described["results"]["stem"], described["batch"]
    runs = []
    for _ in range(2):
        step.variables = initial_state(step, len(draws), described["state"], arrays)
        losses = []
        for t in range(described["checked"]):
            batch = [jax.device_put(arrays[f"{stem}_batch_{i}"][t]) for i in range(len(draws))]
            losses.append(np.asarray(step(batch)))
        runs.append([np.stack(losses), *_without_spare(step.variables, described["results"])])
    expected = [arrays[f"{stem}_end_{i}"] for i in range(len(step.variables))]
    expected = [arrays[f"{stem}_losses"], *_without_spare(expected, described["results"])]
    worst = 0.0
    for got, value in zip(runs[0], expected):
        scale = max(1.0, float(np.abs(value.astype(float)).max()))
        worst = max(worst, float(np.abs(got.astype(float) - value.astype(float)).max()) / scale)
    if not worst <= TOLERANCE:
        raise ValueError(
            f"expected the results of TensorFlow within {TOLERANCE}, got {worst:.1e} "
            f"in {described['name']!r}"
        )
    same = all(np.array_equal(a, b, equal_nan=True) for a, b in zip(*runs))
    bits = "equal" if same else "different"
    return f"off by {worst:.1e} from TensorFlow; bits of two runs {bits}"


def _without_spare(variables: list, results: dict) -> list[np.ndarray]:
    """Leave out the last row of a store, which takes what is written to no row, in any order."""
    values = map(np.asarray, variables)
    return [value[:-1] if i in results["spare"] else value for i, value in enumerate(values)]


def measure(step: Step, described: dict, arrays, size: int) -> dict:
    """Time the steps of a setting."""
    draws = described["batch"]
    step.variables = initial_state(step, len(draws), described["state"], arrays)
    drawn = iter(batches(step, draws, size, WARM_UP + 2 * STEPS))
    for _ in range(WARM_UP):
        step(next(drawn))
    step.wait()
    alone = []
    for _ in range(STEPS):
        start = time.perf_counter()
        step(next(drawn))
        step.wait()
        alone.append(1e3 * (time.perf_counter() - start))
    start = time.perf_counter()
    for _ in range(STEPS):
        loss = step(next(drawn))
    step.wait()
    queue = 1e3 * (time.perf_counter() - start) / STEPS
    low, middle, high = np.percentile(alone, [25, 50, 75])
    if not np.isfinite(loss):
        raise ValueError(f"expected a finite loss, got {loss} in {described['name']!r}")
    return {
        "step_ms": middle,
        "quartiles_ms": [low, high],
        "queue_ms": queue,
        "memory_bytes": step.memory(),
        "loss": float(loss),
    }


def run(folder: pathlib.Path, minutes: float, names: str) -> None:
    """Compile, check and time the settings of a folder, for as long as `minutes` allow.

    Raises:
      ValueError: after all settings, for one that failed or differs from TensorFlow.
      OSError: for a folder that `export` did not write.
    """
    os.environ.setdefault("XLA_PYTHON_CLIENT_MEM_FRACTION", "0.92")  # tables fill an accelerator
    import jax

    jax.config.update("jax_enable_x64", True)
    end, device = time.monotonic() + 60 * minutes, jax.local_devices()[0]
    exported = json.loads((folder / "steps.json").read_text())
    arrays = np.load(folder / "arrays.npz", allow_pickle=False)
    report = {
        "device": device.device_kind,
        "jax": jax.__version__,
        "tensorflow": exported["tensorflow"],
        "settings": {},
        "skipped": [],
    }
    for described in exported["settings"]:
        for size in described["sizes"] or [0]:
            name = described["name"] + (f", N = {size:,}" if size else "")
            if not re.search(names, name):
                continue
            if time.monotonic() + described["seconds"] > end and device.platform != "cpu":
                report["skipped"].append(name)
                print(f"{name}: skipped, no time left", flush=True)
                continue
            began = time.monotonic()
            try:
                figures = _of_setting(folder, described, arrays, size)
            except (RuntimeError, ValueError) as error:  # the others go on: time is short here
                figures = {"failed": str(error).splitlines()[0][:200]}
            figures["seconds"] = round(time.monotonic() - began, 1)
            report["settings"][name] = figures
            print(f"{name}: {_words(figures)}", flush=True)
            _write(folder, report)
    print(f"\n{table(report)}")
    failed = [name for name, figures in report["settings"].items() if "failed" in figures]
    if failed:
        raise ValueError(f"expected all settings to run, got failures in {'; '.join(failed)}")


def _of_setting(folder: pathlib.Path, described: dict, arrays, size: int) -> dict:
    programs = [(folder / name).read_bytes() for name in described["files"]]
    program = extended(programs, described["small_sizes"], size) if size else programs[0]
    began = time.monotonic()
    step = Step(program, len(described["batch"]), deterministic=bool(described["checked"]))
    compiled = round(time.monotonic() - began, 1)
    if described["checked"]:
        return {"check": check(step, described, arrays), "compile_s": compiled}
    return measure(step, described, arrays, size) | {"compile_s": compiled}


def _words(figures: dict) -> str:
    if "step_ms" not in figures:
        return figures.get("check") or f"failed: {figures['failed']}"
    return f"{figures['step_ms']:.2f} ms ({figures['seconds']} s in all)"


def table(report: dict) -> str:
    """Write the figures as Markdown."""
    lines = [
        f"{report['device']}, JAX {report['jax']}, programs of TensorFlow {report['tensorflow']}",
        "",
        "| setting | step ms | quartiles | queue ms | memory, MiB |",
        "|---|---|---|---|---|",
    ]
    for name, figures in report["settings"].items():
        if "step_ms" not in figures:
            lines.append(f"| {name} | {_words(figures)} | | | |")
            continue
        low, high = figures["quartiles_ms"]
        memory = figures["memory_bytes"] / 2**20
        lines.append(
            f"| {name} | {figures['step_ms']:.2f} | {low:.2f} .. {high:.2f} | "
            f"{figures['queue_ms']:.2f} | {memory:,.0f} |"
        )
    lines += [f"| {name} | skipped: no time left | | | |" for name in report["skipped"]]
    times = {name: f["queue_ms"] for name, f in report["settings"].items() if "queue_ms" in f}
    lines.append("")
    for name, above, below, limit in GOALS:
        if above in times and below in times:
            ratio, goal = times[above] / times[below], f"{'<=' if limit > 0 else '>='} {abs(limit)}"
            met = "met" if (ratio <= limit if limit > 0 else ratio >= -limit) else "NOT met"
            lines.append(f"- {name}: {ratio:.3f}, goal {goal}: {met}")
    return "\n".join(lines)


def _write(folder: pathlib.Path, report: dict) -> None:
    for name, text in [
        ("figures.json", json.dumps(report, indent=1)),
        ("figures.md", table(report)),
    ]:
        aside = folder / f"{name}.partial"
        aside.write_text(text + "\n")
        os.replace(aside, folder / name)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("action", choices=["export", "run"], help="Half of the work to do.")
    parser.add_argument("folder", type=pathlib.Path, help="Folder of the programs.")
    parser.add_argument(
        "--tiny", action="store_true", help="Export the settings to check alone, for a quick try."
    )
    parser.add_argument(
        "--minutes",
        type=float,
        default=6.0,
        help="Time of run on an accelerator; settings that would not be over by then are skipped "
        "and named. Default: 6.",
    )
    parser.add_argument(
        "--only", default="", help="Regular expression of the settings to run. Default: all."
    )
    chosen = parser.parse_args()
    try:
        if chosen.action == "run":
            run(chosen.folder, chosen.minutes, chosen.only)
        else:
            _export(chosen.folder, chosen.tiny)
    except (OSError, ValueError) as error:
        sys.exit(f"error: {error}")


def _export(folder: pathlib.Path, tiny: bool) -> None:
    from .compiled_export import export

    export(folder, tiny)


if __name__ == "__main__":
    main()
