"""Complete the site: flags and interface from the code, and files from beside docs/.

mkdocs calls the functions of this file by their names (`hooks` in mkdocs.yml).
"""

import ast
import dataclasses
import importlib
import inspect
import pathlib
import re

from mkdocs.structure.files import File, Files

import pic_tf

ROOT = pathlib.Path(__file__).parent.parent
BESIDE = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "CONTRIBUTING.md",
    "CHANGELOG.md": "CHANGELOG.md",
}
SETTINGS = {  # command -> the dataclass of its settings
    "pic_tf.train": "pic_tf.settings.config.Config",
    "pic_tf.evaluate": "pic_tf.evals.settings.EvaluationSettings",
    "pic_tf.embed": "pic_tf.feature_files.settings.EmbedSettings",
    "pic_tf.look.retrieval": "pic_tf.look.settings.RetrievalSettings",
    "pic_tf.look.feature_map": "pic_tf.look.settings.FeatureMapSettings",
    "pic_tf.look.saliency": "pic_tf.look.settings.SaliencySettings",
}


def on_files(files: Files, config) -> Files:
    """Add README, CONTRIBUTING, CHANGELOG and LICENSE, whose links lead to docs/ as well as to
    the site.
    """
    for name, page in BESIDE.items():
        text = (
            (ROOT / name).read_text().replace("](docs/", "](").replace("](README.md", "](index.md")
        )
        files.append(File.generated(config, page, content=text))
    files.append(File.generated(config, "LICENSE", content=(ROOT / "LICENSE").read_text()))
    return files


def on_page_markdown(markdown: str, page, **_) -> str:
    """Append flags and interface, as the code has them, to flags.md and api.md.

    What lies beside docs/ lies in it on the site.
    """
    markdown = markdown.replace("](../CONTRIBUTING.md", "](CONTRIBUTING.md")
    if page.file.src_uri == "flags.md":
        return markdown + flags_page()
    if page.file.src_uri == "api.md":
        return markdown + api_page()
    return markdown


def flags_page() -> str:
    """Write tables of all settings by topic, and the usage of every command."""
    parts = []
    for command, name in SETTINGS.items():
        parts.append(f"\n## Flags of `python -m {command}`\n")
        settings = _named(name)
        for topic in reversed(settings.__mro__):
            if fields := [
                f for f in dataclasses.fields(settings) if f.name in inspect.get_annotations(topic)
            ]:
                title = (
                    ""
                    if topic is settings
                    else f"\n### {topic.__doc__.splitlines()[0].rstrip('.')}\n"
                )
                parts.append(f"{title}\n{table(fields)}")
    parts += [f"\n## `{command}`\n\n```text\n{usage}\n```\n" for command, usage in commands()]
    return "".join(parts)


def table(fields: list[dataclasses.Field]) -> str:
    """Write a table of settings: flag, default, help text."""
    lines = ["| flag | default | |", "|---|---|---|"]
    for field in fields:
        choices = field.metadata["choices"]
        text = field.metadata["help"] + (f" One of {', '.join(choices)}." if choices else "")
        default = "" if field.default is None else f"`{field.default!r}`"
        lines.append(f"| `--{field.name}` | {default} | {_escaped(text)} |")
    return "\n".join(lines) + "\n"


def commands() -> list[tuple[str, str]]:
    """List (command line, usage) of every module whose docstring shows a command."""
    found = []
    for file in (
        file for folder in ("pic_tf", "tools") for file in sorted((ROOT / folder).rglob("*.py"))
    ):
        usage = ast.get_docstring(ast.parse(file.read_text())) or ""
        if re.search(r"^ *python ", usage, re.MULTILINE):
            found.append((_command(file), usage))
    return found


def api_page() -> str:
    """Write a directive of mkdocstrings for every public name."""
    return "".join(f"\n::: {module}.{name}\n" for name, module in pic_tf._PUBLIC.items())


def _command(file: pathlib.Path) -> str:
    path = file.relative_to(ROOT)
    path = path.parent if path.name == "__main__.py" else path
    if path.parts[0] == "tools":
        return f"python {path}"
    return f"python -m {'.'.join(path.with_suffix('').parts)}"


def _named(name: str):
    module, _, attribute = name.rpartition(".")
    return getattr(importlib.import_module(module), attribute)


def _escaped(text: str) -> str:
    return text.replace("|", "\\|").replace("[", "\\[").replace("<", "&lt;").replace("*", "\\*")
