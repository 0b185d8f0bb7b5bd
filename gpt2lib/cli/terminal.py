"""What a command reads from the command line, and what it prints.

Its options are the fields of a dataclass, and those of a configuration if it takes one. A field's
annotation says what is taken, its default what holds otherwise, and its line in the docstring what
it means. What is typed is checked as the same field of a YAML file would be.
"""

from __future__ import annotations

import dataclasses
import os
import re
import shlex
import shutil
import subprocess
import sys
import typing
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from gpt2lib.cli.help import MANY, Described, help_text
from gpt2lib.config.aliases import did_you_mean
from gpt2lib.config.schema import Config, all_kinds, convert, is_group, kinds_of
from gpt2lib.utils.errors import UserError
from gpt2lib.utils.formats import parse_yaml, to_json

HELP = ("-h", "--help")
Typed = list[tuple[str, str | None]]


class Options(Described):
    """What a command takes: a dataclass of its name."""

    @classmethod
    def read(cls, argv: Sequence[str]) -> tuple[Self, dict[str, Any]]:
        """Return the command's own options, and the fields of the configuration that were given.

        Args:
            argv: the arguments, without the command's name.

        Returns:
            The options, and a dictionary of names such as `optim.lr` to their values.

        Raises:
            UserError: for an option that there is not, or a value that is missing or wrong.
            SystemExit: after the help, if that was asked for.
        """
        own, options = kinds_of(cls), cls.kinds()
        words, typed = _split(argv, [f"--{name}" for name, kind in own.items() if kind is bool])
        if asked := [text for option, text in typed if option in HELP]:
            config, whole = cls.defaults(words), asked[0] == "all"
            print(help_text(cls, cls.command(), options, config, whole))
            raise SystemExit(0)
        given: dict[str, Any] = {}
        changes: dict[str, Any] = {}
        for option, text in typed:
            if option not in options:
                raise UserError(f"unknown option {option}{cls._instead(option)}")
            name, kind = option.removeprefix("--"), options[option]
            value = _value_of(text, kind, option)
            values = given if name in own else changes
            if is_group(kind):  # its fields together: --optim "{lr: 1e-3}"
                changes |= {f"{name}.{field}": entry for field, entry in value.items()}
            else:
                values[name] = (*values.get(name, ()), value) if kind == MANY else value
        given |= cls._by_position(words)
        cls._check_needed(given)
        return cls.from_dict(given), changes

    @classmethod
    def kinds(cls) -> dict[str, Any]:
        """Return every option, such as `--optim.lr`, and the annotation of its field."""
        fields = {} if cls.config is None else all_kinds(cls.config, cls.under)
        names = {n: k for n, k in fields.items() if n.removeprefix(cls.under) not in cls.skip}
        names |= {n: k for n, k in kinds_of(cls).items() if n not in cls.arguments}
        return {f"--{name}": kind for name, kind in names.items()}

    @classmethod
    def defaults(cls, words: Sequence[str]) -> Config | None:
        """Return the configuration as it is without options, given what stands by its position."""
        return None if cls.config is None else cls.config()

    @classmethod
    def command(cls) -> str:
        """Return the command that these are the options of."""
        return f"gpt2lib {cls.__name__.lower()}"

    @classmethod
    def _by_position(cls, words: list[str]) -> dict[str, Any]:
        """Give words to the arguments, the last of which may take many."""
        given: dict[str, Any] = {}
        for name in cls.arguments:
            if words and kinds_of(cls)[name] == MANY:
                given[name], words = tuple(words), []
            elif words:
                given[name], *words = words
        if words:
            dashed = words[0].startswith("-")
            where = "options stand before --" if dashed else f"see `{cls.command()} --help`"
            raise UserError(f"unexpected argument {words[0]!r}; {where}")
        return given

    @classmethod
    def _instead(cls, option: str) -> str:
        """Say what was probably meant by an option that there is not."""
        if Path(option).exists():
            return f"; the file of that name is written ./{option}"
        return did_you_mean(option, cls.kinds()) or f"; see `{cls.command()} --help`"

    @classmethod
    def _check_needed(cls, given: Mapping[str, Any]) -> None:
        """Name what is missing."""
        needed = [
            field.name.upper() if field.name in cls.arguments else f"--{field.name}"
            for field in dataclasses.fields(typing.cast(Any, cls))
            if field.name not in given and field.default is dataclasses.MISSING
        ]
        if needed:
            name = cls.__name__.lower()
            raise UserError(f"{name} needs {' and '.join(needed)}; see `{cls.command()} --help`")

    def check_at_least_one(self, name: str) -> None:
        """Refuse a number below 1; None passes."""
        value = getattr(self, name)
        if value is not None and value < 1:
            raise UserError(f"--{name} must be at least 1, not {value}")


def _split(argv: Sequence[str], flags: Collection[str]) -> tuple[list[str], Typed]:
    """Tell what stands by its position from options and their values, None where one is missing."""
    words: list[str] = []
    typed: Typed = []
    rest = list(argv)
    while rest:
        word = rest.pop(0)
        option, equals, value = word.partition("=")
        if word == "--":
            return words + rest, typed
        if not word.startswith("-") or word == "-":
            words.append(word)
        elif equals:
            typed.append((option, value))
        elif option in flags:
            typed.append((option, "true"))
        elif option in HELP:
            typed.append((option, rest.pop(0) if rest[:1] == ["all"] else ""))
        else:  # -1 and -file.txt are values, --name is the next option
            follows = bool(rest) and not rest[0].startswith("--") and rest[0] not in HELP
            typed.append((option, rest.pop(0) if follows else None))
    return words, typed


def _value_of(text: str | None, kind: Any, option: str) -> Any:
    """Return what a text stands for: itself where text is wanted, and else what YAML reads in it.

    Raises:
        UserError: if it is missing, or the annotation `kind` does not allow it.
    """
    import yaml

    if text is None:
        raise UserError(
            f"{option} needs a value; one that begins with -- is written {option}=--..."
        )
    if kind in (str, MANY) or (kind == str | None and text != "null"):
        return text
    try:
        value = parse_yaml(text)
    except yaml.YAMLError:
        value = text
    except UserError as error:
        raise UserError(f"{option} {error}") from error
    try:
        converted = convert(kind, value, option)
    except UserError:
        if not isinstance(value, list | dict):
            return convert(kind, text, option)  # if it is refused as well, it is as it was typed
        raise
    return value if is_group(kind) else converted


def command_line(*words: str | Path, program: str = "gpt2lib") -> str:
    """Return a command that runs as it is typed here: quoted, and found where it is installed.

    Args:
        words: what follows the program.
        program: one that is installed beside this Python, whether or not the shell finds it.
    """
    beside, here = Path(sys.executable).with_name(program), Path.cwd()
    if shutil.which(program) is None and beside.exists():  # an environment that is not active
        program = str(beside.relative_to(here) if beside.is_relative_to(here) else beside)
    quoted = subprocess.list2cmdline if os.name == "nt" else shlex.join
    return quoted([program, *map(str, words)])


def parse_bytes(text: str, option: str = "--memory") -> int:
    """Read a size such as 24GB, 512MB or 1.5e9.

    Args:
        text: the size.
        option: where it was given.

    Raises:
        UserError: if it is none.
    """
    found = re.fullmatch(r"([0-9.]+(?:e[0-9]+)?)\s*([kmgt]?)(i?)b?", text.strip().lower())
    try:
        number = float(found[1]) if found else 0.0
    except ValueError:
        number = 0.0
    if found is None or not 0 < number < 1e18:
        raise UserError(f"{option} must be a size such as 24GB or 512MB, not {text!r}")
    if not found[2] and number < 1e6:
        raise UserError(f"{option} {text} would be {text} bytes; give a unit, such as {text}GB")
    return int(number * (1024 if found[3] else 1000) ** " kmgt".index(found[2] or " "))


def print_json(values: Any) -> None:
    """Print values as JSON on stdout."""
    print(to_json(values, indent=1, ensure_ascii=False))


def print_table(rows: Mapping[str, str]) -> None:
    """Print names and values in two columns."""
    width = max(map(len, rows))
    for name, value in rows.items():
        print(f"{name:<{width}}  {value}")


def scores_table(scores: Mapping[str, Any]) -> dict[str, str]:
    """Return a table's rows for what an evaluation returned."""
    perplexity, alone = scores["perplexity"], scores.get("bits_per_byte_without_ends")
    return {
        "held-out loss": f"{scores['loss']:.4f} nats per token",
        "perplexity": "infinite" if perplexity is None else f"{perplexity:,.2f}",
        "bits per byte": f"{scores['bits_per_byte']:.4f}"
        + (f" ({alone:.4f} without what the ends of documents cost)" if alone else ""),
        "tokens scored": f"{scores['tokens']:,}",
    }


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Put cells into columns: the first to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for first, *rest in rows:
        cells = [first.ljust(widths[0])]
        cells += [cell.rjust(width) for cell, width in zip(rest, widths[1:], strict=True)]
        lines.append("  ".join(cells))
    return lines
