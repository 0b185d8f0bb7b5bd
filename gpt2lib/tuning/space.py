"""From what was drawn to a run: which fields vary, how, and whether they go together."""

from __future__ import annotations

import functools
import json
import math
import operator
from collections.abc import Callable, Mapping
from types import UnionType
from typing import TYPE_CHECKING, Any, get_args

from gpt2lib.config import TrainConfig
from gpt2lib.config.schema import all_kinds, is_group, with_changes
from gpt2lib.tuning.config import Param, StudyConfig, Value
from gpt2lib.tuning.ties import evaluate
from gpt2lib.utils.errors import UserError, nearest

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

EPOCHS = "epochs"
"""The one name of a space that is no field of a run: passes over the text, which decide steps."""

FIELDS = {name: kind for name, kind in all_kinds(TrainConfig).items() if not is_group(kind)}
"""Every field of a run by its dotted name, with its type."""


class Invalid(UserError):
    """Values that were drawn, and that do not go together."""


def settings(
    study: StudyConfig, base: TrainConfig, params: Mapping[str, Any], steps: int | None = None
) -> TrainConfig:
    """Return the run of a trial, before or after its steps are known.

    Args:
        study: whose space and fixed fields count.
        base: what the fields are changed of.
        params: what was drawn, by name.
        steps: the length of the run; None leaves that of the base, or what is drawn for it.

    Raises:
        Invalid: if the values do not go together.
    """
    fixed = study.fixed if steps is None else {**study.fixed, "steps": steps}
    values = with_changes(base.to_dict(), fixed)
    made: dict[str, Any] = {}
    waiting: list[str] = []

    def look_up(name: str) -> Any:
        if name not in (*FIELDS, *study.space):
            raise UserError(f"unknown field {name!r}{nearest(name, FIELDS)}")
        if name not in study.space:
            return at(values, name)
        if name in waiting:
            raise UserError(f"ties go in a circle: {' → '.join([*waiting, name])}")
        if name not in made:
            waiting.append(name)
            made[name] = _value(study.space[name], name, params, look_up)
            waiting.pop()
        return made[name]

    try:
        drawn = {name: look_up(name) for name in study.space if name != EPOCHS}
        return TrainConfig.from_dict(with_changes(values, drawn))
    except UserError as error:
        raise Invalid(str(error)) from error


def at(values: Mapping[str, Any], name: str) -> Any:
    """Return what stands under a dotted name in nested values."""
    return functools.reduce(operator.getitem, name.split("."), values)


def _value(
    param: Param, name: str, params: Mapping[str, Any], look_up: Callable[[str], Any]
) -> Value:
    """Return the value of one field: drawn, a share of another, or computed."""
    value = params.get(name)
    if param.choices:
        value = next(choice for choice in param.choices if label(choice) == value)
    if param.tie is not None:
        value = evaluate(param.tie, look_up)
    if param.share_of is not None:
        value = evaluate(f"{value!r} * {param.share_of}", look_up)
    return round(value) if isinstance(value, float) and is_whole(name) else value


def plan(
    study: StudyConfig,
    base: TrainConfig,
    params: Mapping[str, Any],
    speed: Callable[[TrainConfig], float],
    text: Callable[[TrainConfig], int],
) -> TrainConfig:
    """Return the run of a trial with its steps, as the budget or the epochs decide them.

    Args:
        study, base, params: as of `settings`.
        speed: tokens a second of a run of that shape, measured.
        text: tokens of the training text of a run.

    Raises:
        Invalid: if the values do not go together, or the budget is less than one step.
    """
    config = settings(study, base, params)
    budget, per_step = study.budget, config.batch_size * config.model.block_size
    if budget.tokens is not None:
        tokens, what = float(budget.tokens), f"budget of {budget.tokens:,} tokens"
    elif budget.seconds is not None:
        tokens = budget.seconds * speed(config)
        what = f"budget of {budget.seconds:g} seconds, here {tokens:,.0f} tokens,"
    elif EPOCHS in study.space:
        tokens = params[EPOCHS] * text(config)
        what = f"share of {params[EPOCHS]:g} epochs, {tokens:,.0f} tokens,"
    else:
        return config
    if tokens < per_step:
        raise Invalid(
            f"the {what} is less than one step of {config.batch_size} × {config.model.block_size} "
            f"= {per_step:,} tokens"
        )
    planned = settings(study, base, params, steps=int(tokens / per_step))
    if (planned.batch_size, planned.model) != (config.batch_size, config.model):
        raise Invalid("ties go in a circle: the steps decide the shape, which decides the steps")
    return planned


def is_whole(name: str) -> bool:
    """Whether a field holds whole numbers."""
    kind = FIELDS.get(name, float)
    options = get_args(kind) if isinstance(kind, UnionType) else (kind,)
    return int in options and float not in options


def distributions(study: StudyConfig) -> dict[str, BaseDistribution]:
    """Return what Optuna draws from, for every name that is not computed.

    Raises:
        UserError: for a range that is empty, or that Optuna has something else against.
    """
    drawn: dict[str, BaseDistribution] = {}
    for name, param in study.space.items():
        try:
            if param.tie is None:
                drawn[name] = _distribution(name, param)
        except (ValueError, OverflowError) as error:
            raise UserError(f"space.{name}: {error}") from error
    return drawn


def _distribution(name: str, param: Param) -> BaseDistribution:
    from optuna import distributions as of

    if param.low is None or param.high is None:
        return of.CategoricalDistribution([label(choice) for choice in param.choices])
    if not math.isfinite(param.high - param.low):
        raise ValueError(f"the range from {param.low} to {param.high} is not finite")
    if is_whole(name) and param.share_of is None:
        return of.IntDistribution(int(param.low), int(param.high), param.log, int(param.step or 1))
    return of.FloatDistribution(param.low, param.high, param.log, param.step)


def label(choice: Value) -> Any:
    """Return a choice as a storage keeps it: lists as JSON."""
    return json.dumps(choice) if isinstance(choice, tuple) else choice
