"""A short model made long, in stages: the recipe of Longformer for a causal model.

In each stage the block and the window double and the learning rate halves. The batch halves, so
that an update reads as many tokens as before. The first window is the whole block that the model
was trained with: what a query saw before, it sees again. Learned positions are repeated, RoPE is
interpolated.

Reference: Beltagy et al. 2020, sections 4.2 (stages) and 5 (positions).
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from gpt2lib.config import GPTConfig, TrainConfig, load_config
from gpt2lib.data.sources import found_from
from gpt2lib.hub import load_pretrained, load_tokenizer_for, resolve
from gpt2lib.hub.saving import save_model
from gpt2lib.model.surgery import add_window, extend_context
from gpt2lib.training.loop import train
from gpt2lib.utils.errors import UserError
from gpt2lib.utils.files import MANIFEST, sha256
from gpt2lib.utils.formats import read_json, write_json

logger = logging.getLogger(__name__)


def plan(config: TrainConfig, stages: int, steps: int) -> list[TrainConfig]:
    """Return the configuration of each stage; `init_from` is left to `lengthen`.

    Args:
        config: of the run to start from, with the shape of its model.
        stages: how often block and window double.
        steps: updates in each stage.

    Raises:
        UserError: for less than one stage, or a batch too small to be halved that often.
    """
    if stages < 1:
        raise UserError(f"stages must be at least 1, not {stages}")
    if config.batch_size % 2**stages:
        raise UserError(
            f"batch_size {config.batch_size} cannot be halved {stages} times, so that an update "
            f"keeps its tokens; it must be a multiple of {2**stages}"
        )
    made = []
    for stage in range(1, stages + 1):
        factor = 2**stage
        model = config.model.replace(
            block_size=config.model.block_size * factor, **_window(config.model, factor)
        )
        optim = config.optim.slowed(factor)
        optim = optim.replace(warmup_steps=min(optim.warmup_steps, steps // 10))
        batch_size = config.batch_size // factor
        micro = config.micro_batch  # None and auto stay what they are
        micro = max(1, micro // factor) if isinstance(micro, int) else micro
        made.append(
            config.replace(
                model=model, optim=optim, steps=steps, batch_size=batch_size, micro_batch=micro
            )
        )
    return made


def _window(model: GPTConfig, factor: int) -> dict[str, Any]:
    """Return the window of a stage: the model's own one doubled, or at first its whole block."""
    if isinstance(model.window, tuple):
        return {"window": tuple(window * factor for window in model.window)}
    return {"window": model.window * factor if model.window else model.block_size * factor // 2}


def _check_origin(checkpoint: Path, out: Path) -> None:
    """Note what the stages start from, and refuse stages of another model."""
    now = {"checkpoint": checkpoint.name, "sha256": sha256(checkpoint / MANIFEST)}
    note = out / "origin.json"
    if note.exists() and read_json(note) != now:
        raise UserError(
            f"{out} has stages of another model, or of another checkpoint than {checkpoint}; "
            f"choose another folder"
        )
    out.mkdir(parents=True, exist_ok=True)
    write_json(note, now)


def lengthen(run: str | Path, out: str | Path, stages: int = 2, steps: int = 200) -> Path:
    """Train a model on with longer and longer texts.

    Each stage is a run of its own, `out/stage-1` and so on, beside the weights that it started
    from, `out/start-1`. What is complete is not done again.

    Args:
        run: the run to start from, with its `config.yaml`.
        out: the folder for the stages.
        stages: how often block and window double.
        steps: updates in each stage.

    Returns:
        The last stage's run.

    Raises:
        UserError: if `run` is no run, `out` has stages of another one, or the plan does not work
            out.
    """
    run, out = Path(run), Path(out)
    if not (run / "config.yaml").is_file():
        raise UserError(f"{run} is no run: config.yaml is missing; give the folder of a run")
    config = load_config(str(run / "config.yaml"))
    config = config.replace(data=config.data.replace(source=found_from(run, config.data.source)))
    _check_origin(resolve(run), out)
    tokenizer, source = load_tokenizer_for(run), run
    for i, stage in enumerate(plan(config, stages, steps), start=1):
        start = out / f"start-{i}"
        if not start.exists():
            longer = extend_context(load_pretrained(source), stage.model.block_size)
            longer = add_window(
                longer, stage.model.window, longer.config.dilation, longer.config.global_tokens
            )
            save_model(longer, tokenizer, start)
        source = out / f"stage-{i}"
        logger.info(
            "stage %d: block %d, window %s, lr %g",
            *(i, stage.model.block_size, stage.model.window, stage.optim.lr),
        )
        train(stage.replace(init_from=str(start)), source)
    return source
