"""Run a command of the package in a process of its own, with networks of two blocks.

    python -m tests.shallow_command pic_tf.train --flagfile=...

What the tests of killed, interrupted and joined processes hold does not depend on the depth.
"""

import runpy
import sys

import pic_tf.files.quiet  # noqa: F401  (first: TensorFlow then starts quietly)
from pic_tf.models import resnet

if __name__ == "__main__":
    resnet.STAGES[18] = ((1, 1), False)
    sys.argv = sys.argv[1:]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
