"""Flag files: what absl makes of a line, where an included file is found, and the sentence for
each wrong one.
"""

import pathlib

import pytest
from absl import flags

from pic_tf.files import recipes

ROOT = pathlib.Path(__file__).parents[2]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A function that writes files; the current folder is another one."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)

    def write(**files):
        for name, text in files.items():
            (tmp_path / f"{name}.flags").write_text(text)
        return tmp_path

    return write


def test_lines_are_those_that_absl_reads(folder):
    """The oracle is absl itself, on a file without names that it would look up in the current
    folder.
    """
    text = (
        "# a comment\n// another\n\n   \n--epochs=3\n  --name=a b  "
        "\n--undefok=nonsense\n--nonsense=1\n--noflag\n-x=1\n"
        "--flagfile=\n--flagfile={inner}\n--epochs=5\nword\n--dataset=# a\n"
    )
    root = folder(inner="--epochs=4\n", outer="")
    (root / "outer.flags").write_text(text.format(inner=root / "inner.flags"))
    arguments = ["program", "--epochs=1", f"--flagfile={root / 'outer.flags'}", "--epochs=6"]
    expected = flags.FlagValues().read_flags_from_files(arguments)
    assert recipes.expand(arguments) == expected
    in_two_words = ["program", "--epochs=1", "--flagfile", str(root / "outer.flags"), "--epochs=6"]
    assert (
        recipes.expand(in_two_words)
        == flags.FlagValues().read_flags_from_files(in_two_words)
        == expected
    )
    one_dash = ["program", "--epochs=1", f"-flagfile={root / 'outer.flags'}", "--epochs=6"]
    assert recipes.expand(one_dash) == expected


def test_what_follows_two_dashes_stays():
    assert recipes.expand(["a", "--", "--flagfile=missing"]) == ["a", "--", "--flagfile=missing"]


def test_an_included_file_lies_beside_the_one_that_includes_it(folder):
    root = folder(outer="--flagfile=inner.flags\n--epochs=2", inner="--epochs=1\n--seed=1")
    pathlib.Path("inner.flags").write_text("--seed=2")  # in the current folder
    assert recipes.flags_in(root / "outer.flags") == ["--epochs=1", "--seed=1", "--epochs=2"]
    assert recipes.expand(["--flagfile=inner.flags"]) == ["--seed=2"]
    (root / "inner.flags").unlink()
    assert recipes.flags_in(root / "outer.flags") == ["--seed=2", "--epochs=2"]  # as absl finds it


def test_recipes_are_found_from_any_folder(folder):
    folder()
    lines = recipes.flags_in(ROOT / "configs" / "quickstart.flags")
    assert "--backbone=resnet18" in lines
    assert recipes.expand(["--flagfile=configs/quickstart.flags"]) == lines
    assert recipes.expand(["--flagfile=quickstart.flags"]) == lines
    pathlib.Path("configs").mkdir()
    pathlib.Path("configs/quickstart.flags").write_text("--seed=1")
    assert recipes.expand(["--flagfile=configs/quickstart.flags"]) == ["--seed=1"]


def test_a_file_may_be_included_twice_but_not_by_itself(folder):
    root = folder(
        a="--flagfile=b.flags\n--flagfile=b.flags",
        b="--seed=1",
        c="--flagfile=d.flags",
        d="--flagfile=c.flags",
    )
    assert recipes.flags_in(root / "a.flags") == ["--seed=1"] * 2
    root = folder(c="--flagfile=d.flags", d="--flagfile=c.flags")
    chain = " -> ".join(str(root / f"{name}.flags") for name in "cdc")
    with pytest.raises(
        ValueError, match=f"^expected flag files that do not include themselves, got {chain}$"
    ):
        recipes.flags_in(root / "c.flags")


@pytest.mark.parametrize(
    "arguments, sentence",
    [
        (
            ["--flagfile=missing.flags"],
            "^expected a flag file at 'missing.flags', got No such file or directory: name",
        ),
        (
            ["--flagfile=."],
            "got Is a directory: name a file, or one of the recipes configs/cifar10.flags, "
            "configs/",
        ),
        (["--flagfile"], "^expected --flagfile=FILE, got no file: name one$"),
        (
            ["--flagfile=../bytes.flags"],
            "^expected text in --flagfile, got .*: check the path, '../bytes.flags'$",
        ),
    ],
)
def test_wrong_files_are_one_sentence(folder, arguments, sentence):
    (folder() / "bytes.flags").write_bytes(bytes(range(128, 256)))
    with pytest.raises(ValueError, match=sentence):
        recipes.expand(arguments)


def test_a_home_folder_is_meant_by_its_sign(folder, monkeypatch):
    root = folder(a="--seed=1")
    monkeypatch.setenv("HOME", str(root))
    assert recipes.expand(["--flagfile=~/a.flags"]) == ["--seed=1"]
