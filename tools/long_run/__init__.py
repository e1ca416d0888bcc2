"""A study of rows that rest for many steps. TensorFlow starts quietly."""

import pic_tf.files.quiet  # noqa: F401  (first: TensorFlow then starts quietly)
