"""A short run that the tests of pictures share."""

import dataclasses

import pytest
import tensorflow as tf

from pic_tf.runs import open_data
from pic_tf.settings.config import Config
from pic_tf.training import build, loop
from tests.short_runs import SMALL, shallow

ONE = tf.distribute.get_strategy()


def _short_run(settings: Config):
    """Train a shallow network, and also give the model back."""
    settings, images = open_data.open_data(settings)
    built, build_model = [], build.build_model
    with pytest.MonkeyPatch.context() as patch:
        shallow(patch)
        patch.setattr(
            build,
            "build_model",
            lambda *arguments: built.append(build_model(*arguments)) or built[-1],
        )
        assert loop.run(settings, images, ONE).finished
    return settings, built[0]


@pytest.fixture(scope="package")
def trained(tmp_path_factory):
    """A run of 23 steps, in which the window reaches less than half of the 1,500 digits."""
    output = str(tmp_path_factory.mktemp("run") / "run")
    return _short_run(
        dataclasses.replace(SMALL, epochs=1, knn_every=0, tensorboard=False, output_dir=output)
    )
