"""Each method has its published settings, and refuses flags that do not belong to it."""

import dataclasses

import pytest

from pic_tf.data.crops import total
from pic_tf.settings import check, defaults, flag_files, quantities
from pic_tf.settings.config import Config
from pic_tf.settings.methods import METHODS, TWO_VIEWS
from tests.short_runs import SMALL

N = 4000
LEFT_OPEN = dataclasses.replace(SMALL, num_negatives=None)


@pytest.mark.parametrize("method", METHODS)
def test_what_is_resolved_can_be_read_again(method, tmp_path):
    """A run goes on from its flags.txt, in which nothing is left open."""
    resolved = defaults.resolve(dataclasses.replace(LEFT_OPEN, method=method), N)
    (tmp_path / "flags.txt").write_text(flag_files.to_flagfile(resolved))
    again = flag_files.from_flagfile(str(tmp_path / "flags.txt"))
    assert again == resolved and defaults.resolve(again, N) == resolved
    check.check(again)


def test_published_settings():
    names = "order num_negatives temperature similarity label_smoothing min_row_norm".split()
    found = {
        method: tuple(
            getattr(defaults.resolve(Config(method=method), 1_281_167), name) for name in names
        )
        for method in METHODS
    }
    floor = 0.01 * 128**0.5
    assert found == {
        "pic": ("sliding_window", 65_536, 0.2, "cosine", 0.0, pytest.approx(floor)),
        "simclr": ("sliding_window", None, 0.1, None, None, None),
        "mocov2": ("sliding_window", 65_536, 0.2, None, None, None),
        "instdisc": ("sliding_window", 1_281_167, 0.07, "cosine", None, None),
        "diet": ("epoch", 1_281_167, 1.0, "dot", 0.8, None),
    }


@pytest.mark.parametrize("method", METHODS)
def test_views_of_a_step(method):
    config = defaults.resolve(dataclasses.replace(LEFT_OPEN, method=method, epochs=2), N)
    assert total(config.views()) == (2 if method in TWO_VIEWS else 1)
    assert quantities.steps_per_epoch(config) == N // config.batch_size  # of images, not of views


@pytest.mark.parametrize(
    "changes, sentence",
    [
        ({"method": "simclr", "num_negatives": 64}, "--num_negatives with --method=pic or mocov2"),
        ({"method": "simclr", "similarity": "dot"}, "--similarity with --method=pic or instdisc"),
        ({"method": "simclr", "label_smoothing": 0.1}, "--label_smoothing with --method=pic or di"),
        ({"method": "simclr", "crops": "1x8@0.2-1"}, "2 crops of one kind in --crops with --met"),
        ({"method": "simclr", "batch_size": 1}, "--batch_size of at least 2 with --method=simclr"),
        ({"method": "mocov2", "weight_correction": False}, "--weight_correction with --method=pic"),
        ({"method": "mocov2", "min_row_norm": 0.1}, "--min_row_norm with --method=pic only, got "),
        ({"method": "mocov2", "batch_groups": 3}, "--batch_groups to be a multiple of the 1 repl"),
        ({"method": "mocov2", "batch_groups": 64}, "--batch_groups to be a multiple of the 1 rep"),
        ({"method": "instdisc", "instance_store": "disk"}, "--instance_store with --method=pic o"),
        ({"method": "instdisc", "num_negatives": 128}, "all images in the soft-max with --method"),
        ({"method": "instdisc", "crops": "2x8@0.2-1"}, "1 crops of one kind in --crops with --me"),
        ({"method": "diet", "order": "sliding_window"}, "--order=epoch with --method=diet, got s"),
        ({"method": "diet", "similarity": "cosine"}, "--similarity=dot with --method=diet, got c"),
        ({"method": "diet", "window_size": 512}, "no --window_size or --window_stride with --ord"),
        ({"method": "diet", "bank_momentum": 0.9}, "--bank_momentum with --method=instdisc only,"),
        (
            {"encoder_momentum": 0.9},
            "--encoder_momentum with --method=mocov2 only, got it with pic",
        ),
        ({"label_smoothing": 1.0}, "0 <= --label_smoothing < 1, got 1.0"),
        (
            {"method": "simclr", "mixup_probability": 0.5},
            "--mixup_probability with --method=pic or",
        ),
        ({"mixup_probability": 1.5}, "0 <= --mixup_probability <= 1, got 1.5"),
    ],
    ids=str,
)
def test_flags_of_another_method_are_refused(changes, sentence):
    with pytest.raises(ValueError) as refused:
        defaults.resolve(dataclasses.replace(LEFT_OPEN, **changes), N)
    assert str(refused.value).startswith(f"expected {sentence}")
