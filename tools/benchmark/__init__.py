"""Benchmarks of training. Every process of one starts TensorFlow quietly."""

import importlib.util

if importlib.util.find_spec("pic_tf"):  # `compiled_step run` needs neither
    import pic_tf.files.quiet  # noqa: F401  (first: TensorFlow then starts quietly)
