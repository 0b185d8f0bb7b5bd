"""What all configurations share: strict conversion from plain dictionaries, and range checks."""

from __future__ import annotations

import dataclasses
import functools
import math
import re
import types
import typing
from collections.abc import Mapping
from typing import Any, Literal, TypeVar

from gpt2lib.config.aliases import did_you_mean
from gpt2lib.utils.errors import UserError, nearest

C = TypeVar("C", bound="Config")
T = TypeVar("T")
SCIENTIFIC = r"[-+]?\d+(\.\d*)?[eE][-+]?\d+"


class Config:
    """What all configurations share: exact conversion to and from plain dictionaries."""

    def to_dict(self) -> dict[str, Any]:
        """Return nested plain dictionaries and lists, ready for JSON or YAML."""
        return {f.name: _plain(getattr(self, f.name)) for f in dataclasses.fields(self)}  # type: ignore[arg-type]

    @classmethod
    def from_dict(cls: type[C], values: Mapping[str, Any], where: str = "") -> C:
        """Build a configuration from nested dictionaries.

        Args:
            values: field names to values; what is absent keeps its default.
            where: what to call the place in messages ("model." or a file name).

        Raises:
            UserError: for an unknown field (with the one that it probably means) or a wrong type.
        """
        _check_names(cls, values, where, list(all_kinds(cls, where)))
        kinds = kinds_of(cls)
        return cls(**{key: convert(kinds[key], v, f"{where}{key}") for key, v in values.items()})

    def not_default(self, *names: str) -> list[str]:
        """Return those of the fields that differ from their defaults."""
        default = type(self)()
        return [name for name in names if getattr(self, name) != getattr(default, name)]

    def replace(self: C, **changes: Any) -> C:
        """Return a copy with some fields changed, checked anew."""
        return dataclasses.replace(typing.cast(Any, self), **changes)  # type: ignore[no-any-return]


def kinds_of(config: type[Config]) -> dict[str, Any]:
    """Return the annotation of every field; the dictionary is not to be changed."""
    return _kinds_of(typing.cast(Any, config))


@functools.cache  # a study makes thousands of configurations
def _kinds_of(config: Any) -> dict[str, Any]:
    hints = typing.get_type_hints(config)
    return {f.name: hints[f.name] for f in dataclasses.fields(config)}


def is_group(kind: Any) -> bool:
    """Return whether the annotation of a field is a configuration itself."""
    return isinstance(kind, type) and issubclass(kind, Config)


def all_kinds(config: type[Config], prefix: str = "") -> dict[str, Any]:
    """Return the annotations of all fields, those of groups too, by names such as `optim.lr`."""
    found: dict[str, Any] = {}
    for name, kind in kinds_of(config).items():
        found[prefix + name] = kind
        found |= all_kinds(kind, f"{prefix}{name}.") if is_group(kind) else {}
    return found


def _check_names(
    config: type[Config], values: Mapping[str, Any], where: str, valid: list[str]
) -> None:
    """Refuse a field that there is not; the one that is meant may be in another group."""
    kinds = kinds_of(config)
    for key, value in values.items():
        if key not in kinds:
            hint = did_you_mean(f"{where}{key}", valid, where)
            raise UserError(f"unknown field '{where}{key}'{hint}")
        if is_group(kinds[key]) and isinstance(value, Mapping):
            _check_names(kinds[key], value, f"{where}{key}.", valid)


def _plain(value: Any) -> Any:
    if isinstance(value, Config):
        return value.to_dict()
    if isinstance(value, Mapping):
        return {key: _plain(entry) for key, entry in value.items()}
    return [_plain(entry) for entry in value] if isinstance(value, tuple) else value


def convert(kind: Any, value: Any, name: str) -> Any:
    """Check `value` against the annotation `kind`; an int becomes a float where one is wanted."""
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if is_group(kind):
        if not isinstance(value, Mapping):
            raise UserError(f"{name} must be a group of fields, not {value!r}")
        return kind.from_dict(value, f"{name}.")
    if origin in (types.UnionType, typing.Union):
        if value is None and type(None) in args:
            return None
        options = [a for a in args if a is not type(None)]
        for option in options:
            try:
                return convert(option, value, name)
            except UserError as error:
                last = error
        if len(options) == 1:
            raise last
        raise UserError(f"{name} must be {' or '.join(map(_called, options))}, not {value!r}")
    if origin is Literal:
        if value not in args:
            hint = nearest(str(value), map(str, args))
            raise UserError(
                f"{name} must be one of {', '.join(map(str, args))}, not {value!r}{hint}"
            )
        return value
    if origin is dict:
        if not isinstance(value, Mapping):
            raise UserError(f"{name} must be names and values, such as {{a: 1}}, not {value!r}")
        return {
            convert(args[0], k, name): convert(args[1], v, f"{name}.{k}") for k, v in value.items()
        }
    if origin is tuple:  # of any length: (int, ...)
        if not isinstance(value, list | tuple):
            raise UserError(f"{name} must be a list such as [a, b], not {value!r}")
        return tuple(convert(args[0], v, name) for v in value)
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if kind is float and isinstance(value, str) and re.fullmatch(SCIENTIFIC, value):
        return float(value)  # YAML 1.1 takes 3e-4 for text
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise UserError(f"{name} must be of type {kind.__name__}, not {value!r}")
    return value


def _called(kind: Any) -> str:
    """Return what to call a type in a message."""
    if typing.get_origin(kind) is Literal:
        return " or ".join(map(str, typing.get_args(kind)))
    return "a list" if typing.get_origin(kind) is tuple else str(kind.__name__)


def in_range(
    config: Any,
    *names: str,
    least: float = -math.inf,
    most: float = math.inf,
    below: float = math.inf,
) -> None:
    """Refuse numbers outside a range, NaN too; None and text pass.

    Raises:
        UserError: naming the field, its value and what it must be.
    """
    for name in names:
        value = getattr(config, name)
        if not isinstance(value, int | float):
            continue
        if below < math.inf and not least <= value < below:
            raise UserError(f"{name} must be at least {least:g} and below {below:g}, not {value}")
        if not value >= least:  # so written, NaN is refused too
            raise UserError(f"{name} must be at least {least:g}, not {value}")
        if value > most:
            raise UserError(f"{name} must be at most {most:,}, not {value:,}")


def divisors(n: int) -> str:
    """Return the numbers that divide n, for a message."""
    return ", ".join(str(i) for i in range(1, n + 1) if n % i == 0)


def spread(name: str, pattern: tuple[T, ...], n: int, what: str) -> tuple[T, ...]:
    """Stretch a pattern over n layers or heads, in order: (16, 64) over 4 gives (16, 16, 64, 64).

    Raises:
        UserError: if the pattern's length does not divide n.
    """
    if not pattern or n % len(pattern):
        raise UserError(
            f"{name} has {len(pattern)} entries, which do not spread evenly over {n} {what}; "
            f"possible are {divisors(n)}"
        )
    return tuple(entry for entry in pattern for _ in range(n // len(pattern)))


def with_changes(values: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return nested fields with some of them changed, by names such as `optim.lr`."""
    out = dict(values)
    for name, value in changes.items():
        group, dot, rest = name.partition(".")
        if not dot:
            out[name] = value
        elif isinstance(inner := out.get(group, {}), Mapping):  # else `from_dict` refuses it
            out[group] = with_changes(inner, {rest: value})
    return out


def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested fields under dotted names: {"optim": {"lr": 1}} becomes {"optim.lr": 1}."""
    out: dict[str, Any] = {}
    for key, value in values.items():
        nested = isinstance(value, Mapping)
        out |= flat(value, f"{prefix}{key}.") if nested else {prefix + key: value}
    return out
