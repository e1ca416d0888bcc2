"""How a command ends: with its own exit code, or with one sentence and the code of its error."""

import errno
import os

import pytest
import tensorflow as tf
from absl import flags

from pic_tf.files.command_line import (
    INTERRUPTED,
    START_AGAIN,
    errors_as_sentences,
    only_flags,
    parse,
)
from tests.processes import commands_that_fork

OUT_OF_MEMORY = tf.errors.ResourceExhaustedError(
    None, None, "OOM when allocating tensor with shape[512,7,7,2048] and"
)


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (ValueError("expected 1, got 2"), "expected 1, got 2"),
        (FloatingPointError("expected a finite loss, got NaN"), "expected a finite loss, got NaN"),
        (MemoryError(), "expected the command to fit into memory, got no room for more: buy some"),
        (
            OUT_OF_MEMORY,
            "expected the command to fit into memory, got no room for [512,7,7,2048]: buy some",
        ),
        (
            OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)),
            "expected to write to --there, got [Errno 28] No space left on device: make some",
        ),
    ],
)
def test_an_error_becomes_a_sentence(error, sentence):
    with pytest.raises(SystemExit) as ended, errors_as_sentences("there", "make some", "buy some"):
        raise error
    assert ended.value.code == f"error: {sentence}"  # which Python prints, and ends with 1


def test_an_error_of_files_names_the_value_of_the_flag(monkeypatch):
    values = flags.FlagValues()
    flags.DEFINE_string("there", "", "", flag_values=values)
    values(["", "--there=some/folder"])
    monkeypatch.setattr(flags, "FLAGS", values)
    with pytest.raises(SystemExit) as ended, errors_as_sentences("there"):
        os.mkdir("/proc/no")
    assert ended.value.code.startswith("error: expected to write to 'some/folder', got ")
    assert "'/proc/no': make room" in ended.value.code


@pytest.mark.parametrize(
    ("error", "code"),
    [(KeyboardInterrupt(), INTERRUPTED), (ConnectionError("expected all"), START_AGAIN)],
)
def test_exit_codes_of_what_is_no_wrong_input(error, code, capsys):
    with pytest.raises(SystemExit) as ended, errors_as_sentences():
        raise error
    assert ended.value.code == code == {KeyboardInterrupt: 130, ConnectionError: 75}[type(error)]
    assert capsys.readouterr().err == ("error: expected all\n" if code == 75 else "")


@pytest.mark.parametrize(
    ("error", "advice"),
    [
        (PermissionError(errno.EACCES, "Permission denied", "x"), "change the permissions"),
        (OSError(errno.EROFS, "Read-only file system", "x"), "change the permissions"),
        (OSError("PERMISSION_DENIED: Permission denied; opening x"), "change the permissions"),
        (OSError(errno.ENOSPC, "No space left on device", "x"), "make room"),
        (OSError(errno.EDQUOT, "Disk quota exceeded", "x"), "make room"),
    ],
)
def test_room_is_asked_for_where_it_lacks(error, advice):
    with (
        pytest.raises(SystemExit, match=f"expected to write to .*: {advice}"),
        errors_as_sentences(),
    ):
        raise error


def test_other_errors_keep_their_traceback():
    with pytest.raises(ZeroDivisionError), errors_as_sentences():
        _ = 1 / 0


def test_words_that_are_no_flags():
    only_flags(["program"])
    with pytest.raises(ValueError, match="expected flags only, got 'false': write --flag=value"):
        only_flags(["program", "false", "4"])


def test_a_flag_file_that_is_no_text(tmp_path):
    (tmp_path / "flags").write_bytes(b"\xff\xfe--epochs")
    with pytest.raises(
        SystemExit, match=r"error: expected text in --flagfile, got .*: check the path"
    ):
        parse(["program", f"--flagfile={tmp_path / 'flags'}"])


COMMAND = """
from absl import flags

import pic_tf.files.quiet
from pic_tf.files import command_line


def main():
    if flags.FLAGS.code < 0:
        raise ValueError("expected --code >= 0, got less: give more")
    return flags.FLAGS.code or None


if __name__ == "__main__":
    flags.DEFINE_integer("code", 0, "Exit code.")
    command_line.run(main)
"""


def test_run(tmp_path):
    """In a process of its own, as `python -m command` would."""
    (tmp_path / "command.py").write_text(COMMAND)
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}
    with commands_that_fork() as run:
        for arguments, code, said in [
            ([], 0, ""),
            (["--code=7"], 7, ""),
            (["--code=-1"], 1, "error: expected --code >= 0, got less: give more\n"),
            (["4"], 1, "error: expected flags only, got '4': write --flag=value\n"),
        ]:
            ended = run("command", arguments, environment, 60)
            assert (ended.code, ended.stdout, ended.stderr) == (code, "", said)
        shown = run("command", ["--help"], environment, 60)
        assert "--code: Exit code." in shown.stdout and shown.stderr == ""


@pytest.mark.parametrize(
    "arguments, sentence",
    [
        (["--output=x", "--nonsense=1"], "expected flags as --help explains them, got Unknown "),
        (["--output=x", "--count=x"], "expected flags as --help explains them, got flag --count=x"),
        ([], "expected --output=..., got none: name it"),
    ],
)
def test_errors_of_the_parser_have_the_form_of_all_others(monkeypatch, arguments, sentence):
    values = flags.FlagValues()
    flags.DEFINE_string("output", None, "", required=True, flag_values=values)
    flags.DEFINE_integer("count", 1, "", flag_values=values)
    monkeypatch.setattr(flags, "FLAGS", values)
    with pytest.raises(SystemExit) as ended:
        parse(["command", *arguments])
    assert ended.value.code.startswith(f"error: {sentence}") and "\n" not in ended.value.code


def test_help_is_no_error(monkeypatch, capsys):
    """Of a command that has no text of its own, too."""
    values = flags.FlagValues()
    flags.DEFINE_integer("count", 1, "Number of things.", flag_values=values)
    monkeypatch.setattr(flags, "FLAGS", values)
    for help_text in (None, lambda: "a text"):
        with pytest.raises(SystemExit) as ended:
            parse(["command", "--help"], help_text)
        assert ended.value.code == 0
    assert capsys.readouterr().out.endswith("a text")
