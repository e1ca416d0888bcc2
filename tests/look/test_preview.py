"""The pictures of the input of training."""

import numpy as np
import pytest
from PIL import Image

from pic_tf.data.crops import Crop
from pic_tf.data.normalisation import MEAN, STDDEV
from pic_tf.data.order import SlidingWindow, epoch_order
from pic_tf.data.pipeline import pretraining_batches
from pic_tf.data.presets import PRESETS, Preset, augmentation_of
from pic_tf.data.sources.array import ArraySource
from pic_tf.data.sources.named import open_dataset
from pic_tf.look import augmented_views
from pic_tf.look.figures import shortened
from pic_tf.look.visits import save_order, visits


@pytest.fixture(scope="module")
def source():
    return ArraySource(np.random.default_rng(0).integers(0, 256, [9, 24, 24, 3], np.uint8))


def test_a_sheet_without_changes_is_made_of_the_images(source):
    """Whole images, neither flipped nor coloured: every cell of a row holds the row's image."""
    preset = Preset(crop_scale=(1.0, 1.0), flip_probability=0.0)
    crops = (Crop(24, (1.0, 1.0)), Crop(12, (1.0, 1.0)))
    picture = augmented_views.augmented_views(source, preset, crops, count=3, views=4, seed=1)
    side, small = 24 + augmented_views._GAP, 12 + augmented_views._GAP
    assert picture.shape == (
        3 * side - augmented_views._GAP,
        3 * side + 2 * small - augmented_views._GAP,
        3,
    )
    for row, i in enumerate(epoch_order(9, 3, 1).instance_ids(0).numpy()):
        image = source.images[i]
        cell = picture[row * side : row * side + 24]
        half = np.asarray(Image.fromarray(image).resize((12, 12), Image.Resampling.BILINEAR))
        # No window of the whole area but the whole fits into a square. Views: float32 to and from
        # normalised values.
        for start in (0, side, 2 * side + small):
            np.testing.assert_allclose(cell[:, start : start + 24], image / 255, atol=1e-6)
        for start in (2 * side, 3 * side + small):
            np.testing.assert_allclose(
                cell[:12, start : start + 12], half / 255, atol=1.01 / 255
            )  # rounded by each
            assert (cell[12:, start : start + 12] == 1).all()  # the margin


def test_a_sheet_shows_what_the_pipeline_gives(source):
    preset, crops = PRESETS["simclr"](), (Crop(24, (0.3, 1.0), 2),)
    picture = augmented_views.augmented_views(source, preset, crops, count=2, views=2, seed=3)
    order = augmented_views.SameImages(epoch_order(9, 2, 3))
    (((images, random),), _, _) = next(
        iter(pretraining_batches(source, order, crops=crops, seed=3, start_step=0, stop_step=1))
    )
    expected = np.clip(augmentation_of(preset)(images, random) * STDDEV + MEAN, 0, 1)
    side = 24 + augmented_views._GAP
    for row in range(2):
        for view in range(2):
            cell = picture[row * side : row * side + 24, (1 + view) * side : (1 + view) * side + 24]
            np.testing.assert_allclose(
                cell, expected[2 * row + view], atol=1e-6
            )  # float32 against float64


def test_an_image_that_has_gone_is_named(tmp_path):
    paths = [tmp_path / f"{i}.png" for i in range(3)]
    for path in paths:
        Image.new("RGB", (8, 8)).save(path)
    (source,) = [part for part in open_dataset(str(tmp_path)) if part is not None]
    paths[1].unlink()
    with pytest.raises(
        ValueError, match=r"^expected an image in .*1\.png', got one that cannot be"
    ):
        augmented_views.augmented_views(source, Preset(), (Crop(8),), count=3, views=1, seed=0)


def test_visits_lie_in_the_window_of_their_step():
    order = SlidingWindow(100, 5, 20, 4, seed=2)
    positions = visits(order, 12)
    for step, visited in enumerate(positions):
        assert set(visited) <= {(step // 4 * 4 + i) % 100 for i in range(20)}
    assert sorted(positions[:4].ravel()) == list(range(20))  # a whole window


def test_pictures_are_written(tmp_path):
    save_order({"a": np.arange(6).reshape(3, 2), "b": np.zeros([3, 2])}, tmp_path / "order.png")
    augmented_views.save_views(
        np.zeros([52, 80, 3]), ["one", "two"], "title", tmp_path / "sheet.png"
    )
    assert min(Image.open(tmp_path / name).size[0] for name in ("order.png", "sheet.png")) > 200
    assert sorted(p.name for p in tmp_path.iterdir()) == ["order.png", "sheet.png"]


def test_a_sheet_is_drawn_pixel_by_pixel_beside_any_names(tmp_path):
    """Names with formulas, line ends and letters that the font lacks; none reaches the edge of
    the picture.
    """
    sheet = np.random.default_rng(1).integers(0, 256, [120, 90, 3]) / 255
    names = [shortened(name) for name in ("a$x_$b.jpg", "\u732b\n\u5199\x1b[31m.jpg", "W" * 40)]
    augmented_views.save_views(sheet, names, "$title_$", tmp_path / "sheet.png")
    got = np.asarray(Image.open(tmp_path / "sheet.png").convert("RGB")) / 255
    left, bottom = augmented_views._LEFT, got.shape[0] - 10
    np.testing.assert_allclose(
        got[bottom - 120 : bottom, left : left + 90], sheet, atol=1 / 255
    )  # rounded to bytes
    edges = got[0], got[-1], got[:, 0], got[:, -1]
    assert all((edge == 1).all() for edge in edges) and got[:, : left - 10].min() < 0.5
