"""The pictures of what training will see."""

import numpy as np
import pytest
from PIL import Image

from pic_tf.data import preview
from pic_tf.data.augment import MEAN, STDDEV
from pic_tf.data.crops import Crop
from pic_tf.data.order import SlidingWindow, epoch_order
from pic_tf.data.presets import PRESETS
from pic_tf.data.sources import ArraySource


@pytest.fixture(scope="module")
def source():
    return ArraySource(np.random.default_rng(0).integers(0, 256, [9, 24, 24, 3], np.uint8))


def test_a_sheet_without_changes_is_made_of_the_images(source):
    """Whole images, neither flipped nor coloured: every cell of a row holds the row's image."""
    preset = preview.Preset(crop_scale=(1.0, 1.0), flip_probability=0.0)
    crops = (Crop(24, (1.0, 1.0)), Crop(12, (1.0, 1.0)))
    picture = preview.sheet(source, preset, crops, count=3, views=4, seed=1)
    side = 24 + preview._GAP
    assert picture.shape == (3 * side - preview._GAP, 5 * side - preview._GAP, 3)
    for row, i in enumerate(epoch_order(9, 3, 1).instance_ids(0).numpy()):
        image = source.images[i]
        cell = picture[row * side : row * side + 24]
        np.testing.assert_allclose(cell[:, :24], image / 255, atol=1e-6)
        # Aspect ratios are drawn, so windows of a square image fall back to its whole after ten tries, if at all.
        assert cell[:, side : side + 24].std() > 0.1
        assert (
            picture[row * side + 12 : row * side + 24, 2 * side : 2 * side + 12] == 1
        ).all()  # a small view's margin


def test_a_sheet_shows_what_the_pipeline_gives(source):
    preset, crops = PRESETS["simclr"](), (Crop(24, (0.3, 1.0), 2),)
    picture = preview.sheet(source, preset, crops, count=2, views=2, seed=3)
    order = preview.SameImages(epoch_order(9, 2, 3))
    (((views, random),), _, _) = next(
        iter(preview.pretraining_batches(source, order, crops=crops, seed=3, start_step=0, stop_step=1))
    )
    expected = np.clip(preview.augmentation_of(preset)(views, random) * STDDEV + MEAN, 0, 1)
    side = 24 + preview._GAP
    for row in range(2):
        for view in range(2):
            cell = picture[row * side : row * side + 24, (1 + view) * side : (1 + view) * side + 24]
            np.testing.assert_allclose(cell, expected[2 * row + view], atol=1e-6)  # float32 against float64


def test_visits_lie_in_the_window_of_their_step():
    order = SlidingWindow(100, 5, 20, 4, seed=2)
    positions = preview.visits(order, 12)
    for step, visited in enumerate(positions):
        assert set(visited) <= {(step // 4 * 4 + i) % 100 for i in range(20)}
    assert sorted(positions[:4].ravel()) == list(range(20))  # a whole window


def test_pictures_are_written(tmp_path):
    preview.save_order({"a": np.arange(6).reshape(3, 2), "b": np.zeros([3, 2])}, tmp_path / "order.png")
    preview.save_sheet(np.zeros([52, 80, 3]), ["one", "two"], "title", tmp_path / "sheet.png")
    assert min(Image.open(tmp_path / name).size[0] for name in ("order.png", "sheet.png")) > 200
    assert sorted(p.name for p in tmp_path.iterdir()) == ["order.png", "sheet.png"]
