"""A folder of classes, the same images in memory, and an export of an untrained network."""

import numpy as np
import pytest
import tf_keras as keras
from PIL import Image

from pic_tf.data.sources.array import ArraySource
from pic_tf.serving.saved_model import export_backbone
from tests.evals.evaluation import COLOURS, COUNT, SIZE, network, pixels_of


@pytest.fixture(scope="package")
def folder(tmp_path_factory):
    """train/CLASS and val/CLASS: noise around a colour that a third of the images of another
    class may have too.
    """
    root, rng = tmp_path_factory.mktemp("data") / "colours", np.random.default_rng(0)
    for part, count in COUNT.items():
        for name, colour in COLOURS.items():
            (root / part / name).mkdir(parents=True)
            for i in range(count):
                mean = np.array(colour) + rng.normal(0, 40, 3)
                pixels = np.clip(mean + rng.normal(0, 25, [SIZE, SIZE, 3]), 0, 255).astype(np.uint8)
                Image.fromarray(pixels).save(root / part / name / f"{name}{i:02d}.png")
    return root


@pytest.fixture(scope="package")
def model(tmp_path_factory):
    keras.utils.set_random_seed(0)
    path = tmp_path_factory.mktemp("run") / "backbone"
    export_backbone(network(), path, trained_size=SIZE)
    return path


@pytest.fixture(scope="package")
def arrays(folder):
    """The same images in memory, which are sooner read: (training source, held-out source)."""
    return tuple(
        ArraySource(np.rint(255 * pixels).astype(np.uint8), labels, tuple(sorted(COLOURS)), part)
        for part, (pixels, labels) in ((part, pixels_of(folder, part)) for part in COUNT)
    )
