"""Studies read from TOML: words of their runs, and refusals in one sentence."""

import dataclasses
import json
import pathlib

import pytest

from pic_tf.data.sources.array import digits
from pic_tf.files import recipes
from pic_tf.runs.open_data import identity
from pic_tf.settings.config import Config
from pic_tf.settings.defaults import resolve
from pic_tf.settings.flag_files import to_flagfile
from pic_tf.settings.quantities import number_of_views
from pic_tf.studies.check import check
from pic_tf.studies.definition import parsed, read
from pic_tf.studies.run import FIGURES, Place

ROOT = pathlib.Path(__file__).parents[2]
GOOD = """
title = "Rates"
flagfile = "configs/digits.flags"
flags = { epochs = 2, crop_scale = [0.5, 1.0], tensorboard = false }
seeds = [0, 3]
reference = "slow"
[evaluations]
kNN = { protocol = "knn", knn_k = 5 }
[[variants]]
name = "slow"
flags = { learning_rate = 0.1 }
[[variants]]
name = "fast | twice, Ü"
flags = { learning_rate = 0.2, epochs = 3 }
paper = 67.3
"""


def study_of(tmp_path: pathlib.Path, text: str = GOOD):
    path = tmp_path / "study.toml"
    path.write_text(text, encoding="utf-8")
    return read(path)


def test_runs_are_seeds_of_variants(tmp_path):
    study = study_of(tmp_path)
    taken = [(variant.name, seed) for variant, seed in study.runs]
    names = ["slow", "fast | twice, Ü"]
    assert taken == [(name, seed) for seed in (0, 3) for name in names]
    assert [variant.folder for variant in study.variants] == ["slow", "fast_twice_Ü"]
    assert study.evaluations == {"kNN": ("--protocol=knn", "--knn_k=5")}
    place = Place(tmp_path / "out", "IMAGES")
    words = place.words(study.variants[1], 3)
    config = parsed(words, Config, "")
    assert (config.learning_rate, config.epochs, config.seed) == (0.2, 3, 3)
    assert config.crop_scale == (0.5, 1.0) and config.tensorboard is False
    assert config.dataset == "IMAGES"
    assert config.output_dir == str(tmp_path / "out" / "fast_twice_Ü" / "seed-3")


def test_a_flag_file_beside_the_study_comes_first(tmp_path):
    (tmp_path / "own.flags").write_text("--epochs=7\n")
    study = study_of(tmp_path, 'flagfile = "own.flags"\n[[variants]]\nname = "a"\n')
    assert parsed(list(study.variants[0].words), Config, "").epochs == 7
    assert study.seeds == (0,) and list(study.evaluations) == ["kNN"] and study.title == "study"


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ("title =", "titel =", "expected keys of a study .* got 'titel'"),
        ("paper = 67.3", "papper = 67.3", "expected keys of a variant .* got 'papper'"),
        ("paper = 67.3", 'paper = "a"', "expected a number in percent as paper of 'fast"),
        ("= 0.1 }", "= 0.1, leaning_rate = 1 }", "in variant 'slow', got .*leaning_rate"),
        ("= 0.1 }", "= -1 }", "expected 0 < --learning_rate <= 1e6, got -1"),
        ("= 0.1 }", "= 0.1, seed = 1 }", "expected no seed in variant 'slow', got 1"),
        ("knn_k = 5", "knn_kk = 5", "in evaluation 'kNN', got .*knn_kk"),
        ("knn_k = 5", 'model = "x"', "expected no model in evaluation 'kNN'"),
        ('"knn", knn_k = 5', '"segmentation"', "expected --protocol of knn, .* got segmentation"),
        ("[evaluations]\nkNN = {", "evaluations = 3 # {", "expected .evaluations. with NAME = "),
        ("[evaluations]\nkNN = {", "[evaluations]\n# {", r"expected .evaluations. .*, got \{\}"),
        ("fast | twice, Ü", "SLOW!", "expected variants of names .* got 'slow' and 'SLOW!'"),
        ('name = "slow"', 'name = ""', "expected a name of each variant, got ''"),
        ('name = "slow"\n', "", "expected a name of each variant, got None"),
        (
            "[0, 3]",
            "[1, 1]",
            r"expected a list of different whole numbers >= 0 as seeds, got \[1, 1\]",
        ),
        ('reference = "slow"', 'reference = "x"', "expected the reference to be one of slow, fast"),
        ("seeds = [0, 3]", "seeds = [0, 3", "expected a study in TOML"),
        ("configs/digits.flags", "nowhere.flags", "in variant 'slow', got .*nowhere.flags"),
        ("flags = { epochs", "flags = 3 # { epochs", "expected flags = { name = value }"),
        ("seeds = [0, 3]", "seeds = 3", "expected a list of different whole numbers >= 0 .* got 3"),
        ("[0, 3]", "[0, -1]", r"expected a list .* as seeds, got \[0, -1\]"),
        ('"configs/digits.flags"', "3", "expected a path as flagfile of 'slow', got 3"),
    ],
)
def test_what_is_wrong_is_said_in_one_sentence(tmp_path, old, new, sentence):
    assert old in GOOD
    with pytest.raises(ValueError, match=sentence) as caught:
        study_of(tmp_path, GOOD.replace(old, new, 1))
    assert "\n" not in str(caught.value)


def test_a_study_without_variants_or_file_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"expected \[\[variants\]\] in"):
        study_of(tmp_path, 'title = "nothing"\n')
    with pytest.raises(ValueError, match=r"expected \[\[variants\]\] with name = NAME, got 'a'"):
        study_of(tmp_path, "variants = ['a']\n")
    with pytest.raises(ValueError, match=r"expected a study in TOML at .*No such file"):
        read(tmp_path / "nowhere.toml")


def test_settings_meet_the_images_before_anything_runs(tmp_path):
    study = study_of(tmp_path, GOOD.replace("= 0.1 }", "= 0.1, window_size = 1000 }"))
    with pytest.raises(ValueError, match=r"window.* in variant 'slow'"):
        check(study, Place(tmp_path / "out"))
    with pytest.raises(ValueError, match="nowhere"):
        check(study_of(tmp_path), Place(tmp_path / "out", str(tmp_path / "nowhere")))
    # Variants of the same images, each with flags of its own that do not go with them.
    for flags, sentence in (
        ("epochs = 3, channels = 5", "channels.* in variant 'fast"),
        ("label_curve = [10], knn_every = 0", "--knn_every for --label_curve.* in variant 'fast"),
        ("initial_weights = 'nowhere'", "weights at --initial_weights='nowhere'.* variant 'fast"),
    ):
        with pytest.raises(ValueError, match=sentence):
            check(study_of(tmp_path, GOOD.replace("epochs = 3", flags)), Place(tmp_path / "out"))


def test_a_run_of_other_flags_is_not_taken_for_one_of_the_study(tmp_path):
    study, place = study_of(tmp_path), Place(tmp_path / "out")
    folder = place.folder(study.variants[0], 3)
    folder.mkdir(parents=True)
    (folder / FIGURES).write_text('{"words": ["--epochs=9"]}')
    with pytest.raises(ValueError, match=r"expected the run in .*seed-3.* got one of --epochs=9"):
        check(study, place)


def test_a_run_counts_for_the_flags_and_images_that_it_was_taken_with(tmp_path):
    """A recipe may have moved or changed since, and another data set may be named."""
    recipe = tmp_path / "own.flags"
    recipe.write_text("--flagfile=configs/digits.flags\n--epochs=3\n")
    text = 'flagfile = "own.flags"\n[[variants]]\nname = "a"\n'
    study, place = study_of(tmp_path, text), Place(tmp_path / "out")
    (variant,) = study.variants
    folder = place.folder(variant, 0)
    checkpoint = folder / "checkpoints" / "step-000000000069"
    checkpoint.mkdir(parents=True)
    images = identity(digits("train"))
    (checkpoint / "images.json").write_text(json.dumps(images))
    taken = resolve(parsed(place.words(variant, 0), Config, ""), images["count"])
    (folder / "flags.txt").write_text(to_flagfile(taken))
    (folder / FIGURES).write_text(json.dumps({"words": list(variant.words)}))
    check(study, place)
    recipe = recipe.rename(tmp_path / "moved.flags")
    study = study_of(tmp_path, text.replace("own", "moved"))
    check(study, place)
    recipe.write_text("--flagfile=configs/digits.flags\n--epochs=3\n--temperature=0.1\n")
    with pytest.raises(ValueError, match=r"^expected the run .* --temperature \(0.2 -> 0.1\): rem"):
        check(study, place)
    recipe.write_text("--flagfile=configs/digits.flags\n--epochs=3\n")
    sharper = dataclasses.replace(taken, temperature=0.1)  # a recipe whose line is gone since
    (folder / "flags.txt").write_text(to_flagfile(sharper))
    with pytest.raises(ValueError, match=r"^expected the run .* --temperature \(0.1 -> 0.2\): rem"):
        check(study, place)
    (folder / "flags.txt").write_text(to_flagfile(taken))
    figures = {"words": list(variant.words), "held_out": identity(digits("test"))}
    (folder / FIGURES).write_text(json.dumps(figures))
    assert check(study, place) == {"a": figures["held_out"]}
    figures["held_out"] = images
    (folder / FIGURES).write_text(json.dumps(figures))
    with pytest.raises(
        ValueError, match=r"one of the 297 held-out images .* the 1,500 others: rem"
    ):
        check(study, place)
    (checkpoint / "images.json").write_text(json.dumps(images | {"fingerprint": "of others"}))
    with pytest.raises(ValueError, match=r"one of the 1,500 images of 'digits', got .* 1,500 othe"):
        check(study, place)
    (folder / "flags.txt").unlink()  # with nothing to compare, a recipe of another name is another
    with pytest.raises(
        ValueError, match=r"one of --flagfile=.*moved.flags, got .*own.flags: remove"
    ):
        check(study, place)


@pytest.mark.parametrize("flags", ['order = "epoch"', 'method = "diet"'])
def test_a_run_in_epochs_is_known_again(tmp_path, flags):
    """What is left open in its recipe follows from what is not."""
    text = f'flagfile = "configs/digits.flags"\n[[variants]]\nname = "a"\nflags = {{ {flags} }}\n'
    study, place = study_of(tmp_path, text), Place(tmp_path / "out")
    (variant,) = study.variants
    folder = place.folder(variant, 0)
    folder.mkdir(parents=True)
    config = parsed(place.words(variant, 0), Config, "")
    (folder / "flags.txt").write_text(to_flagfile(resolve(config, 1500, num_replicas=2)))
    (folder / FIGURES).write_text(json.dumps({"words": list(variant.words)}))
    check(study, place)


@pytest.mark.parametrize("path", sorted((ROOT / "configs/studies").glob("*.toml")), ids=str)
def test_studies_that_come_with_the_package_fit_20000_images(path):
    study = read(recipes.find(f"configs/studies/{path.name}"))
    for variant, seed in study.runs:
        words = Place(pathlib.Path("out"), "absent").words(variant, seed)
        resolve(parsed(words, Config, ""), 20000)


def test_views_are_counted_in_whole_batches_and_crops():
    config = Config(num_instances=100, batch_size=32, epochs=5, crops="2x32@0.2-1.0,3x16@0.1-0.2")
    assert number_of_views(config) == 3 * 5 * 32 * 5  # steps an epoch, epochs, B, views of an image
