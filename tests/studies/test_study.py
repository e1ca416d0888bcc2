"""Studies run, stopped, killed and shared: every run is taken once."""

import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest

from pic_tf import study as command
from pic_tf.studies import run
from pic_tf.studies.definition import Variant
from tests.studies.test_definition import GOOD

_VARIANTS = ("slow", "fast | twice, Ü")
_HELD_OUT = {"count": 297, "fingerprint": "of digits"}
_METRICS = "step,loss\n10,3.5\n20,2.5\n"


@pytest.fixture
def commands(monkeypatch):
    """Commands that a study starts, in their place: files like those that they leave."""
    started, failing = [], {}

    def instead(words: list[str], folder: pathlib.Path) -> None:
        started.append((words[0], folder.relative_to(folder.parents[1]).as_posix()))
        if error := next((failing[x] for x in (started[-1], *words) if x in failing), None):
            raise error
        if words[0] == "pic_tf.train":
            (folder / "flags.txt").write_text("--num_instances=1500\n--batch_size=64\n--epochs=2\n")
            (folder / "metrics.csv").write_text(_METRICS)
        else:
            (output,) = (word for word in words if word.startswith("--output_dir="))
            results = pathlib.Path(output.removeprefix("--output_dir="))
            results.mkdir(parents=True, exist_ok=True)
            (results / "words.txt").write_text(" ".join(words))
            (results / "knn.json").write_text(json.dumps({"top1": 0.25}))

    monkeypatch.setattr(run, "_command", instead)
    monkeypatch.setattr(command, "check", lambda *_: dict.fromkeys(_VARIANTS, _HELD_OUT))
    return started, failing


def take_part(monkeypatch, tmp_path, shard="1/1", text=GOOD) -> int:
    (tmp_path / "study.toml").write_text(text, encoding="utf-8")

    class Flags:
        study, output_dir = str(tmp_path / "study.toml"), str(tmp_path / "out")
        dataset, eval_dataset, plan_only = "", "", False

    Flags.shard = shard
    monkeypatch.setattr(command, "FLAGS", Flags)
    return command.main()


def test_runs_are_taken_once_and_shards_share_them(commands, monkeypatch, tmp_path, capsys):
    started, _ = commands
    assert take_part(monkeypatch, tmp_path, "2/3") == 0
    assert started == [
        ("pic_tf.train", "fast_twice_Ü/seed-0"),
        ("pic_tf.evaluate", "fast_twice_Ü/seed-0"),
    ]
    assert take_part(monkeypatch, tmp_path) == 0
    trained = [folder for name, folder in started if name == "pic_tf.train"]
    assert trained == ["fast_twice_Ü/seed-0", "slow/seed-0", "slow/seed-3", "fast_twice_Ü/seed-3"]
    assert "| slow | 25.0 ± 0.0 |" in capsys.readouterr().out
    figures = json.loads((tmp_path / "out/slow/seed-3" / run.FIGURES).read_text())
    assert figures["accuracy"] == {"kNN": 25.0} and figures["metrics"]["loss"] == "2.5"
    assert figures["held_out"] == _HELD_OUT
    words = (tmp_path / "out/slow/seed-3/evaluations/kNN/words.txt").read_text()
    assert " --dataset=digits --eval_dataset= --split_folders=auto --protocol=knn " in words
    assert figures["views"] == 23 * 64 * 2  # whole batches of 1,500 images
    before = list(started)
    assert take_part(monkeypatch, tmp_path) == 0 and started == before


def test_an_evaluation_that_is_new_is_made_of_the_runs_that_are_there(
    commands, monkeypatch, tmp_path
):
    started, _ = commands
    assert take_part(monkeypatch, tmp_path, "1/4") == 0
    started.clear()
    more = GOOD.replace("[evaluations]", "[evaluations]\nfew = { protocol = 'finetune' }")
    assert take_part(monkeypatch, tmp_path, "1/4", more) == 0
    assert started == [("pic_tf.evaluate", "slow/seed-0")]
    figures = json.loads((tmp_path / "out/slow/seed-0" / run.FIGURES).read_text())
    assert figures["accuracy"] == {"kNN": 25.0, "few": 25.0} and figures["views"] == 23 * 64 * 2


def test_an_evaluation_whose_flags_have_changed_is_made_again(commands, monkeypatch, tmp_path):
    started, _ = commands
    assert take_part(monkeypatch, tmp_path, "1/4") == 0
    started.clear()
    other = GOOD.replace("knn_k = 5", "knn_k = 9")
    for _ in range(2):
        assert take_part(monkeypatch, tmp_path, "1/4", other) == 0
    assert started == [("pic_tf.evaluate", "slow/seed-0")]
    path = tmp_path / "out/slow/seed-0" / run.FIGURES
    figures = json.loads(path.read_text())
    assert figures["evaluations"] == {"kNN": ["--protocol=knn", "--knn_k=9"]}
    del figures["evaluations"], figures["held_out"]  # as earlier versions wrote them
    path.write_text(json.dumps(figures))
    assert take_part(monkeypatch, tmp_path, "1/4") == 0 and len(started) == 1
    assert "held_out" not in json.loads(path.read_text())  # nobody knows what they were


def test_a_stopped_study_goes_on_and_a_failed_run_keeps_no_other_from_its_turn(
    commands, monkeypatch, tmp_path, capsys
):
    started, failing = commands
    failing["pic_tf.evaluate", "slow/seed-0"] = run.Stopped()
    assert take_part(monkeypatch, tmp_path) == 75
    assert "the same command goes on" in capsys.readouterr().out
    assert len(started) == 2
    failing["pic_tf.evaluate", "slow/seed-0"] = RuntimeError("ended with exit code 1")
    with pytest.raises(ValueError, match="every run to finish, got a failure of slow, seed 0: "):
        take_part(monkeypatch, tmp_path)
    assert "| fast \\| twice, Ü | 25.0 ± 0.0 |" in capsys.readouterr().out
    failing.clear()
    assert take_part(monkeypatch, tmp_path) == 0


def test_a_finished_evaluation_is_kept_where_the_next_one_is_stopped(
    commands, monkeypatch, tmp_path
):
    started, failing = commands
    more = GOOD + "[evaluations.few]\nprotocol = 'finetune'\n"
    failing["--protocol=finetune"] = run.Stopped()
    assert take_part(monkeypatch, tmp_path, "1/4", more) == 75
    assert started == [("pic_tf.train", "slow/seed-0"), *[("pic_tf.evaluate", "slow/seed-0")] * 2]
    started.clear()
    failing.clear()
    assert take_part(monkeypatch, tmp_path, "1/4", more) == 0
    assert started == [("pic_tf.evaluate", "slow/seed-0")]
    assert run.figures_of(tmp_path / "out/slow/seed-0")["accuracy"] == {"kNN": 25.0, "few": 25.0}


@pytest.mark.parametrize("text", ["0/2", "3/2", "1", "a/b", "-1/2", "1/0"])
def test_a_shard_is_a_part_of_n(text):
    with pytest.raises(ValueError, match="expected --shard=i/n with 1 <= i <= n"):
        command.shard(text, 5)


def test_a_signal_reaches_the_command_once(tmp_path, monkeypatch):
    child = tmp_path / "child.py"
    child.write_text(
        "import pathlib, signal, sys, time\n"
        "heard = pathlib.Path('heard')\n"
        "signal.signal(signal.SIGINT, lambda *_: heard.open('a').write('x'))\n"
        "pathlib.Path('ready').touch()\n"
        "while not heard.exists(): time.sleep(0.05)\n"
        "time.sleep(0.5)\n"
        "sys.exit(75)\n"
    )
    monkeypatch.chdir(tmp_path)
    before = signal.getsignal(signal.SIGINT)
    if os.fork() == 0:  # somebody who presses Ctrl-C
        while not (tmp_path / "ready").exists():
            time.sleep(0.05)
        os.kill(os.getppid(), signal.SIGINT)
        os._exit(0)
    with pytest.raises(run.Stopped):
        run._command(["child"], tmp_path)
    assert (tmp_path / "heard").read_text() == "x"
    assert signal.getsignal(signal.SIGINT) is before


@pytest.mark.parametrize(
    "number, error", [("SIGTERM", run.Stopped), ("SIGKILL", RuntimeError)], ids=str
)
def test_a_command_that_is_killed_has_failed_and_one_that_is_asked_has_stopped(
    number, error, tmp_path, monkeypatch
):
    """SIGKILL is what a lack of memory sends: to start again would not help."""
    text = f"import os, signal\nos.kill(os.getpid(), signal.{number})\n"
    (tmp_path / "child.py").write_text(text)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(error):
        run._command(["child"], tmp_path)


@pytest.mark.slow  # two processes of training and evaluation: 60 s
def test_a_killed_study_goes_on_to_the_same_figures(tmp_path):
    (tmp_path / "study.toml").write_text(
        'flagfile = "configs/digits.flags"\nflags = { epochs = 6, checkpoint_every = 1 }\n'
        '[[variants]]\nname = "one"\n'
    )
    words = [sys.executable, "-m", "pic_tf.study", f"--study={tmp_path / 'study.toml'}"]

    def figures(name: str) -> dict:
        return run.figures_of(tmp_path / name / Variant("one", (), None).folder / "seed-0")

    subprocess.run([*words, f"--output_dir={tmp_path / 'whole'}"], check=True)
    killed = subprocess.Popen(
        [*words, f"--output_dir={tmp_path / 'killed'}"], start_new_session=True
    )
    while not list((tmp_path / "killed").glob("one/seed-0/checkpoints/step-*")):
        time.sleep(0.2)
    killed.send_signal(signal.SIGTERM)
    assert killed.wait() == 75 and not figures("killed")
    subprocess.run([*words, f"--output_dir={tmp_path / 'killed'}"], check=True)
    assert figures("killed")["accuracy"] == figures("whole")["accuracy"]
    assert figures("killed")["metrics"]["loss"] == figures("whole")["metrics"]["loss"]
