"""What to fine-tune, at which rate and for how long, before anything is spent.

The advice comes from a study that is kept beside this file (`finetune.csv`): a small model that
knows the plays without the histories, fine-tuned on histories by every method, at several rates, on
texts of several sizes, with several seeds. `python benchmarks/studies/finetune.py` runs it.

Of another model's width the best rate is taken to fall as one over the width, as it does for the
first training (Yang et al. 2022, table 3). That step was not studied here, and the plan says so.
So far the study has texts of 10 and 32 KB, and one seed: what it says is a beginning.
"""

from __future__ import annotations

import csv
import math
import statistics
from collections import defaultdict
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from gpt2lib.config import GPTConfig, MethodConfig, OptimConfig, TrainConfig
from gpt2lib.utils.errors import UserError

STUDY = Path(__file__).with_name("finetune.csv")
STUDIED_WIDTH, STUDIED_BATCH = 64, 16
METHODS: dict[str, MethodConfig] = {
    "full": MethodConfig(),
    "last-1": MethodConfig(name="last-k", k=1),
    "last-2": MethodConfig(name="last-k", k=2),
    "lora-4": MethodConfig(name="lora", rank=4, alpha=8.0),
    "lora-16": MethodConfig(name="lora", rank=16, alpha=32.0),
    "head": MethodConfig(name="head"),
    "norms": MethodConfig(name="norms"),
}
"""What the study calls them."""
NAMES = {"last-k": "last-1", "lora": "lora-16"}
"""What is meant by a method's name alone."""

NOISE = 0.02
"""Nats a token by which two methods must differ to be told apart: about what a seed is worth."""

LEAST_STEPS, MOST_STEPS, PASSES = 200, 2000, 10
"""Steps of a plan: about ten passes over the text, and between these."""


class Advice(NamedTuple):
    """What the study says of a method at its best rate, on a text of about this size.

    Attributes:
        method: its name in the study.
        lr: the best rate for the studied width.
        gain: the least and the most that the held-out loss fell, in nats a token, over the seeds.
        forgotten: the same of how much the loss on the old text rose.
        loss: what the held-out loss fell to, the mean over the seeds.
        runs: how many runs that is.
    """

    method: str
    lr: float
    gain: tuple[float, float]
    forgotten: tuple[float, float]
    loss: float
    runs: int


def read_study(path: Path = STUDY) -> list[dict[str, str]]:
    """Return the runs of the study."""
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def advise(rows: list[dict[str, str]], n_bytes: int) -> list[Advice]:
    """Return every method at its best rate on the studied text nearest in size, best first.

    Of those that are as good as the best but for noise, the one that forgets least comes first.

    Args:
        rows: of the study.
        n_bytes: of the text to train on.
    """
    sizes = {int(row["bytes"]) for row in rows}
    size = min(sizes, key=lambda n: abs(math.log(n / max(1, n_bytes))))
    groups: dict[tuple[str, float], list[dict[str, str]]] = defaultdict(list)
    for row in rows:
        if int(row["bytes"]) == size:
            groups[row["method"], float(row["lr"])].append(row)
    best: dict[str, Advice] = {}
    for (method, lr), some in groups.items():
        found = _advice(method, lr, some)
        if method not in best or found.loss < best[method].loss:
            best[method] = found
    lowest = min(one.loss for one in best.values())
    as_good = [one for one in best.values() if one.loss <= lowest + NOISE]
    rest = [one for one in best.values() if one.loss > lowest + NOISE]
    return [
        *sorted(as_good, key=lambda one: one.forgotten[1]),
        *sorted(rest, key=lambda one: one.loss),
    ]


def _advice(method: str, lr: float, rows: list[dict[str, str]]) -> Advice:
    gains = [float(row["before"]) - float(row["after"]) for row in rows]
    forgotten = [float(row["old_after"]) - float(row["old_before"]) for row in rows]
    loss = statistics.fmean(float(row["after"]) for row in rows)
    gain, lost = ((min(values), max(values)) for values in (gains, forgotten))
    return Advice(method, lr, gain, lost, loss, len(rows))


@dataclass(frozen=True)
class Plan:
    """What would be done.

    Attributes:
        config: the run.
        advice: what the study says of it, None of a method or rate that was given and not studied.
        train_tokens: of the text.
        held_out_tokens: of it.
        passes: over the text, if the run does not end before.
    """

    config: TrainConfig
    advice: Advice | None
    train_tokens: int
    held_out_tokens: int

    @property
    def passes(self) -> float:
        """Over the text, if all steps are made."""
        seen = self.config.steps * self.config.batch_size * self.config.model.block_size
        return seen / self.train_tokens


def block_for(train_tokens: int, shape: GPTConfig) -> int:
    """Return the longest context that a text of so many tokens has a few of, and the model knows.

    Raises:
        UserError: for a text that is too short for anything.
    """
    longest = min(shape.block_size, 1 << (max(1, train_tokens // 4).bit_length() - 1))
    if longest < 16:
        raise UserError(
            f"the text has {train_tokens} tokens to train on; some 64 are needed, and a page of "
            "text (500 words) is the least from which a style can be told"
        )
    return longest


def steps_for(train_tokens: int, batch_tokens: int) -> int:
    """Return how many updates make about ten passes, within bounds."""
    wanted = math.ceil(PASSES * train_tokens / batch_tokens)
    return min(MOST_STEPS, max(LEAST_STEPS, wanted))


def planned(
    config: TrainConfig,
    shape: GPTConfig,
    tokens: tuple[int, int, int],
    method: str,
    given: Collection[str],
) -> Plan:
    """Return the plan for a text and a model.

    Args:
        config: what was asked for; what was given in it stays.
        shape: of the model that is fine-tuned.
        tokens: to train on and held out, and the bytes of the text to train on.
        method: auto, or one of `training.methods.METHODS`.
        given: the names of the fields that were given, such as `optim.lr`.

    Raises:
        UserError: for a text that is too short.
    """
    train_tokens, held_out, n_bytes = tokens
    every = advise(read_study(), n_bytes)
    name = every[0].method if method == "auto" else NAMES.get(method, method)
    advice = next(one for one in every if one.method == name)
    changed: dict[str, object] = {}
    block = config.model.block_size
    if "model.block_size" not in given:
        block = block_for(train_tokens, shape)
    changed["model"] = shape.replace(block_size=block, dropout=config.model.dropout)
    own = {n.removeprefix("method.") for n in given if n.startswith("method.")}
    as_given = {n: getattr(config.method, n) for n in own}
    changed["method"] = METHODS[name].replace(**as_given)
    rates = {n.removeprefix("optim.") for n in given if n.startswith("optim.")}
    optim: dict[str, object] = {
        "lr": round_rate(advice.lr * STUDIED_WIDTH / shape.n_embd),
        "warmup_steps": 10,
        "weight_decay": 0.0,
    }
    changed["optim"] = config.optim.replace(**{n: v for n, v in optim.items() if n not in rates})
    steps = steps_for(train_tokens, config.batch_size * block)
    every_steps = max(5, min(100, steps // 10))
    for field, value in (
        ("steps", steps),
        ("eval_every", every_steps),
        ("save_every", every_steps),
        ("patience", 3 if held_out else None),
    ):
        if field not in given:
            changed[field] = value
    studied = not own and "lr" not in rates
    plan = config.replace(**changed)
    return Plan(plan, advice if studied else None, train_tokens, held_out)


def round_rate(lr: float) -> float:
    """Return a rate to two digits: a rate is not known to more."""
    return float(f"{lr:.1e}")


def base_config(**fields: object) -> TrainConfig:
    """Return the settings that a fine-tuning begins from, before it is planned."""
    values: dict[str, object] = {
        "optim": OptimConfig(lr=1e-4, warmup_steps=10),
        "eval_batches": 20,
        "keep": 1,
        "batch_size": STUDIED_BATCH,
    }
    return TrainConfig().replace(**{**values, **fields})
