"""Run a command of the package in a process of its own, with networks of two blocks in place of
resnet18, and of four in place of deeper ones.

    python -m tests.shallow_command pic_tf.train --flagfile=...

What the tests of killed, interrupted and joined processes and of plans hold does not depend on the
depth.
"""

import runpy
import sys

import pic_tf.files.quiet  # noqa: F401  (first: TensorFlow then starts quietly)
from pic_tf.models import resnet

if __name__ == "__main__":
    for depth, (_, bottleneck) in list(resnet.STAGES.items()):
        resnet.STAGES[depth] = ((1, 1) if depth == 18 else (1, 1, 1, 1), bottleneck)
    sys.argv = sys.argv[1:]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
