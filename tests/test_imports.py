"""Other imports before ours: they work, or the first use says what to do."""

import os
import subprocess
import sys

import pytest

BACKBONE = """
backbone = keras_cv.models.ResNetV2Backbone(
    stackwise_filters=[16], stackwise_blocks=[2], stackwise_strides=[1],
    include_rescaling=False, input_shape=(32, 32, 3))
model = pic_tf.PIC(backbone, 8)
"""
KERAS_3 = "TypeError: expected a backbone of tf_keras, got keras_cv.src"


@pytest.mark.parametrize(
    "imports, sentence",
    [
        ("import tf_keras; import pic_tf; import keras_cv", ""),
        pytest.param("import pic_tf; import keras_cv", "", marks=pytest.mark.slow),
        pytest.param("import keras_cv; import pic_tf", KERAS_3, marks=pytest.mark.slow),
        pytest.param(
            "from tensorflow.keras import layers; import pic_tf; import keras_cv",
            KERAS_3,
            marks=pytest.mark.slow,
        ),
    ],
)
def test_order(imports, sentence):
    code = imports.replace("; ", "\n") + BACKBONE
    without = {name: value for name, value in os.environ.items() if not name.startswith("TF_")}
    command = [sys.executable, "-c", code]
    ended = subprocess.run(command, capture_output=True, text=True, env=without)
    last = ended.stderr.splitlines()[-1] if ended.returncode else ""
    assert last.startswith(sentence) and bool(last) == bool(sentence), ended.stderr
