"""What the plan predicts for resting rows, against recursions and visits counted one by one."""

import dataclasses
import pathlib

import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras

from pic_tf.data.order import SlidingWindow
from pic_tf.runs import open_data
from pic_tf.settings import defaults, flag_files, networks, plan, quantities
from pic_tf.settings.config import Config
from tests.short_runs import model_of

CONFIGS = pathlib.Path(__file__).parent.parent / "configs"
IMAGENET = CONFIGS / "in1k_1600ep.flags"


def resolved(**changes):
    settings = dict(
        num_instances=2048,
        batch_size=16,
        window_size=128,
        window_stride=16,
        num_negatives=64,
        epochs=100,
    )
    settings |= dict(learning_rate=0.5, weight_decay=5e-3) | changes
    return defaults.resolve(Config(**settings), settings["num_instances"])


def recipe(path, **changes):
    settings = dataclasses.replace(flag_files.from_flagfile(str(path)), **changes)
    return open_data.open_data(settings, plan_only=True)[0]


def text(settings):
    """The plan of a network that takes no time to build."""
    inputs = keras.Input([8])
    network = keras.Model(inputs, keras.layers.Dense(4)(inputs))
    return plan.describe(settings, network, network, "1 replica", 1)


@pytest.mark.parametrize(
    "changes, line",
    [
        ({"image_size": 32}, "its stem leaves 8 x 8 positions of views of 32 px; made for such"),
        ({"image_size": 64}, "its stem leaves 16 x 16 positions of views of 64 px; made for such"),
        ({"image_size": 96}, ""),
        ({"image_size": 32, "stem": "small"}, ""),
    ],
)
def test_a_stem_that_is_too_coarse(changes, line):
    found = [row.strip() for row in text(resolved(**changes)).splitlines() if "stem leaves" in row]
    assert len(found) == bool(line) and all(row.startswith(line) for row in found)


def test_activations_that_are_too_many():
    """ResNet-50 at 224 px: 256 images take more than 20 GB in float32."""
    lower, halve, more = "lower --batch_size", "halve them by --precision=bfloat16", "more replicas"
    settings = recipe(CONFIGS / "in1k_200ep.flags", batch_size=256)
    backbone = networks.plain_backbone(settings)
    for changes, replicas, advice in (
        ({}, 1, f"{lower}, {halve}, or take {more}"),
        ({"precision": "bfloat16"}, 1, f"{lower}, or take {more}"),
        ({}, 4, ""),
        ({"batch_size": 32}, 1, ""),
    ):
        settings = dataclasses.replace(settings, batch_size=256, precision="float32")
        settings = dataclasses.replace(settings, **changes)
        parts = quantities.memory(settings, backbone, backbone, replicas)
        lines = plan._memory(settings, parts, replicas)
        assert advice in lines[-1] if advice else " in all" in lines[-1], (changes, replicas)


def norm_floor(settings):
    """The plan's lines on the norm floor, without its name."""
    lines = text(settings).splitlines()
    first = next(i for i, line in enumerate(lines) if line.startswith("norm floor"))
    last = next(i for i in range(first + 1, len(lines)) if not lines[i].startswith(" "))
    return [line[15:] for line in lines[first:last]]


def norms_of_a_row_left_alone(settings):
    """|w_t| of t = 0 ... T by [w; u] <- M_t [w; u] in float64, one step after the other."""
    row, norms = np.array([1.0, 0.0]), [1.0]
    m, decay = settings.momentum, settings.weight_decay
    for rate in (
        quantities.learning_rates(settings)(np.arange(quantities.total_steps(settings)))
        .numpy()
        .astype(np.float64)
    ):
        row = np.array([[1 - rate * decay, -rate * m], [decay, m]]) @ row
        norms.append(abs(row[0]))
    return np.array(norms)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        dict(momentum=0.0),
        dict(momentum=0.5, epochs=30),
        dict(warmup_epochs=40),
        dict(weight_decay=0.05),
    ],
    ids=str,
)
def test_shrinking_is_that_of_the_recursion(changes):
    settings = resolved(**changes)
    rest = quantities.resting_steps(settings)
    assert rest == int(rest) == 964  # ((2048 - 128 + 16) / 16 128 - 64) / 16
    # The rests of a run start at any step; the first hundred only bring the momentum in.
    norms = norms_of_a_row_left_alone(settings)
    change = norms[int(rest) :] / norms[: -int(rest)]
    least, mean = quantities.shrinking(settings)
    assert np.log(least) == pytest.approx(np.log(change.min()), rel=1e-3)
    assert np.log(mean) == pytest.approx(np.log(change).mean(), rel=1e-3)
    assert least < 0.96


def test_shrinking_of_a_long_run_is_sampled_finely_enough(monkeypatch):
    settings = resolved(epochs=500)
    exact = quantities.shrinking(settings)
    monkeypatch.setattr(quantities, "_SAMPLES", 1000)
    assert quantities.total_steps(settings) == 64_000
    np.testing.assert_allclose(quantities.shrinking(settings), exact, rtol=1e-3)


@pytest.mark.parametrize("stride", [16, 64, 512])
def test_rest_is_that_of_the_visits(stride):
    n, b, w, k = 512, 8, 128, 32
    if stride == n:
        w = n  # epochs
    settings = resolved(
        num_instances=n, batch_size=b, window_size=w, window_stride=stride, num_negatives=k
    )
    order = SlidingWindow(n, b, w, stride)
    steps = 20 * n // stride * w // b
    ids_of = tf.function(lambda: tf.map_fn(order.instance_ids, tf.range(steps, dtype=tf.int64)))
    last, rests = np.full(n, -1), []
    for t, ids in enumerate(ids_of().numpy()):
        gaps = t - last[ids][last[ids] >= 0]
        # A row keeps its place in the ring until K views later; within a sweep it comes again W
        # views later.
        rests += list(gaps[gaps > (2 * w / b if w < n else 0)] - k / b)
        last[ids] = t
    assert np.mean(rests) == pytest.approx(quantities.resting_steps(settings), rel=0.02)


def test_learning_rates_are_those_of_the_model():
    settings = resolved(
        dataset="digits", num_instances=1500, epochs=3, backbone="resnet18", stem="small", width=4
    )
    model = model_of(dataclasses.replace(settings, image_size=8))
    assert (
        model.lazy_sgd._learning_rate.get_config()
        == quantities.learning_rates(settings).get_config()
    )


def test_imagenet_recipe():
    settings = recipe(IMAGENET)
    assert norm_floor(settings) == [
        "0.1131; a rest of about 18,098 steps leaves a row 0.337 of its norm at the peak rate, "
        "0.579 on average",
        "it lifts rows that left with less than 0.335 at the peak rate, 0.195 on average; a new "
        "row has 0.1131",
    ]
    # exp(-sum eta lambda / (1 - m)) over (1,281,167 - 131,072 + 16,384) / 16,384 windows of 256
    # steps, less K / B.
    least, mean = quantities.shrinking(settings)
    assert least == pytest.approx(np.exp(-18098 * 0.06 * 1e-4 / 0.1), rel=0.01)
    assert mean == pytest.approx(np.exp(-18098 * 0.03 * 1e-4 / 0.1), rel=0.01)


@pytest.mark.parametrize(
    "num_instances, least, mean", [(10**7, 9.5e-5, 9.5e-3), (10**8, 2.05e-41, 3.6e-21)]
)
def test_more_images_than_imagenet(num_instances, least, mean):
    settings = recipe(IMAGENET, num_instances=num_instances)
    assert quantities.shrinking(settings) == (
        pytest.approx(least, rel=0.01),
        pytest.approx(mean, rel=0.01),
    )
    assert max(map(len, norm_floor(settings))) <= 112


def test_recipe_of_digits():
    assert norm_floor(recipe(CONFIGS / "digits.flags")) == [
        "0.1131; a rest of about 128 steps leaves a row 0.992 of its norm at the peak rate, 0.996 "
        "on average",
        "it lifts rows that left with less than 0.114 at the peak rate, 0.114 on average; a new "
        "row has 0.1131",
    ]


def test_rows_rest_between_epochs_too():
    (line, _) = norm_floor(recipe(CONFIGS / "in1k_200ep_epoch_order.flags"))
    assert line.startswith("0.1131; a rest of about 2,374 steps leaves a row 0.867 of its norm")


def test_without_floor_the_shrinking_remains():
    (line,) = norm_floor(resolved(min_row_norm=0.0))
    assert line.startswith("off; a rest of about 964 steps leaves a row ")


@pytest.mark.parametrize(
    "changes, line",
    [
        (dict(num_negatives=0), "off"),
        (dict(order="epoch", window_size=None, window_stride=None, num_negatives=0), "off"),
        (dict(weight_correction=False), "0.1131"),
        (dict(weight_decay=0.0), "0.1131"),
        (dict(epochs=5), "0.1131; a row rests for about 964 steps, more than the run has"),
    ],
    ids=str,
)
def test_where_nothing_shrinks(changes, line):
    assert norm_floor(resolved(**changes)) == [line]
