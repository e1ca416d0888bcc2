"""Whole runs with rows on disk: the same as with all of them on the device, bit for bit."""

import dataclasses
import pathlib
import shutil

import numpy as np
import pytest

from pic_tf.files import command_line
from pic_tf.look.instance_rows import open_rows
from pic_tf.runs import checkpoint_files, collect_rows, open_data, run_folder
from pic_tf.serving import of_run
from pic_tf.settings import flag_files
from pic_tf.training import loop
from tests.processes import with_replicas
from tests.short_runs import SMALL, metrics_of, run, shallow, signals_after, variables_of
from tests.test_kills import kill_and_resume

pytestmark = pytest.mark.usefixtures("shallow_networks", "empty_exports")

START = "from-step-000000000000"
WINDOW, STRIDE = (
    256,
    128,
)  # 4 steps a window; a sweep over 1500 images is over after 47 of the 92 steps
SETTINGS = dataclasses.replace(
    SMALL,
    epochs=4,
    knn_every=0,
    tensorboard=False,
    window_size=WINDOW,
    window_stride=STRIDE,
    num_negatives=64,
    mixup_probability=0.5,
)


@pytest.fixture(scope="module")
def on_device(tmp_path_factory):
    """The settings and the last state of a run with all rows on the device."""
    settings = dataclasses.replace(SETTINGS, output_dir=str(tmp_path_factory.mktemp("device")))
    assert run(settings).finished
    return settings, variables_of(settings.output_dir)


def assert_same(output_dir, expected, visited_before=False):
    """The newest state of a run is the expected one; of its rows, those that are in it."""
    got = variables_of(output_dir)
    part = got.pop("instance_ids", slice(None))
    assert got.pop("pager/visited_before", visited_before) == visited_before
    got.pop("pager/writers", None)
    assert got.keys() == expected.keys()
    for name, value in expected.items():
        if name in ("weights", "momentum", "stamp"):
            value = value[part]
        if name == "weights" and not got["stamp"].all():
            # First weights are drawn anew for each checkpoint, and the last bit of a vector's
            # logarithms and cosines depends on where in it a number is.
            new = got["stamp"] == 0
            np.testing.assert_allclose(got[name][new], value[new], rtol=1e-6)
            value = np.where(new[:, None], got[name], value)
        np.testing.assert_array_equal(got[name], value, err_msg=name)


@pytest.mark.parametrize(
    "parts",
    [
        [("device", 1, 30), ("disk", 3, 92)],
        pytest.param(
            [("device", 1, 10), ("device", 1, 30), ("disk", 1, 47), ("disk", 3, 92)],
            marks=pytest.mark.slow,
        ),
    ],
    ids=len,
)
def test_interrupted_and_resumed_elsewhere(on_device, tmp_path, monkeypatch, parts):
    """Within a window, at its last step, and at last several steps at once, from which a window
    begins unnoticed.
    """
    settings, expected = on_device
    settings = dataclasses.replace(settings, output_dir=str(tmp_path))
    signals_after(monkeypatch, *(step for *_, step in parts[:-1]))
    for store, together, step in parts:
        assert (
            run(
                dataclasses.replace(settings, instance_store=store, steps_per_execution=together)
            ).step
            == step
        )
    assert_same(tmp_path, expected)
    assert metrics_of(tmp_path) == metrics_of(on_device[0].output_dir)
    assert of_run.export_run(str(tmp_path), str(tmp_path / "again")) == 92


def as_of_an_old_run(path):
    """Make a checkpoint with all rows one of a run whose rows were in host memory."""
    flags = path / run_folder.FLAGS_FILE
    flags.write_text(flags.read_text().replace("--instance_store=device", "--instance_store=host"))
    names = sorted(file.name for file in path.iterdir() if file.name != checkpoint_files.SUMS)
    sums = "".join(f"{checkpoint_files.sha256_of(path / name)}  {name}\n" for name in names)
    (path / checkpoint_files.SUMS).write_text(sums)


@pytest.mark.slow
def test_a_run_that_had_its_rows_in_host_memory_goes_on_with_them_on_disk(
    on_device, tmp_path, monkeypatch, capsys
):
    settings = dataclasses.replace(on_device[0], output_dir=str(tmp_path))
    signals_after(monkeypatch, 30)
    assert not run(settings).finished
    found, _ = checkpoint_files.newest(tmp_path / "checkpoints")
    as_of_an_old_run(found)
    assert (
        checkpoint_files.damage(found) is None
        and "--instance_store=host" in (found / "flags.txt").read_text()
    )
    again = flag_files.from_flagfile(str(found / "flags.txt"))
    assert again == dataclasses.replace(open_data.open_data(settings)[0], instance_store="disk")
    capsys.readouterr()
    assert run(again).finished
    blocks = tmp_path / "rows" / "from-step-000000000030" / "replica-00000-of-00001"
    assert f"\nmoving 768 rows to {blocks}\n" in capsys.readouterr().out
    assert_same(tmp_path, on_device[1])


def test_rows_in_host_memory_are_named_as_a_folder_there():
    with pytest.raises(
        SystemExit,
        match=r"^error: .* got --instance_store=host: .* use --instance_store=disk with a",
    ):
        command_line.parse(["train", "--instance_store=host"])


def test_blocks_that_no_state_needs_are_deleted(on_device, tmp_path):
    settings = dataclasses.replace(
        on_device[0], checkpoint_every=1, instance_store="disk", output_dir=str(tmp_path)
    )
    assert run(settings).finished
    assert_same(tmp_path, on_device[1])
    # When the last state was written, of step 92, those of 46 and 69 were there.
    first = ((46 // 4 + 1) * STRIDE + WINDOW - 1500) // STRIDE
    names = sorted(
        path.name for path in (tmp_path / "rows" / START / "replica-00000-of-00001").iterdir()
    )
    assert first > 1 and names == [
        f"block-{number:012d}.npz" for number in range(first, 92 // 4 - 1)
    ]


def test_out_of_the_blocks_into_one_checkpoint(on_device, stopped_on_disk, tmp_path):
    collect_rows.collect(stopped_on_disk.output_dir, str(tmp_path / "new"))
    there = {path.name for path in (tmp_path / "new").iterdir()}
    assert there == {"checkpoints", "flags.txt", ".lock"}
    assert run(
        dataclasses.replace(
            stopped_on_disk, instance_store="device", output_dir=str(tmp_path / "new")
        )
    ).finished
    assert_same(tmp_path / "new", on_device[1])
    with pytest.raises(
        ValueError, match=r"^expected a new folder as --output, got '.*new', in which something is"
    ):
        collect_rows.collect(stopped_on_disk.output_dir, str(tmp_path / "new"))
    with pytest.raises(
        ValueError,
        match=r"^expected a run with --instance_store=disk and a checkpoint at '.*', got none",
    ):
        collect_rows.collect(on_device[0].output_dir, str(tmp_path / "other"))
    rows = pathlib.Path(stopped_on_disk.output_dir) / "rows"
    shutil.rmtree(rows)
    with pytest.raises(
        ValueError,
        match=(
            r"^expected the blocks that step 85 needs, of all replicas, in .*, got 8 too few, such "
            r"as number 12 in"
        ),
    ):
        collect_rows.collect(stopped_on_disk.output_dir, str(tmp_path / "other"), str(rows))


@pytest.fixture(scope="module")
def stopped_once(on_device, tmp_path_factory):
    """Settings of a run with rows on disk that was stopped; its folder stays as it is."""
    settings = dataclasses.replace(
        on_device[0],
        instance_store="disk",
        output_dir=str(tmp_path_factory.mktemp("stopped") / "run"),
    )
    with pytest.MonkeyPatch.context() as patch:
        signals_after(patch, 85)
        assert not run(settings).finished
    return settings


@pytest.fixture
def stopped_on_disk(stopped_once, tmp_path):
    """The same in a folder of the test's own."""
    shutil.copytree(stopped_once.output_dir, tmp_path / "run")
    return dataclasses.replace(stopped_once, output_dir=str(tmp_path / "run"))


def test_a_state_without_its_blocks_is_one_sentence(stopped_on_disk):
    folder = pathlib.Path(stopped_on_disk.output_dir)
    with pytest.raises(
        ValueError,
        match=r"\(its other rows are on disk: tools/collect_rows.py leads back\): use another",
    ):
        run(dataclasses.replace(stopped_on_disk, instance_store="device"))
    with pytest.raises(
        ValueError,
        match=r"^expected rows of all images in '.*', got those .* --instance_store=disk",
    ):
        open_rows(str(folder))
    last = max((folder / "rows").rglob("*.npz"))
    last.unlink()
    number = int(last.stem.removeprefix("block-"))
    sentence = (
        r"^expected 1 more blocks of rows, the first of them number {}, .* in "
        r"'.*rows/from-step-0+/replica-00000-of-00001': bring"
    )
    with pytest.raises(ValueError, match=sentence.format(number)):
        run(stopped_on_disk)
    with pytest.raises(
        ValueError,
        match=(
            r"^expected \d+ more blocks of rows, .* in "
            r"'.*elsewhere/run-[0-9a-f]{12}/from-step-0+/replica-"
        ),
    ):
        run(dataclasses.replace(stopped_on_disk, rows_dir=str(folder.parent / "elsewhere")))


@pytest.mark.parametrize(
    "change", [{"seed": 1}, {"batch_size": 32}, {"window_stride": 64}], ids=str
)
def test_rows_of_other_windows_are_refused(stopped_on_disk, change):
    before = sorted(pathlib.Path(stopped_on_disk.output_dir).rglob("*.npz"))
    with pytest.raises(
        ValueError,
        match=r"\(its rows are those of other windows than 1 replicas and these flags have: to",
    ):
        run(dataclasses.replace(stopped_on_disk, **change), allow_changed_flags=True)
    assert sorted(pathlib.Path(stopped_on_disk.output_dir).rglob("*.npz")) == before


@pytest.mark.slow
def test_another_order_of_visits_from_any_step(tmp_path, monkeypatch):
    """Rows that were trained under another order before the new one comes to them are kept,
    through restarts too.
    """
    first = dataclasses.replace(SETTINGS, output_dir=str(tmp_path / "first"))
    signals_after(monkeypatch, 10, 11, 30, 49, 69)  # counted over all runs
    assert run(first).step == 10
    disk = dataclasses.replace(
        SETTINGS, seed=1, instance_store="disk", output_dir=str(tmp_path / "first")
    )
    assert run(disk, allow_changed_flags=True).step == 11
    # From here on all rows on the device are the reference: the ring has none that the new windows
    # do not need.
    device = dataclasses.replace(disk, instance_store="device", output_dir=str(tmp_path / "device"))
    collect_rows.collect(disk.output_dir, device.output_dir)
    assert run(device).step == 30 and run(disk).step == 30
    at_30 = variables_of(device.output_dir)
    assert_same(disk.output_dir, at_30, visited_before=True)
    shutil.copytree(disk.output_dir, tmp_path / "copy")
    assert run(disk).step == 50
    monkeypatch.undo()
    assert run(device).finished and run(disk).finished
    assert_same(disk.output_dir, variables_of(device.output_dir), visited_before=True)

    collect_rows.collect(
        str(tmp_path / "copy"), str(tmp_path / "collected"), str(tmp_path / "copy" / "rows")
    )
    assert_same(tmp_path / "collected", at_30)
    negative = sorted((tmp_path / "copy").rglob("block--*.npz"))
    assert len(negative) > 3
    negative[0].unlink()
    number = int(negative[0].stem.removeprefix("block-"))
    with pytest.raises(
        ValueError,
        match=f"^expected 1 more blocks of rows, the first of them number {number}, that",
    ):
        run(dataclasses.replace(disk, output_dir=str(tmp_path / "copy")))


@pytest.mark.slow
def test_two_runs_share_a_rows_dir_and_a_damaged_state_is_passed_over(
    on_device, tmp_path, monkeypatch
):
    settings, expected = on_device
    mine, other = (
        dataclasses.replace(
            settings,
            instance_store="disk",
            rows_dir=str(tmp_path / "rows"),
            output_dir=str(tmp_path / name),
            seed=seed,
        )
        for name, seed in (("mine", settings.seed), ("other", 5))
    )
    signals_after(monkeypatch, 80)
    assert run(mine).step == 80
    monkeypatch.undo()
    assert run(other).finished
    newest, _ = checkpoint_files.newest(tmp_path / "mine" / "checkpoints")
    (newest / "variables.npz").write_bytes(b"damaged")
    assert run(mine).finished  # from step 46, before which the blocks of step 80 do not matter
    assert_same(tmp_path / "mine", expected)


@pytest.mark.parametrize(
    "store, files", [("disk", "3 checkpoints and the rows"), ("device", "3 checkpoints")]
)
def test_a_disk_without_room_is_found_before_it_is_full(
    on_device, tmp_path, monkeypatch, store, files
):
    settings = dataclasses.replace(on_device[0], instance_store=store, output_dir=str(tmp_path))
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=100_000))
    with pytest.raises(ValueError, match=rf"^expected .* free in '.*' for {files}, got 100 KB"):
        run(settings)


@pytest.mark.parametrize(
    "change, sentence",
    [
        ({"num_negatives": 0}, "expected --instance_store=device with all images in the soft-max"),
        ({"window_size": 1216}, "expected at least 1,600 instances for rows on disk"),
        (
            {"steps_per_execution": 5},
            "expected --steps_per_execution of at most the 4 steps of a window",
        ),
        (
            {"keep_checkpoint_every": 4},
            "expected --keep_checkpoint_every=0 with --instance_store=disk, got 4",
        ),
    ],
    ids=str,
)
def test_settings_that_do_not_fit(change, sentence):
    settings = dataclasses.replace(SETTINGS, instance_store="disk", **change)
    with pytest.raises(ValueError, match=sentence):
        open_data.open_data(settings)


@pytest.mark.slow
def test_killed_twenty_times(tmp_path):
    """With SIGKILL, at any moment and while a checkpoint is written."""
    flags = ("--epochs=8", "--width=4", "--hidden_dim=32", "--knn_every=0", "--checkpoint_every=1")
    flags, modules = (*flags, "--instance_store=disk"), ("pic_tf.train",)
    kill_and_resume(tmp_path, flags, 20, seed=2, longest=15.0, modules=modules, least=90)


def stop_after(strategy, settings, steps):
    """Train for some steps more, or to the end, on all replicas."""
    with pytest.MonkeyPatch.context() as patch:
        shallow(patch)
        signals_after(patch, *([steps] if steps else []))
        return loop.run(
            *open_data.open_data(settings, strategy.num_replicas_in_sync), strategy
        ).step


@pytest.mark.slow
def test_another_number_of_replicas_goes_on_with_the_same_blocks(tmp_path):
    """One, two, then one replica again, within windows: rows on disk and on the devices are the
    same, and so is a checkpoint that is brought together from the blocks of both."""
    for store in ("device", "disk"):
        settings = dataclasses.replace(
            SETTINGS, virtual_shards=8, instance_store=store, output_dir=str(tmp_path / store)
        )
        for count, steps, step in ((1, 30, 30), (2, 31, 61), (1, 20, 81), (2, None, 92)):
            assert with_replicas(count, stop_after, settings, steps) == step
            if step == 81:
                shutil.copytree(tmp_path / store, tmp_path / f"{store}-81")
    assert_same(tmp_path / "disk", variables_of(tmp_path / "device"))
    assert metrics_of(tmp_path / "disk") == metrics_of(tmp_path / "device")
    folders = {path.parent for path in (tmp_path / "disk-81" / "rows").rglob("*.npz")}
    assert {f"{path.parent.name[-2:]}/{path.name[-14:]}" for path in folders} == {
        "00/00000-of-00001", "30/00000-of-00002", "30/00001-of-00002", "61/00000-of-00001"
    }  # fmt: skip

    collect_rows.collect(
        str(tmp_path / "disk-81"), str(tmp_path / "collected"), str(tmp_path / "disk-81" / "rows")
    )
    assert_same(tmp_path / "collected", variables_of(tmp_path / "device-81"))
