"""Packing without processes of its own, which would take seconds to start."""

import multiprocessing
import pathlib
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.tools.packing import SIDE


@pytest.fixture(scope="module")
def pack_tool():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(pathlib.Path(__file__).parents[2] / "tools")
        import pack

        yield pack


@pytest.fixture
def pack(pack_tool, capsys):
    """A function that packs with threads in place of processes and returns what was printed."""

    def run(source, output, short_side=SIDE, quality=95, images_per_shard=3, label_map=""):
        context = multiprocessing.get_context("spawn")
        progress = pack_tool.Progress(context.Value("q"), context.Value("q"), context.Event())
        with ThreadPoolExecutor(2, initializer=pack_tool.start_worker, initargs=(progress,)) as executor:
            for part, files in pack_tool.open_source(str(source), str(label_map)).items():
                pack_tool.pack(files, output / part, short_side, quality, images_per_shard, executor, progress)
        return capsys.readouterr().out

    return run
