"""The benchmark `input` counts and prints what is right, on a clock that the test turns."""

import pathlib
import sys
import types

import pytest

from tools.benchmark import input


def test_a_turn_counts_whole_batches_after_the_set_up(monkeypatch):
    """120 images are 3 batches of 50, of which 2.4 count; the 8 before take 100 s each and do
    not.
    """
    clock = types.SimpleNamespace(cpu=0.0, wall=0.0)
    fake = types.SimpleNamespace(process_time=lambda: clock.cpu, perf_counter=lambda: clock.wall)
    monkeypatch.setattr(input, "time", fake)
    taken = []

    def batches(count):
        for i in range(count):
            clock.cpu += 100 if i < 8 else 3
            clock.wall += 100 if i < 8 else 2
            taken.append(i)
            yield i

    assert input.of_dataset(batches, batch_size=50)(120) == pytest.approx((2.4 * 3, 2.4 * 2))
    assert len(taken) == 11


def test_report_by_hand(capsys):
    """Medians over three rounds of 1000 images: the second of each."""
    timings = {
        "ours, host part": [(9.0, 9.0), (2.0, 4.0), (1.0, 1.0)],
        "ours, host part, packed": [(1.0, 0.5)] * 3,
        "ours, everything on the CPU": [(4.0, 5.0)] * 3,
        "torchvision": [(5.9, 8.0)] * 3,
    }
    input.report(timings, 1000, [(2e6, 1e4), (9e5, 3e4), (1.5e6, 1.9e4)])
    lines = capsys.readouterr().out.splitlines()
    rows = [line.split()[-2:] for line in lines[2:6]]
    assert rows == [["2.00", "250"], ["1.00", "2,000"], ["4.00", "200"], ["5.90", "125"]]
    assert lines[6:] == [
        "torchvision / ours, host part: 2.95, target >= 3: NOT met",
        "torchvision / ours, host part, packed: 5.90, target >= 6: NOT met",
        "torchvision / ours, everything on the CPU: 1.48, target >= 1.1: met",
        "ids of the order: 1,500,000 a second, target >= 1,000,000: met",
        "random records: 19,000 a second, target >= 20,000: NOT met",
    ]


def test_every_target_is_of_variants_that_are_measured():
    """A name that is spelt otherwise in one place would leave its ratio out without a word."""
    tools = pathlib.Path(input.__file__).parent
    texts = "".join((tools / name).read_text() for name in ("input.py", "input_torch.py"))
    for mine, other, _ in input.TARGETS:
        assert f'"{mine}": ' in texts and f'"{other}": ' in texts


@pytest.fixture
def others(tmp_path):
    """A function that speaks with a stand-in for the Python that has the other libraries."""

    def start(script):
        python = tmp_path / "python"
        python.write_text(f"#!{sys.executable} -S\n{script}")
        python.chmod(0o755)
        return input.Others(str(python), tmp_path, tmp_path)

    return start


def test_other_libraries_answer_line_by_line(others):
    other = others(
        "import sys\n"
        "print('versions\\tone\\tand two', flush=True)\n"
        "for line in sys.stdin: print(len(line.split('\\t')[0]), line.split('\\t')[1].strip(), "
        "flush=True)\n"
    )
    assert (other.versions, other.names) == ("versions", ["one", "and two"])
    assert other.turn("and two")(1200) == (7.0, 1200.0)
    other.close()


def test_without_other_libraries_there_are_no_names(others):
    other = others("import no_such_library\n")
    assert other.names == []
    other.close()


def test_other_libraries_that_end_early(others, capsys):
    other = others("print('versions\\tone', flush=True)\ninput()\n")
    with pytest.raises(SystemExit):
        other.turn("one")(10)
    assert capsys.readouterr().err.startswith(
        "error: expected the other libraries to read all images, got an end in"
    )
    other.close()
