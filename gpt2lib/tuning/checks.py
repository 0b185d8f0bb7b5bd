"""What cannot work in a study, said before anything is trained."""

from __future__ import annotations

import importlib.util

from gpt2lib.config import TrainConfig
from gpt2lib.config.schema import convert
from gpt2lib.tuning.config import Param, StudyConfig
from gpt2lib.tuning.space import EPOCHS, FIELDS, Invalid, distributions, plan
from gpt2lib.utils.errors import UserError, nearest

OURS = ("seed", "eval_every", "save_every", "keep", "keep_best", "sample_tokens", "trackers")
"""Fields that the study itself decides."""

DRAWS = 300
"""Draws of the space that are looked at before anything is trained."""


def check(study: StudyConfig, base: TrainConfig) -> None:
    """Refuse a study that cannot give anything.

    Raises:
        UserError: for an unknown field, two that decide the steps, or a space without a valid run.
    """
    for name in (*study.fixed, *study.space):
        if name not in (*FIELDS, EPOCHS):
            where = "fixed" if name in study.fixed else "space"
            raise UserError(f"{where}: unknown field {name!r}{nearest(name, FIELDS)}")
        if name in OURS:
            raise UserError(f"{name} is what a study decides itself (seeds: how many seeds)")
    for name, param in study.space.items():
        _check_param(study, name, param)
    deciding = [n for n in ("steps", EPOCHS) if n in study.space]
    deciding += [f"budget.{n}" for n, v in study.budget.to_dict().items() if v is not None]
    if len(deciding) > 1:
        raise UserError(f"{' and '.join(deciding)} both decide the steps; keep one of them")
    changing = [n for n in study.space if n.startswith("data.")]
    if changing and study.pruner != "none" and study.prune_on == "train":
        raise UserError(
            f"{changing[0]} changes the text or its tokens, so losses per token do not compare; "
            "prune_on val"
        )
    if study.sampler == "gp" and importlib.util.find_spec("scipy") is None:
        raise UserError("sampler gp needs scipy: pip install scipy")
    _check_draws(study, base)


def _check_param(study: StudyConfig, name: str, param: Param) -> None:
    """Refuse a field of the space that does not hold such values."""
    if name in study.fixed:
        raise UserError(f"{name} is both in fixed and in space")
    if name != EPOCHS and param.share_of is None:
        for value in (param.low, param.high, param.step, *param.choices):
            if value is not None:
                convert(FIELDS[name], value, f"space.{name}")


def _check_draws(study: StudyConfig, base: TrainConfig) -> None:
    """Draw from the space, and refuse it if nothing valid comes."""
    import optuna

    drawn = distributions(study)
    if not drawn:
        raise UserError("space draws nothing: every field in it is tied; give one a range")
    dice = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    for _ in range(DRAWS):
        try:  # the speed and the text are not known here; they can only shorten a run
            plan(study, base, dice.ask(drawn).params, lambda _: 1e9, lambda _: 2**40)
        except Invalid as error:
            reason = str(error)
        else:
            return
    raise UserError(f"none of {DRAWS} draws of the space is a valid run: {reason}")
