"""Flags, their defaults for a data set, and the sentence for each wrong one."""

import dataclasses
import re

import pytest
from absl import flags

from pic_tf.data.crops import Crop
from pic_tf.files import recipes
from pic_tf.settings import defaults, flag_files
from pic_tf.settings.config import Config
from pic_tf.settings.help import help_text
from pic_tf.settings.setting import setting, within

IMAGENET = 1_281_167


def test_defaults_are_the_papers_recipe():
    resolved = defaults.resolve(Config(), IMAGENET)
    assert (resolved.window_size, resolved.window_stride, resolved.num_negatives) == (
        131072,
        16384,
        65536,
    )
    assert resolved.virtual_shards == 256
    assert [defaults.resolve(Config(), IMAGENET, r).virtual_shards for r in (8, 64)] == [256, 256]
    assert (
        defaults.resolve(Config(batch_size=510, window_size=130560), IMAGENET, 6).virtual_shards
        == 0
    )
    assert resolved.warmup_epochs == 5
    assert resolved.min_row_norm == pytest.approx(0.01 * 128**0.5)


def test_small_data_sets():
    digits = defaults.resolve(Config(batch_size=64), 1500)
    assert (digits.window_size, digits.window_stride, digits.num_negatives) == (512, 64, 256)
    assert digits.virtual_shards == 0
    tiny = defaults.resolve(Config(batch_size=64), 200)
    assert (tiny.window_size, tiny.window_stride, tiny.num_negatives) == (200, 200, 200)
    assert defaults.resolve(Config(num_negatives=0), 5000).num_negatives == 5000
    assert defaults.resolve(Config(order="epoch"), IMAGENET).window_stride == IMAGENET
    assert defaults.resolve(Config(window_size=1024), 5000).window_stride == 128
    assert defaults.resolve(Config(batch_size=64, window_stride=128), 1500).window_stride == 128


def test_head_none_takes_the_features_as_rows():
    assert defaults.resolve(Config(head="none"), 5000).embedding_dim == 2048
    assert (
        defaults.resolve(Config(head="none", backbone="resnet18", width=16), 5000).embedding_dim
        == 128
    )


def test_flagfile_round_trip(tmp_path):
    resolved = defaults.resolve(
        Config(jitter=(0.1, 0.25, 1 / 3, 0.0), temperature=0.07, tensorboard=False), 5000
    )
    (tmp_path / "flags.txt").write_text(flag_files.to_flagfile(resolved))
    assert flag_files.from_flagfile(str(tmp_path / "flags.txt")) == resolved


def test_every_flag_explains_itself():
    values = flags.FlagValues()
    flag_files.define_flags(values)
    for field in dataclasses.fields(Config):
        text = field.metadata["help"]
        assert text[0].isupper() and text[-1] == "." and not text.startswith("Of "), text
        assert text in values[field.name].help


def test_help_names_every_flag_once_by_topic_and_the_first_ones_before():
    values = flags.FlagValues()
    flag_files.define_flags(values)
    text = help_text(Config, values)
    named = re.findall(r"^  --(?:\[no\])?(\w+)", text, re.MULTILINE)
    assert named[:10] == list(Config.FIRST) and named[-1] == "flagfile"
    assert sorted(named[:-1]) == sorted(field.name for field in dataclasses.fields(Config))
    headings = re.findall(r"^(\S.*):$", text[text.index("Start with these") :], re.MULTILINE)
    assert (
        headings[:3] == ["Start with these", "Images to train on", "Order of visits"]
        and len(headings) == 12
    )
    assert all(len(line) <= 100 for line in text.split("\n"))


@pytest.mark.parametrize(
    "limit, inside, outside",
    [
        ("x >= 1", [1, 2.5, 1e9], [0, 0.999, float("nan")]),
        ("0 <= x < 1", [0, 0.5], [1, -1e-9, float("nan")]),
        ("0 < x <= 1e6", [1e-9, 1e6], [0, 1e6 + 1, float("inf")]),
        ("", [float("nan"), -1], []),
    ],
)
def test_limits(limit, inside, outside):
    assert all(within(limit, x) for x in inside) and not any(within(limit, x) for x in outside)


@pytest.mark.parametrize("limit", ["x", "1 <= y", "x > 1", "0 <= x <=", "x <= x"])
def test_a_limit_that_cannot_be_read(limit):
    with pytest.raises(ValueError, match=r"expected a limit like|could not convert"):
        setting(0, "Help.", limit=limit)


def test_a_run_from_before_a_flag_had_what_is_taken_without_it(tmp_path):
    now = defaults.resolve(Config(batch_size=64), 1500)
    path = tmp_path / "flags.txt"
    lines = flag_files.to_flagfile(now).splitlines(keepends=True)
    path.write_text("".join(line for line in lines if "label_smoothing" not in line))
    before = flag_files.from_flagfile(str(path))
    assert before.label_smoothing is None
    assert flag_files.changed(before, now) == []
    smoothed = dataclasses.replace(now, label_smoothing=0.1)
    assert flag_files.changed(before, smoothed) == ["--label_smoothing (0.0 -> 0.1)"]


def test_changed_names_only_what_changes_the_outcome():
    assert (
        flag_files.changed(
            Config(), Config(output_dir="elsewhere", knn_every=1, keep_checkpoints=9)
        )
        == []
    )
    assert flag_files.changed(Config(), Config(seed=3)) == ["--seed (0 -> 3)"]


def test_a_flag_file_with_a_flag_that_was_removed(tmp_path):
    """Where RandAugment was off, its flag is passed over, in the file of a run and by
    --flagfile.
    """
    path, config = tmp_path / "flags.txt", Config(seed=3, augmentation="mocov2")
    lines = flag_files.to_flagfile(config)
    path.write_text(f"{lines}--rand_augment=0.0,0.0\n")
    assert flag_files.from_flagfile(str(path)) == config
    assert recipes.expand(["train", f"--flagfile={path}", "--seed=4"]) == [
        "train",
        *lines.split(),
        "--seed=4",
    ]


@pytest.mark.parametrize("line", ["--rand_augment=2.0,0.9", "--augmentation=randaugment"])
def test_an_augmentation_that_was_removed(tmp_path, line):
    path = tmp_path / "flags.txt"
    path.write_text(f"--seed=3\n{line}\n")
    sentence = (
        f"expected flags of this version, got {line}: RandAugment was removed, name another "
        "--augmentation"
    )
    with pytest.raises(ValueError, match=sentence):
        flag_files.from_flagfile(str(path))
    with pytest.raises(ValueError, match=sentence):
        recipes.expand(["train", f"--flagfile={path}"])


@pytest.mark.parametrize(
    "change, sentence",
    [
        ({"epochs": 0}, "expected 1 <= --epochs <= 1e6, got 0"),
        ({"batch_size": 0}, "expected --batch_size >= 1, got 0"),
        ({"batch_size": 6000}, "expected --batch_size to be at most the number of training images"),
        ({"width": 0}, "expected 1 <= --width <= 65536"),
        ({"steps_per_execution": 0}, "expected --steps_per_execution >= 1"),
        ({"replicas": -1}, "expected --replicas >= 0"),
        ({"lars_trust_coefficient": 0.0}, "expected 0 < --lars_trust_coefficient <= 1e6"),
        ({"image_size": -1}, "expected 1 <= --image_size <= 8192"),
        ({"keep_checkpoints": 0}, "expected --keep_checkpoints >= 1"),
        ({"seed": -1}, "expected --seed >= 0"),
        ({"num_negatives": -1}, "expected --num_negatives >= 0"),
        ({"num_negatives": 100}, "expected --num_negatives between --batch_size"),
        ({"num_negatives": 6000}, "expected --num_negatives between --batch_size"),
        ({"num_instances": 4999}, r"expected 4999 training images \(--num_instances\), got 5000"),
        ({"min_row_norm": -0.1}, "expected 0 <= --min_row_norm <= 1e6"),
        ({"weight_decay": -1e-4}, "expected 0 <= --weight_decay <= 1e6"),
        ({"weight_decay": float("inf")}, "expected 0 <= --weight_decay <= 1e6"),
        ({"min_row_norm": float("nan")}, "expected 0 <= --min_row_norm <= 1e6"),
        ({"temperature": 0.0}, "expected 1e-4 <= --temperature <= 1e6"),
        ({"temperature": float("nan")}, "expected 1e-4 <= --temperature <= 1e6"),
        ({"learning_rate": float("inf")}, "expected 0 < --learning_rate <= 1e6"),
        ({"final_learning_rate": -1.0}, "expected 0 <= --final_learning_rate <= 1e6"),
        ({"momentum": 1.0}, "expected 0 <= --momentum < 1"),
        ({"warmup_epochs": 200.0}, "expected 0 <= --warmup_epochs < --epochs"),
        ({"blur_probability": 1.5}, "expected 0 <= --blur_probability <= 1"),
        ({"eval_crop": 0.0}, "expected 0 < --eval_crop <= 1"),
        ({"crop_scale": (0.5,)}, "expected --crop_scale=LEAST,LARGEST"),
        ({"crop_scale": (0.5, 0.1)}, "expected --crop_scale=LEAST,LARGEST"),
        ({"blur_sigma": (0.0, 2.0)}, "expected --blur_sigma=LEAST,LARGEST"),
        ({"crops": "2x96"}, "expected crops as COUNTxSIZE@LEAST-LARGEST .* got '2x96' in --crops"),
        ({"max_broken": -0.1}, "expected 0 <= --max_broken <= 1"),
        ({"jitter": (0.4, 0.4, 0.4)}, "expected --jitter=BRIGHTNESS,CONTRAST,SATURATION,HUE"),
        ({"jitter": (0.4, 0.4, 0.4, 0.6)}, "expected --jitter=BRIGHTNESS,CONTRAST,SATURATION,HUE"),
        (
            {"window_size": 1000},
            "expected window_size to be a multiple of batch_size .512., got 1000: use 512 or 1024",
        ),
        ({"window_size": 5120}, "window_size <= number of instances"),
        (
            {"window_size": 2048, "window_stride": 5000},
            "expected 1 <= window_stride <= window_size",
        ),
        (
            {"order": "epoch", "window_size": 1024},
            "expected no --window_size or --window_stride with --order=epoch",
        ),
    ],
)
def test_wrong_settings(change, sentence):
    with pytest.raises(ValueError, match=sentence):
        defaults.resolve(dataclasses.replace(Config(), **change), 5000)


@pytest.mark.parametrize(
    "change, replicas, sentence",
    [
        (
            {"batch_size": 500},
            8,
            "expected --batch_size to be a multiple of the 8 replicas, got 500: use 496 or 504",
        ),
        (
            {"num_negatives": 1001},
            8,
            "multiple of the 8 replicas, got 1001: use 1000 or 1008, or 0 for all",
        ),
        (
            {"window_stride": 100},
            8,
            "expected window_stride to be a multiple of num_replicas .8., got 100: use 96 or 104",
        ),
    ],
)
def test_sizes_that_do_not_divide_among_replicas(change, replicas, sentence):
    with pytest.raises(ValueError, match=sentence):
        defaults.resolve(dataclasses.replace(Config(), **change), 5000, replicas)


@pytest.mark.parametrize("replicas", [1, 2, 3, 4, 6, 8, 12])
@pytest.mark.parametrize("instances", [30, 200, 1500, 5003, IMAGENET])
def test_defaults_fit_any_number_of_replicas(instances, replicas):
    resolved = defaults.resolve(Config(batch_size=24), instances, replicas)
    assert resolved.num_negatives % replicas == 0 or resolved.num_negatives == instances


def test_words_where_numbers_belong(tmp_path):
    (tmp_path / "flags.txt").write_text("--jitter=a,b,c,d\n")
    with pytest.raises(ValueError, match="expected numbers in --jitter, got 'a,b,c,d'"):
        flag_files.from_flagfile(str(tmp_path / "flags.txt"))


def test_what_is_given_comes_before_what_the_augmentation_stands_for():
    settings = Config(augmentation="mocov2", jitter=(0.1, 0.2, 0.3, 0.4), flip_probability=0.0)
    resolved = defaults.resolve(settings, 5000)
    assert resolved.crop_scale == (0.2, 1.0) and resolved.blur_probability == 0.5  # MoCo v2's
    assert resolved.jitter == (0.1, 0.2, 0.3, 0.4) and resolved.flip_probability == 0.0
    assert resolved.views() == (Crop(224, (0.2, 1.0)),)
    assert flag_files.from_flags(_parsed(flag_files.to_flagfile(resolved))) == resolved


def test_a_run_that_goes_on_with_another_augmentation_gets_its_numbers():
    old = defaults.resolve(Config(), 5000)
    changed = defaults.resolve(flag_files.inherit(Config(augmentation="instdisc"), old), 5000)
    assert (
        changed.jitter == (0.4, 0.4, 0.4, 0.4)
        and changed.grayscale_first
        and changed.window_size == old.window_size
    )


def test_crops_replace_the_one_view():
    resolved = defaults.resolve(Config(crops="1x160@0.14-1.0,3x96@0.08-0.14"), 5000)
    assert resolved.views() == (Crop(160, (0.14, 1.0), 1), Crop(96, (0.08, 0.14), 3))


def _parsed(text):
    values = flags.FlagValues()
    flag_files.define_flags(values)
    values(["", *text.splitlines()])
    return values
