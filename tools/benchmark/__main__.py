"""Measure what training costs on this machine.

    python tools/benchmark head        # a step without the backbone: PIC against the full soft-max
    python tools/benchmark replicas    # the same on R replicas, and a model of 8 to 1024 of them
    python tools/benchmark checkpoint  # how long training waits for a checkpoint, and what it takes
    python tools/benchmark store       # rows on disk, for 1e5 to 1e9 images
    python tools/benchmark input --images=FOLDER  # the host, against torchvision, albumentations

After `pip install pic_tf`, outside of a clone: python -m pic_tf.tools.benchmark head

Variants that are compared take turns, one step each, in one process (`replicas`: one process for
each number of them); medians over the rounds are reported. Peak memory is that of a process of its
own for each variant.
"""

import pathlib
import sys

from absl import app, flags

import pic_tf.files.quiet  # noqa: F401  (first: TensorFlow then starts quietly)
from pic_tf.files import command_line

if not __package__:  # started as `python tools/benchmark`
    sys.path[0] = str(pathlib.Path(__file__).parents[1])
    __package__ = "benchmark"

from . import accelerators, checkpoint, head, input, replicas, store
from .processes import fail

BENCHMARKS = {
    "head": head.head,
    "replicas": replicas.replicas,
    "checkpoint": checkpoint.checkpoint,
    "input": input.input_,
    "store": store.store,
}


def main(arguments: list[str]) -> None:
    name = " ".join(arguments[1:]) or "no name"
    if name not in BENCHMARKS:
        fail(f"expected the name of a benchmark ({', '.join(BENCHMARKS)}), got {name}")
    BENCHMARKS[name]()


if __name__ == "__main__":
    for module in (head, replicas, accelerators, checkpoint, input, store):
        module.define_flags()
        flags.adopt_module_key_flags(module)  # so that --help shows them
    app.run(main, flags_parser=command_line.parse)
