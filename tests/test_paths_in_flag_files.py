"""Flag files give paths back as they were, and refuse those that would smuggle in another flag."""

import os

import pytest

from pic_tf.settings import check, defaults, flag_files
from pic_tf.settings.config import Config


@pytest.mark.parametrize("name", ["dataset", "eval_dataset", "output_dir"])
@pytest.mark.parametrize(
    "value",
    [
        *(
            "--seed=7",
            "-",
            "--",
            "a=b",
            "a,b",
            "# a",
            "//a",
            "a # b",
            " a",
            "a  b",
            "~/a",
            "~",
            "../a",
            "%s%n",
            "a\\nb",
        ),
        *(
            "'a'",
            '"a',
            "`touch a`",
            "$(touch a)",
            "$HOME",
            "a;b",
            "--flagfile=b",
            "päth/画像",
            "a" * 5000,
        ),
    ],
)
def test_flag_file_gives_a_path_back_as_it_was(tmp_path, name, value):
    settings = Config(**{name: value})
    check.check(settings)
    (tmp_path / "flags.txt").write_text(flag_files.to_flagfile(settings))
    assert flag_files.from_flagfile(str(tmp_path / "flags.txt")) == settings


@pytest.mark.parametrize("name", ["dataset", "eval_dataset", "output_dir"])
@pytest.mark.parametrize(
    "value",
    [
        *(
            "a\n--seed=7",
            "a\r--seed=7",
            "a\r\n--seed=7",
            "a\n",
            "a\0b",
            "a ",
            "a\t",
            "a\u3000",
            " ",
        ),
        *("a\x1b[2J", "a\u2028b", "a\x85b", os.fsdecode(b"a\xffb")),
    ],
)
def test_path_that_a_flag_file_would_not_give_back_is_refused(tmp_path, name, value):
    """A line break would smuggle in another flag."""
    settings = Config(**{name: value})
    with pytest.raises(
        ValueError, match=f"expected --{name} in one line of text that ends in no space, got "
    ):
        check.check(settings)
    with pytest.raises(ValueError, match=f"expected --{name} in one line"):
        defaults.resolve(settings, 1500)


def test_the_refusal_is_needed(tmp_path):
    (tmp_path / "flags.txt").write_text(flag_files.to_flagfile(Config(output_dir="a\n--dataset=b")))
    assert flag_files.from_flagfile(str(tmp_path / "flags.txt")).dataset == "b"


def test_flag_file_that_includes_itself_is_refused(tmp_path):
    path = tmp_path / "flags.txt"
    path.write_text(f"--flagfile={path}\n--seed=3\n")
    with pytest.raises(
        ValueError,
        match=f"^expected flag files that do not include themselves, got {path} -> {path}$",
    ):
        flag_files.from_flagfile(str(path))


def test_flag_file_in_a_folder_called_home(tmp_path, monkeypatch):
    """As --output_dir=~/run makes it, where the shell leaves the ~ alone."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for folder, seed in (("~/run", 1), ("home/run", 2)):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "flags.txt").write_text(f"--seed={seed}\n")
    assert flag_files.from_flagfile("~/run/flags.txt").seed == 1
