"""Import TensorFlow without its start-up messages, for commands whose output people read.

An import for its side effect, before anything else that imports TensorFlow:

    import pic_tf.files.quiet  # noqa: F401
"""

import gc
import os
import sys
import tempfile

from pic_tf.files.streams import open_closed_streams


def import_tensorflow() -> None:
    """Import TensorFlow with standard error held back; shown after all if the import fails.

    Some of its libraries write to file descriptor 2 while they load, whatever TF_CPP_MIN_LOG_LEVEL
    says (https://github.com/tensorflow/tensorflow/issues/100442).
    """
    open_closed_streams()
    if "tensorflow" in sys.modules:
        return
    sys.stderr.flush()
    stderr = os.dup(2)
    gc.disable()
    with tempfile.TemporaryFile() as held:
        os.dup2(held.fileno(), 2)
        try:
            import tensorflow as tf

            tf.config.list_physical_devices()  # the device libraries speak on first use
            tf.get_logger().setLevel("ERROR")
            if tf.__version__.startswith("2.15."):
                _leave_keras_unconverted()
        except BaseException:
            held.seek(0)
            os.write(stderr, held.read())
            raise
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)
            _collect_seldom()


def _leave_keras_unconverted() -> None:
    """Let AutoGraph pass tf_keras by, as TensorFlow itself does from 2.16 on.

    2.15 rewrites its functions and all that they call, for 20 s before the first step. Layers of a
    user are rewritten by either.
    """
    from tensorflow.python.autograph.core import config

    config.CONVERSION_RULES += (config.DoNotConvert("tf_keras"),)


def _collect_seldom() -> None:
    """Look for garbage seldom: modules and traced graphs are many objects that live long."""
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)
    gc.enable()


import_tensorflow()
