"""The help of a command: what it takes, what that means, and what holds where it is not given."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import json
import re
import shutil
import textwrap
import types
import typing
from collections.abc import Callable, Collection, Iterator
from typing import Any, ClassVar, Literal

from gpt2lib.config.schema import Config, is_group, kinds_of

MANY = tuple[str, ...]


class Described(Config):
    """What a command takes, and what its help says beside the docstring.

    A field that is true or false is a flag; one of many texts may be given several times.

    Attributes:
        usage: what follows the command's name in the line of usage.
        arguments: the fields that are given by their position.
        config: a configuration, each of whose fields is an option too.
        under: what the names of these begin with; "data." makes them `--data.source` and so on.
        skip: fields of it without an option.
        often: those that a short help shows; where there are none, the help is always whole.
        notes: what the help ends with.
    """

    usage: ClassVar[str]
    arguments: ClassVar[tuple[str, ...]] = ()
    config: ClassVar[type[Config] | None] = None
    under: ClassVar[str] = ""
    skip: ClassVar[tuple[str, ...]] = ()
    often: ClassVar[tuple[str, ...]] = ()
    notes: ClassVar[str] = ""


def help_text(
    options: type[Described],
    command: str,
    taken: Collection[str],
    config: Config | None,
    whole: bool,
) -> str:
    """Return what `--help` prints; argparse lays it out.

    Args:
        options: what the command takes.
        command: how it is called.
        taken: the options that there are, such as `--optim.lr`.
        config: the configuration's values where they are not given.
        whole: whether every field of it is listed, or those that are changed most.
    """
    import argparse

    width = min(100, shutil.get_terminal_size().columns)
    page = argparse.ArgumentParser(
        prog=command,
        usage=f"%(prog)s {options.usage}",
        description=_summary(options),
        formatter_class=functools.partial(
            argparse.HelpFormatter, max_help_position=26, width=width
        ),
    )
    meanings, kinds = _meanings(options), kinds_of(options)
    for field in dataclasses.fields(typing.cast(Any, options)):
        name, meaning = field.name, meanings[field.name]
        if name in options.arguments:
            page.add_argument(name, metavar=name.upper(), help=meaning)
        elif kinds[name] is bool:
            page.add_argument(f"--{name}", action="store_true", help=meaning)
        else:
            default = "" if field.default is None else _default(field.default)
            _add(page.add_argument, name, kinds[name], meaning + default)
    rows = [] if config is None else list(_rows(config, options.under))
    rows = [row for row in rows if f"--{row[1]}" in taken]
    if options.often and not whole:
        title = f"changed most; `{command} --help all` lists all {len(rows)} fields"
        rows = [(title, *row) for _, *row in rows if row[0] in options.often]
    groups = {title: page.add_argument_group(title) for title in dict.fromkeys(r[0] for r in rows)}
    for title, *row in rows:
        _add(groups[title].add_argument, *row)
    notes = textwrap.fill(options.notes, width, break_on_hyphens=False)  # names stay whole
    return f"{page.format_help()}\n{notes}".rstrip()


def _rows(config: Config, under: str) -> Iterator[tuple[str, str, Any, str]]:
    """Yield the title, name, annotation and meaning of every field; groups come last."""
    kinds, meanings = kinds_of(type(config)), _meanings(type(config))
    title = _summary(type(config)).partition("\n")[0].rstrip(".")
    for name in sorted(kinds, key=lambda name: is_group(kinds[name])):
        value = getattr(config, name)
        if isinstance(value, Config):
            yield from _rows(value, f"{under}{name}.")
        else:
            yield title, under + name, kinds[name], meanings[name] + _default(value)


def _add(add_argument: Callable[..., Any], name: str, kind: Any, meaning: str) -> None:
    """Add an option to the page or to a section of it."""
    typed = "TEXT" if kind == MANY else _shown(kind).removesuffix("|null")
    add_argument(f"--{name}", metavar=typed, help=meaning.replace("%", "%%"))


def _default(value: Any) -> str:
    """Say what holds where an option is not given, as it would be typed."""
    if value is dataclasses.MISSING:
        return " (required)"
    plain = isinstance(value, str) and value.isprintable() and value
    return f" (default: {value if plain else json.dumps(value)})"


def _meanings(config: type[Config]) -> dict[str, str]:
    """Return what the docstrings of a class and its bases say of every attribute."""
    found: dict[str, str] = {}
    for base in reversed(config.__mro__):
        text = inspect.cleandoc(base.__doc__ or "").partition("Attributes:\n")[2]
        for entry in re.finditer(r"^    (\w+): (.*(?:\n {8}.*)*)", text, re.MULTILINE):
            found[entry[1]] = " ".join(entry[2].split()).rstrip(".")
    return found


def _summary(config: type[Config]) -> str:
    """Return what the docstring says before it comes to attributes."""
    return inspect.cleandoc(config.__doc__ or "").partition("\n\nAttributes:")[0]


def _shown(kind: Any) -> str:
    """Return what may be typed for an annotation."""
    origin, among = typing.get_origin(kind), typing.get_args(kind)
    if origin in (types.UnionType, typing.Union):
        return "|".join(map(_shown, among))
    if origin is Literal:
        return "|".join(map(str, among))
    if origin is tuple:
        return f"[{_shown(among[0])},...]"
    if origin is dict:
        return "{name: value,...}"
    return {str: "TEXT", int: "N", float: "X", bool: "true|false"}.get(kind, "null")
