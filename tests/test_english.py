"""Docstrings and help texts are written to be read: sentences that stand alone, and say what is done."""

import ast
import dataclasses
import pathlib

import pytest

from pic_tf.evals.predictions import PredictionSettings
from pic_tf.evals.settings import EvaluationSettings
from pic_tf.feature_files.settings import EmbedSettings
from pic_tf.look.settings import FeatureMapSettings, RetrievalSettings, SaliencySettings
from pic_tf.settings.config import Config

ROOT = pathlib.Path(__file__).parents[1]
FILES = sorted(path for folder in ("pic_tf", "tools") for path in (ROOT / folder).rglob("*.py"))
RELATIVE = ("What", "Which", "Where", "How", "Of", "Who", "Whose")
DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef)


def name_of(path: pathlib.Path) -> str:
    return str(path.relative_to(ROOT))


def first_lines(path: pathlib.Path) -> list[tuple[str, str]]:
    """(first line, the line behind it) of every docstring of a file."""
    nodes = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, DOCUMENTED)]
    texts = [ast.get_docstring(node) for node in nodes]
    return [tuple([*text.split("\n"), ""][:2]) for text in texts if text]


def is_sentence(text: str) -> bool:
    first = text.split()[0].strip("'\"(")
    return first[:1].isupper() and first not in RELATIVE and text.rstrip().endswith((".", "?"))


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_first_lines_of_docstrings_stand_alone(path):
    for line, behind in first_lines(path):
        assert line.split()[0] not in RELATIVE, line
        assert not behind.strip(), f"{line} / {behind}"


@pytest.mark.parametrize(
    "settings",
    [
        Config,
        EvaluationSettings,
        PredictionSettings,
        RetrievalSettings,
        FeatureMapSettings,
        SaliencySettings,
        EmbedSettings,
    ],
)
def test_help_texts_of_settings_are_sentences(settings):
    for field in dataclasses.fields(settings):
        assert is_sentence(field.metadata["help"]), field.name


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_help_texts_of_other_flags_are_sentences(path):
    text = path.read_text()
    for node in ast.walk(ast.parse(text if "flags.DEFINE_" in text else "")):
        if not (isinstance(node, ast.Call) and ast.unparse(node.func).startswith("flags.DEFINE_")):
            continue
        texts = [x.value for x in node.args if isinstance(x, ast.Constant)]
        help_texts = [text for text in texts if isinstance(text, str) and " " in text]
        assert all(map(is_sentence, help_texts)), texts
