"""Benchmarks of training. Every process of one starts TensorFlow quietly."""

import pic_tf.files.quiet  # noqa: F401  (first: TensorFlow then starts quietly)
