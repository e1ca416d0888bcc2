"""The tutorial runs from its first cell to its last, and is committed as it ran."""

import json
import os
import re
import sys

import pytest

from tests.docs.documents import ROOT

TUTORIAL = ROOT / "docs/tutorial.ipynb"


def outputs(notebook: dict) -> str:
    """All text that the cells printed."""
    cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    return "".join("".join(output.get("text", "")) for cell in cells for output in cell["outputs"])


def accuracies(text: str) -> tuple[float, float]:
    """Top-1 of the pretrained network and of the one from scratch."""
    return float(re.search(r"pretrained +top-1 ([\d.]+)", text)[1]), float(
        re.search(r"scratch +top-1 ([\d.]+)", text)[1]
    )


def test_it_is_committed_as_it_ran():
    notebook = json.loads(TUTORIAL.read_text())
    numbers = [cell["execution_count"] for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert numbers == list(range(1, len(numbers) + 1))
    pretrained, scratch = accuracies(outputs(notebook))
    assert pretrained > scratch
    assert TUTORIAL.stat().st_size < 1_000_000
    assert not re.search(
        r"/(root|home|tmp|work|usr)/", outputs(notebook)
    )  # no paths of the machine it ran on


@pytest.mark.slow
def test_it_runs(tmp_path):
    nbformat = pytest.importorskip("nbformat")
    nbclient = pytest.importorskip("nbclient")
    notebook = nbformat.read(TUTORIAL, as_version=4)
    environment = {"PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])}
    client = nbclient.NotebookClient(
        notebook, timeout=900, resources={"metadata": {"path": str(tmp_path)}}
    )
    client.execute(env={**os.environ, **environment})
    pretrained, scratch = accuracies(outputs(notebook))
    assert pretrained > scratch + 0.05
