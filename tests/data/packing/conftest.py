"""Packing without processes of its own, which would take seconds to start."""

import multiprocessing
from concurrent.futures import ThreadPoolExecutor

import pytest

from pic_tf.data.packing import files, shard
from pic_tf.data.packing import pack as packing
from pic_tf.data.sources.pixel_format import RGB
from tests.data.packing.pictures import SIDE


@pytest.fixture
def pack():
    """A function that packs with threads in place of processes and returns what the command
    would print.
    """

    def run(
        source, output, short_side=SIDE, quality=95, images_per_shard=3, label_map="", pixels=RGB
    ):
        context = multiprocessing.get_context("spawn")
        progress = shard.Progress(context.Value("q"), context.Value("q"), context.Event())
        with ThreadPoolExecutor(
            2, initializer=shard.start_worker, initargs=(progress,)
        ) as executor:
            return "\n".join(
                str(
                    packing.pack(
                        part,
                        output / name,
                        short_side,
                        quality,
                        images_per_shard,
                        executor,
                        progress,
                        pixels,
                    )
                )
                for name, part in files.list_files(str(source), str(label_map)).items()
            )

    return run
