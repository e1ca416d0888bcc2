"""SavedModels in folders whose names TensorFlow takes for patterns."""

import pytest
import tensorflow as tf

from pic_tf.files import saved_models


@pytest.mark.parametrize(
    "name", ["run [1]", "a*?", "b\\c", "'quotes' \"and\" spaces", "~ $HOME %s {d,e}"]
)
def test_any_folder(tmp_path, name):
    module = tf.Module()
    module.weight = tf.Variable([1.0, 2.0])
    tf.saved_model.save(module, str(tmp_path / "plain"))
    (tmp_path / "plain").rename(tmp_path / name)
    loaded = saved_models.load(tmp_path / name)
    assert loaded.weight.numpy().tolist() == [1, 2]
