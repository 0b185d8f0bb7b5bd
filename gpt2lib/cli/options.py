"""Options: made by jsonargparse from the dataclasses, with errors of one line.

A command's parser holds its own arguments and, if asked, one option for every field of a
configuration. A preset's values become the defaults, so that `--help` shows them.
"""

from __future__ import annotations

import re
import typing
from argparse import SUPPRESS
from collections.abc import Collection, Sequence
from typing import Any, NoReturn

from jsonargparse import ArgumentParser

from gpt2lib.config import TrainConfig, load_config
from gpt2lib.config.schema import Config
from gpt2lib.utils.errors import UserError, nearest


class Parser(ArgumentParser):  # type: ignore[misc]  # jsonargparse is not type-checked here
    """A parser of jsonargparse whose errors are `UserError`s of one line.

    Args:
        command: the command's name.
        usage: what follows the name in the line of usage.
        description: what the command does.
        fields: a configuration; each of its fields becomes an option, nested ones as `a.b`.
    """

    def __init__(
        self, command: str, usage: str, description: str, fields: type[Config] | None = None
    ) -> None:
        prog = f"gpt2lib {command}"
        super().__init__(
            prog=prog,
            usage=f"{prog} {usage}",
            description=description,
            allow_abbrev=False,  # an abbreviation would change its meaning with a new field
        )
        self.fields = fields

    def add_fields(self, under: str | None = None, skip: Collection[str] = ()) -> None:
        """Add an option for every field. Called after the command's own arguments are added.

        Args:
            under: what the names begin with; "data" gives `--data.source` and so on.
            skip: fields without an option.
        """
        assert self.fields is not None
        groups = _groups(self.fields)
        self.add_class_arguments(self.fields, under, skip={*groups, *skip})
        for name, kind in groups.items():
            self.add_class_arguments(kind, name)
        for action in self._actions:  # `--data FILE` is jsonargparse's; a YAML file does it all
            if action.option_strings in ([f"--{name}"] for name in (*groups, under)):
                action.help = SUPPRESS

    def read(self, argv: Sequence[str]) -> dict[str, Any]:
        """Parse arguments into nested dictionaries.

        Raises:
            UserError: for an unknown option or a wrong type, in one line.
        """
        return dict(self.parse_args(list(argv)).as_dict())

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Say in one line what is wrong, with the nearest valid name."""
        raise UserError(self._explain(str(message))) from ex

    def _explain(self, message: str) -> str:
        if found := re.search(r"unrecognized arguments: (.*)", message, re.DOTALL):
            unknown = found[1].split()
            options = [name for action in self._actions for name in action.option_strings]
            for word in unknown:
                if word.startswith("-"):
                    name = word.partition("=")[0]
                    hint = nearest(name, options) or f"; see `{self.prog} --help`"
                    return f"unknown option {name}{hint}"
            return f"unexpected argument {unknown[0]!r}; see `{self.prog} --help`"
        if found := re.search(r"arguments are required: (.*)", message):
            needed = [self._shown(name) for name in found[1].split(", ")]
            return f"{self.prog.split()[-1]} needs {' and '.join(needed)}; see `{self.prog} --help`"
        if found := re.search(r"argument (--\S+): expected one argument", message):
            return f"{found[1]} needs a value; one that begins with a dash is written {found[1]}=-1"
        if found := re.search(
            r'Parser key "([\w.]+)":.*(?:value:|load config) (.*)', message, re.S
        ):
            return self._explain_type(found[1], found[2].strip().strip("'\""), message)
        return " ".join(message.split())

    def _shown(self, dest: str) -> str:
        """Return how an argument is written on the command line."""
        action = next(a for a in self._actions if a.dest == dest)
        return str(action.option_strings[0] if action.option_strings else dest.upper())

    def _explain_type(self, key: str, value: str, message: str) -> str:
        """Use the words that the same mistake gets in a YAML file."""
        nested: Any = value
        for part in reversed(key.split(".")):
            nested = {part: nested}
        try:
            if self.fields is not None:
                self.fields.from_dict(nested)
        except UserError as error:
            if not str(error).startswith("unknown field"):
                return f"--{error}"
        kind = re.search(r"<class '(\w+)'>", message)
        return f"--{key} must be of type {kind[1] if kind else 'another'}, not {value!r}"


def _groups(kind: type[Config]) -> dict[str, type[Config]]:
    """Return the fields of a configuration that are configurations themselves."""
    hints = typing.get_type_hints(kind)
    return {n: k for n, k in hints.items() if isinstance(k, type) and issubclass(k, Config)}


def positional(argv: Sequence[str], flags: Collection[str] = ()) -> str | None:
    """Return the first argument that is neither an option nor the value of one.

    It is needed before parsing: the preset it names gives the defaults.

    Args:
        argv: the arguments.
        flags: the options that take no value, beside --help.
    """
    rest = iter(argv)
    for word in rest:
        if not word.startswith("-"):
            return word
        if "=" not in word and word not in ("-h", "--help", *flags):
            next(rest, None)  # its value
    return None


def preset_values(argv: Sequence[str], flags: Collection[str] = ()) -> dict[str, Any] | None:
    """Return all values of the preset or YAML file that the arguments name, if they name one.

    Raises:
        UserError: if there is no such preset or file, or it is wrong.
    """
    name = positional(argv, flags)
    return None if name is None else load_config(name).to_dict()


def train_config(values: dict[str, Any]) -> TrainConfig:
    """Make a `TrainConfig` of the parsed values, leaving the command's own arguments out.

    Raises:
        UserError: if the values do not go together.
    """
    names = typing.get_type_hints(TrainConfig)
    return TrainConfig.from_dict({name: v for name, v in values.items() if name in names})
