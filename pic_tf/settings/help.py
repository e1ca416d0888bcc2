"""Write --help: the flags that a newcomer needs first, then all others by topic."""

import dataclasses
import inspect
import sys

from absl import flags


def help_text(settings: type, values: flags.FlagValues = flags.FLAGS) -> str:
    """Describe a command and every flag of it.

    Args:
      settings: dataclass whose flags the command has. Each dataclass that it is put together from
        is a topic and gives the heading by its docstring; its `FIRST` names the flags that come
        before all others.
      values: the flags, defined.

    Returns:
      The text.
    """
    first = getattr(settings, "FIRST", ())
    topics = [base for base in reversed(settings.__mro__) if inspect.get_annotations(base)]
    own = {flag.name for flag in values.get_key_flags_for_module(sys.argv[0])}
    sections = [("Start with these.", first)] if first else []
    sections += [(topic.__doc__.split("\n")[0], _own_fields(topic, first)) for topic in topics]
    of_settings = {field.name for field in dataclasses.fields(settings)}
    sections.append(("This command.", [*sorted(own - of_settings), "flagfile"]))
    document = (sys.modules["__main__"].__doc__ or "").strip()
    texts = [_section(title, names, values) for title, names in sections if names]
    return "\n\n".join([document, *texts]) + "\n"


def _own_fields(topic: type, without: tuple[str, ...]) -> list[str]:
    names = inspect.get_annotations(topic)
    return [name for name in names if name not in without and not name.isupper()]


def _section(title: str, names: list[str], values: flags.FlagValues) -> str:
    lines = [f"{title.rstrip('.')}:"]
    for name in names:
        if name == "flagfile":
            lines.append(
                flags.text_wrap("--flagfile=FILE: Take the flags in a file.", 100, "      ", "  ")
            )
            continue
        flag = values[name]
        label = f"--[no]{name}" if flag.boolean else f"--{name}"
        text = flag.help
        notes = [f"default: {flag.default_as_str}"] if flag.default is not None else []
        if isinstance(flag, flags.EnumFlag):
            text = text.split(">: ", 1)[1]  # absl puts the words before it
            notes.append(f"one of {', '.join(flag.parser.enum_values)}")
        lines.append(flags.text_wrap(f"{label}: {text}", 100, "      ", "  "))
        if notes:
            lines.append(flags.text_wrap(f"({'; '.join(notes)})", 100, "      "))
    return "\n".join(lines)
