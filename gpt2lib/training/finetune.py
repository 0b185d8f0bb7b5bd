"""Fine-tuning from the plan to the verdict: what was learned, and what was forgotten for it.

Before and after are measured on the same bytes, which were held out, by the same tokenizer. A run
from scratch on the same tokens (the control) says what the model that was there already is worth,
and the loss on its old text what the new one has cost.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import torch

from gpt2lib.config import DataConfig, MethodConfig, TrainConfig
from gpt2lib.data import Prepared, TokenFile, masking_eot, prepare
from gpt2lib.hub import load_pretrained, load_tokenizer_for, tokenizer_folder
from gpt2lib.runs.checkpoint import best, checkpoints
from gpt2lib.runs.log import Watch
from gpt2lib.training.evaluation import score
from gpt2lib.training.loop import train
from gpt2lib.utils.formats import write_json

logger = logging.getLogger(__name__)

REPORT = "finetune.json"
LITTLE = 1e-3
"""A change of the loss, in nats a token, that is none."""


def prepared_for(config: TrainConfig, source: str) -> Prepared:
    """Return the text of a fine-tuning, in tokens of the model that it starts from."""
    return prepare(config.data, tokenizer=load_tokenizer_for(source))


def old_text(source: str, remember: str) -> TokenFile:
    """Return the text that is not to be forgotten: what it holds out itself, or else all of it."""
    tokenizer = load_tokenizer_for(source)
    data = prepare(DataConfig(remember), tokenizer=tokenizer, whole=True)
    return data.val or data.train


def loss_of(source: str | Path, config: TrainConfig, tokens: TokenFile) -> float:
    """Return what a model makes of a text, with the context of the run, in nats a token."""
    model = load_pretrained(source, block_size=config.model.block_size)
    eot = masking_eot(config.data, load_tokenizer_for(source))
    return score(model, tokens, config.model.block_size, eot=eot)["loss"]


def finetune(
    config: TrainConfig,
    out: Path,
    *,
    resume: str = "auto",
    remember: str | None = None,
    control: bool = False,
    watch: Watch | None = None,
) -> dict[str, Any]:
    """Fine-tune, and measure before and after.

    Args:
        config: the run, with `init_from`.
        out: its folder.
        resume: as in `train`.
        remember: a source of text that the model knew before.
        control: whether to train a new model of the same shape on the same tokens, too.
        watch: as in `train`.

    Returns:
        `before`, `after`, in nats a token of the held-out text; `step` and `checkpoint` of the
        model that is judged, the best one; `remembered` with `before` and `after` on the old text,
        `control`, the loss of the new model, each only if asked for; `said`, what is odd; and
        `result`, that of `train`. Also written to `finetune.json`.

    Raises:
        UserError: as `train`.
    """
    assert config.init_from is not None
    base = config.init_from
    data = prepared_for(config, base)
    result = train(config, out, resume, watch)
    found = best(out)
    folder = out / "checkpoints" / found.checkpoint if found else checkpoints(out)[-1]
    report: dict[str, Any] = {
        "checkpoint": folder.name,
        "step": found.step if found else result["steps"],
        "method": config.method.name,
    }
    if data.val is not None:
        report |= {
            "before": loss_of(base, config, data.val),
            "after": loss_of(folder, config, data.val),
        }
        report["said"] = what_is_odd(report, config, folder)
    if remember is not None:
        old = old_text(base, remember)
        report["remembered"] = {
            "text": old.name,
            "before": loss_of(base, config, old),
            "after": loss_of(folder, config, old),
        }
    if control and data.val is not None:
        report["control"] = _control(config, out, report["step"], data.val)
    write_json(out / REPORT, report)
    return {**report, "result": result}


def _control(config: TrainConfig, out: Path, steps: int, held_out: TokenFile) -> float:
    """Return the loss of a new model of the same shape after the same tokens."""
    assert config.init_from is not None
    tokenizer = str(tokenizer_folder(config.init_from))
    fresh = config.replace(
        init_from=None,
        method=MethodConfig(),
        data=config.data.replace(tokenizer=tokenizer),
        steps=max(1, steps),
        patience=None,
    )
    folder = out.with_name(f"{out.name}-control")
    train(fresh, folder)
    return loss_of(folder, config, held_out)


def what_is_odd(report: dict[str, Any], config: TrainConfig, folder: Path) -> str | None:
    """Say why nothing changed for the better, if nothing did."""
    before, after = report["before"], report["after"]
    if before - after > LITTLE:
        return None
    moved = moved_by(str(config.init_from), folder)
    if moved < 1e-4:
        return (
            f"nothing changed: the weights moved by {moved:.1e} of their size; optim.lr "
            f"{config.optim.lr:g} is too low, or {config.steps} steps are too few"
        )
    if report["step"] == 0 or after > before + LITTLE:
        return (
            f"the held-out loss rose at once, from {before:.4f} to {after:.4f}: optim.lr "
            f"{config.optim.lr:g} is too high for this model; take a third of it"
        )
    return (
        f"the weights moved by {moved:.1e} of their size, and the held-out loss did not: it may be "
        "text of the kind that the model knows already"
    )


@torch.no_grad()
def moved_by(base: str, tuned: Path) -> float:
    """Return how far the weights moved, as a share of their size (root of the mean square)."""
    old, new = load_pretrained(base), load_pretrained(tuned)
    moved = size = 0.0
    named = dict(new.named_parameters())
    for name, p in old.named_parameters():
        other = named[name][: len(p)]
        moved += float((other - p[: len(other)]).square().sum())
        size += float(p.square().sum())
    return float((moved / size) ** 0.5)
