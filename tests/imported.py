"""Everything that tests in processes of their own need, imported before they fork: see
`tests.processes`.
"""

import gc
import os

os.environ["CUDA_VISIBLE_DEVICES"] = ""  # no driver of a GPU survives a fork

import pic_tf.files.quiet  # noqa: I001  (first: TensorFlow then starts quietly)
import pytest  # noqa: F401
import sklearn.decomposition
import sklearn.manifold  # noqa: F401

import pic_tf.evals.predictions
import pic_tf.look.feature_points
import pic_tf.look.nearest_images
import pic_tf.training.loop  # noqa: F401

gc.freeze()
