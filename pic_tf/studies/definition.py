"""Read the definition of a study: variants of a recipe, each for several seeds."""

import dataclasses
import pathlib
import re
import sys
from typing import Any

from absl import flags

from pic_tf.evals.belonging import check_protocol
from pic_tf.evals.settings import EvaluationSettings
from pic_tf.files import recipes
from pic_tf.settings import check, flag_files
from pic_tf.settings.config import Config

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

_OWN = ("dataset", "eval_dataset", "output_dir", "seed")  # flags that the study itself gives
_ACCURACIES = ("knn", "linear", "finetune")  # protocols that end with one
_OWN_OF_EVALUATIONS = ("model", "dataset", "eval_dataset", "output_dir", "seed")
_KEYS = {
    "a study": {"title", "flagfile", "flags", "seeds", "evaluations", "reference", "variants"},
    "a variant": {"name", "flagfile", "flags", "paper"},
}


@dataclasses.dataclass(frozen=True)
class Variant:
    """Variant of a recipe.

    Attributes:
      name: in tables and pictures.
      words: its flags, as words of the command line of `pic_tf.train`.
      paper: published figure in percent; None without one.
    """

    name: str
    words: tuple[str, ...]
    paper: float | None

    @property
    def folder(self) -> str:
        """Name of its folder."""
        return re.sub(r"[^\w.=+-]+", "_", self.name).strip("_.")


@dataclasses.dataclass(frozen=True)
class Study:
    """Variants to compare.

    Attributes:
      title: headline of table and picture.
      seeds: of the runs of each variant.
      evaluations: name -> words of the command line of `pic_tf.evaluate`.
      variants: in the order of the table.
      reference: name of the variant to compare the others with; "" for none.
    """

    title: str
    seeds: tuple[int, ...]
    evaluations: dict[str, tuple[str, ...]]
    variants: tuple[Variant, ...]
    reference: str

    @property
    def runs(self) -> list[tuple[Variant, int]]:
        """All (variant, seed), one seed of all variants before the next seed."""
        return [(variant, seed) for seed in self.seeds for variant in self.variants]


def read(path: pathlib.Path) -> Study:
    """Read a study, and check every flag of every variant and evaluation.

        title = "Sliding window"
        flagfile = "configs/cifar10.flags"    # of all variants
        flags = { epochs = 20 }               # of all variants
        seeds = [0, 1, 2]
        reference = "window 2048"             # optional: differences from this variant

        [evaluations]                         # name -> flags of pic_tf.evaluate
        kNN = { protocol = "knn" }

        [[variants]]
        name = "window 2048"
        flags = { window_size = 2048 }
        paper = 67.3                          # optional: published figure, in percent

    A variant may name a `flagfile` of its own instead.

    Args:
      path: a TOML file.

    Returns:
      The study.

    Raises:
      ValueError: for a file that cannot be read, an unknown key or flag, a flag out of its range,
        or two variants of one name.
    """
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ValueError(f"expected a study in TOML at {str(path)!r}, got {error}") from error
    _check_keys(values, "a study")
    seeds, listed = values.get("seeds", [0]), values.get("variants", [])
    whole = isinstance(seeds, list) and all(type(seed) is int and seed >= 0 for seed in seeds)
    if not seeds or not whole or len({*seeds}) < len(seeds):
        raise ValueError(f"expected a list of different whole numbers >= 0 as seeds, got {seeds}")
    if not isinstance(listed, list) or not listed:
        raise ValueError(f"expected [[variants]] in {str(path)!r}, got none: name what to compare")
    variants = tuple(_variant(variant, values, path.parent) for variant in listed)
    _check_names(variants)
    reference, names = values.get("reference", ""), [variant.name for variant in variants]
    if reference and reference not in names:
        raise ValueError(
            f"expected the reference to be one of {', '.join(names)}, got {reference!r}"
        )
    judges = values.get("evaluations", {"kNN": {"protocol": "knn"}})
    if not isinstance(judges, dict) or not judges:
        raise ValueError(f"expected [evaluations] with NAME = {{ flags }}, got {judges!r}")
    evaluations = {name: _words_of_evaluation(name, given) for name, given in judges.items()}
    title = values.get("title", path.stem)
    return Study(title, tuple(seeds), evaluations, variants, reference)


def _check_names(variants: tuple[Variant, ...]) -> None:
    """Refuse variants of one name, or of names that give one folder."""
    of_folder = {}
    for variant in variants:
        other = of_folder.setdefault(variant.folder.lower(), variant)
        if other is not variant:
            raise ValueError(
                "expected variants of names with different letters or digits, got "
                f"{other.name!r} and {variant.name!r}: rename one"
            )


def _variant(values: dict[str, Any], study: dict[str, Any], beside: pathlib.Path) -> Variant:
    if not isinstance(values, dict):
        raise ValueError(f"expected [[variants]] with name = NAME, got {values!r}")
    _check_keys(values, "a variant")
    name, paper = values.get("name"), values.get("paper")
    if not isinstance(name, str) or not Variant(name, (), None).folder:
        raise ValueError(f"expected a name of each variant, got {name!r}")
    if paper is not None and not isinstance(paper, (int, float)):
        raise ValueError(f"expected a number in percent as paper of {name!r}, got {paper!r}")
    flagfile = values.get("flagfile", study.get("flagfile"))
    words = []
    if not isinstance(flagfile, str | None):
        raise ValueError(f"expected a path as flagfile of {name!r}, got {flagfile!r}")
    if flagfile:
        # A path that holds anywhere: the words tell one run from another.
        found = beside / flagfile
        words = [f"--flagfile={found.resolve() if found.exists() else flagfile}"]
    where = f"in variant {name!r}"
    words += _words(study.get("flags", {}), _OWN, "of all variants")
    words += _words(values.get("flags", {}), _OWN, where)
    check.check(parsed(words, Config, where))
    return Variant(name, tuple(words), paper)


def _words_of_evaluation(name: str, given: dict[str, Any]) -> tuple[str, ...]:
    where = f"in evaluation {name!r}"
    words = _words(given, _OWN_OF_EVALUATIONS, where)
    settings = parsed(words, EvaluationSettings, where)
    check.check_ranges(settings)
    check_protocol(settings)
    if settings.protocol not in _ACCURACIES:
        raise ValueError(
            f"expected --protocol of {', '.join(_ACCURACIES)} {where}, got {settings.protocol}: it "
            "has no accuracy to compare, and other images"
        )
    return tuple(words)


def _words(given: Any, own: tuple[str, ...], where: str) -> list[str]:
    """Turn a table of flags into words of a command line."""
    if not isinstance(given, dict):
        raise ValueError(f"expected flags = {{ name = value }} {where}, got {given!r}")
    for name in own:
        if name in given:
            raise ValueError(f"expected no {name} {where}, got {given[name]!r}: the study gives it")
    return [f"--{name}={_word(value)}" for name, value in given.items()]


def _word(value: Any) -> str:
    if isinstance(value, list):
        return ",".join(map(str, value))
    return str(value).lower() if isinstance(value, bool) else str(value)


def parsed(words: list[str], settings: type, where: str) -> Any:
    """Parse words of a command line into settings.

    Args:
      words: --flag=value or --flagfile=FILE.
      settings: `Config` or `EvaluationSettings`.
      where: end of the sentence of an error.

    Returns:
      The settings.

    Raises:
      ValueError: for a flag that is unknown or has no such value.
    """
    values = flags.FlagValues()
    flag_files.define_flags(values, settings)
    try:
        values(["study", *recipes.expand(words)])
        return flag_files.from_flags(values, settings)
    except (flags.Error, ValueError) as error:
        text = str(error).strip().rstrip(".").splitlines()[-1]
        raise ValueError(f"expected flags as --help explains them {where}, got {text}") from error


def _check_keys(values: dict[str, Any], of: str) -> None:
    if unknown := sorted(values.keys() - _KEYS[of]):
        known = ", ".join(sorted(_KEYS[of]))
        raise ValueError(f"expected keys of {of} ({known}), got {unknown[0]!r}")
