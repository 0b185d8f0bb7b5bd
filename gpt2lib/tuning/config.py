"""What a study asks for: a YAML file with the fields of `StudyConfig`."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from gpt2lib.config.schema import Config, in_range
from gpt2lib.utils.errors import UserError
from gpt2lib.utils.formats import read_yaml

Value = bool | int | float | str | tuple[bool | int | float | str, ...] | None
"""What a field of a run may be set to."""


@dataclass(frozen=True)
class Param(Config):
    """How one field of a run varies: over a range, over choices, or tied to other fields.

    Attributes:
        low: the smallest value.
        high: the largest value, included.
        log: whether to draw from the logarithm of the range.
        step: distance between the values; whole fields have steps of 1.
        choices: the values themselves, in place of a range. `[a, b]` is short for this.
        share_of: what is drawn is a share of this field: `{share_of: steps, low: 0, high: 0.2}`.
        tie: arithmetic over other fields, such as `model.n_embd // 32`; nothing is drawn.
    """

    low: int | float | None = None
    high: int | float | None = None
    log: bool = False
    step: int | float | None = None
    choices: tuple[Value, ...] = ()
    share_of: str | None = None
    tie: str | None = None


@dataclass(frozen=True)
class Budget(Config):
    """What one run of a trial may spend; it decides the steps. Without one, the base does.

    Attributes:
        tokens: tokens trained on.
        seconds: time in updates on this machine, from the measured speed of that shape.
    """

    tokens: int | None = None
    seconds: float | None = None

    def __post_init__(self) -> None:
        in_range(self, "tokens", least=1)
        if self.seconds is not None and not 0 < self.seconds < math.inf:
            raise UserError(f"budget.seconds must be above 0, not {self.seconds}")
        if self.tokens is not None and self.seconds is not None:
            raise UserError("budget has tokens and seconds; one of them decides the steps")


@dataclass(frozen=True)
class StudyConfig(Config):
    """A whole study: what to vary for the fewest bits per byte on all held-out text.

    Attributes:
        base: preset or YAML file that every trial begins from.
        space: how fields of the run vary, by dotted name; `epochs` is the passes over the text.
        fixed: fields that differ from the base in every trial.
        budget: what one run may spend.
        trials: trials to finish; those whose parameters do not go together do not count.
        seeds: runs of each trial; its value is their mean.
        confirm: how many of the best trials are repeated at the end with seeds that chose nothing,
            so that which won by luck shows; 0 repeats none.
        confirm_seeds: runs of each of them.
        sampler: tpe, gp (needs scipy) or random, all of Optuna.
        seed: fixes what is drawn: trial n draws with a seed of its own made of this one and n.
        pruner: which of Optuna's ends bad trials early; none lets all of them end. The run of a
            trial's first seed is judged.
        prune_on: what is judged, held-out evaluations or means of the training loss.
        prune_checks: in how many parts a run falls; it is judged after each but the last.
        prune_after: trials that end unjudged before the median judges any.
        workers: processes that run trials side by side.
        threads: of each worker; null shares the cores of the machine out.
        storage: sqlite or journal, a file in the study's folder, or the URL of a database.
        name: of the study in its storage; null is the name of the YAML file.
    """

    base: str
    space: dict[str, Param]
    fixed: dict[str, Value] = field(default_factory=dict)
    budget: Budget = field(default_factory=Budget)
    trials: int = 50
    seeds: int = 1
    confirm: int = 0
    confirm_seeds: int = 3
    sampler: Literal["tpe", "gp", "random"] = "tpe"
    seed: int = 0
    pruner: Literal["none", "median", "halving", "hyperband"] = "none"
    prune_on: Literal["val", "train"] = "val"
    prune_checks: int = 10
    prune_after: int = 5
    workers: int = 1
    threads: int | None = None
    storage: str = "sqlite"
    name: str | None = None

    def __post_init__(self) -> None:
        in_range(self, "trials", "seeds", "confirm_seeds", "workers", "threads", least=1)
        in_range(self, "seed", "confirm", "prune_after", least=0)
        in_range(self, "prune_checks", least=2)
        if not self.space:
            raise UserError("space is empty; name at least one field, such as optim.lr")
        for name, param in self.space.items():
            ends = (param.low is not None, param.high is not None)
            if any(ends) + bool(param.choices) + (param.tie is not None) != 1 or ends[0] != ends[1]:
                raise UserError(
                    f"space.{name} needs low and high, or choices, or a tie: one of the three"
                )


def load_study(path: str | Path) -> StudyConfig:
    """Read a study from a YAML file.

    Raises:
        UserError: if there is none, it is not YAML, or a field is wrong.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"there is no study file {path}")
    values = read_yaml(path)
    if not {"base", "space"} <= values.keys():
        raise UserError(f"{path} must hold a base, such as cpu, and a space of fields")
    if isinstance(values["space"], Mapping):  # a bare list is short for choices
        space = values["space"].items()
        values["space"] = {n: {"choices": v} if isinstance(v, list) else v for n, v in space}
    return StudyConfig.from_dict({"name": path.stem, **values})
