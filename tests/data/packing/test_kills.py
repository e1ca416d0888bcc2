"""Packing that is killed or runs out of disk, and what the same command makes of what it leaves."""

import multiprocessing
import os
import pathlib
import resource
import signal
import subprocess
import sys
import time
from concurrent.futures import Executor, Future

import pytest

from pic_tf.data.sources import packed
from tests.data.packing.pictures import SIDE, left_out, records, save, smooth, write_classes
from tests.processes import forking

TOOL = pathlib.Path(__file__).parents[3] / "tools" / "pack.py"
SETTINGS = {"short_side": SIDE, "quality": 95, "images_per_shard": 3}
# What packing does to the disk, where all shards are made before the first is taken in. Each shard
# is flushed and renamed; to take it in, its manifest and the description are flushed and renamed,
# and left_out.csv is renamed.
SHARDS, MADE, TAKEN_IN = 3, 2, 5


def write_source(folder):
    """8 images that are shrunk, in 2 classes; with one bad file among them, three shards of 2, 3
    and 3 images.
    """
    for i in range(8):
        save(folder / f"class{i % 2}" / f"{i}.bmp", smooth(40, 40 + i, i))
    (folder / "class0" / "1.jpg").write_bytes(b"no image")
    return folder


def in_a_fork(function, *arguments):
    """Call one of the functions below in a forked process, and return its exit code."""
    child = forking().Process(target=function, args=arguments)
    child.start()
    child.join(60)
    child.kill()  # where it still runs
    child.join()
    return child.exitcode


class _AtOnce(Executor):
    """Runs what is submitted before it returns, so that every run changes the disk in the same
    order.
    """

    def submit(self, function, *arguments):
        future = Future()
        future.set_result(function(*arguments))
        return future


def _pack(source, output):
    """Without `start_worker`, which would prepare TensorFlow to look at images that are kept:
    there are none here.
    """
    from pic_tf.data.packing import files, pack, shard

    context = multiprocessing.get_context("fork")
    shard._progress = shard.Progress(context.Value("q"), context.Value("q"), context.Event())
    [part] = files.list_files(str(source)).values()
    pack.pack(part, output, **SETTINGS, executor=_AtOnce(), progress=shard._progress)


def pack_until(source, output, event):
    """Pack, and be killed in the place of one of the events that change the disk."""
    calls = iter(range(event))

    def or_die(function):
        def call(*arguments):
            if next(calls, None) is None:
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*arguments)

        return call

    os.replace, os.fsync = or_die(os.replace), or_die(os.fsync)
    _pack(source, output)


def pack_with_little_room(source, output):
    """Pack where no file can grow beyond 70 KB, which is less than a shard; exit code 28 for an
    OSError.
    """
    resource.setrlimit(resource.RLIMIT_FSIZE, (70_000, resource.RLIM_INFINITY))
    try:
        _pack(source, output)
    except OSError:
        sys.exit(28)


def everything(folder):
    """All that a packed data set is, but for how it is cut into shards."""
    source = packed.open_packed(folder)
    labels = None if source.labels is None else source.labels.tolist()
    return list(records(folder).items()), labels, source.class_names, source.fingerprint()


def leftovers(folder):
    known = {pathlib.Path(shard.file).stem for shard in packed.open_packed(folder).shards}
    return [
        path.name
        for path in folder.iterdir()
        if path.stem not in known | {"dataset", "left_out", ".lock"}
    ]


def test_killed_at_every_moment(pack, tmp_path):
    source = write_source(tmp_path / "in")
    pack(source, tmp_path / "whole")
    expected = everything(tmp_path / "whole")
    counts = []
    events = SHARDS * (MADE + TAKEN_IN)
    for event in range(events + 1):
        output = tmp_path / str(event)
        code = in_a_fork(pack_until, source, output, event)
        assert code == (0 if event == events else -signal.SIGKILL), event
        before = everything(output)[0] if packed.is_packed(output) else []
        assert before == expected[0][: len(before)]
        counts.append(len(before))
        pack(source, output)
        assert everything(output) == expected
        assert left_out(output) == {
            "class0/1.jpg": "no image that Pillow can read"
        } and not leftovers(output)
    first = (
        SHARDS * MADE + TAKEN_IN - 1
    )  # the description that names the first shard is renamed before it
    assert counts == [0] * first + [2] * TAKEN_IN + [5] * TAKEN_IN + [8] * 2


def test_a_full_disk_leaves_what_was_packed(pack, tmp_path):
    source, output = write_source(tmp_path / "in"), tmp_path / "out"
    assert in_a_fork(pack_with_little_room, source, output) == 28
    assert not packed.is_packed(output)
    pack(source, output)
    before = everything(output)
    save(source / "class0" / "00.bmp", smooth(50, 50))
    assert in_a_fork(pack_with_little_room, source, output) == 28
    assert everything(output) == before and not leftovers(output)
    pack(source, output)
    assert list(records(output))[8:] == ["class0/00.bmp"]


def start(source, output):
    flags = [
        f"--source={source}",
        f"--output={output}",
        *(f"--{key}={value}" for key, value in SETTINGS.items()),
    ]
    return subprocess.Popen(
        [sys.executable, str(TOOL), *flags, "--workers=2"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def end(process):
    said, progress = process.communicate(timeout=300)
    assert process.returncode == 0, progress[-2000:]
    assert "images|" in progress  # the bar
    return said


@pytest.mark.slow
def test_the_command_goes_on(pack, tmp_path):
    """With processes of its own, after one that was killed."""
    source, output = write_source(tmp_path / "in"), tmp_path / "out"
    in_a_fork(pack_until, source, output, SHARDS * MADE + TAKEN_IN)
    said = end(start(source, output))
    assert said.startswith("packed 6 images in 3 shards, ") and f"{output} holds 8 images" in said
    pack(source, tmp_path / "whole")
    assert everything(output) == everything(tmp_path / "whole") and not leftovers(output)


@pytest.mark.slow
@pytest.mark.parametrize("images", [0, 20, 40])
def test_the_command_killed_with_all_its_processes(pack, tmp_path, images):
    """At different moments: as soon as so many are packed."""
    source, output = write_source(tmp_path / "in"), tmp_path / "out"
    write_classes(source, *[f"class2/{i:02}.png" for i in range(60)])
    process = start(source, output)
    while process.poll() is None and not (
        packed.is_packed(output) and len(packed.open_packed(output)) >= images
    ):
        time.sleep(1e-3)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    before = everything(output)
    assert f"{output} holds 68 images" in end(start(source, output))
    pack(source, tmp_path / "whole")
    after = everything(output)
    assert after == everything(tmp_path / "whole") and not leftovers(output)
    assert len(before[0]) < 68 and after[0][: len(before[0])] == before[0]
