"""`gpt2lib finetune`: a trained model, and a text of one's own."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from gpt2lib.cli import minutes
from gpt2lib.cli.terminal import Options, command_line, parse_bytes, print_json, print_table
from gpt2lib.cli.train import memory_explained, stopped
from gpt2lib.cli.verdict import plan_rows, plan_values, verdict_rows
from gpt2lib.config import TrainConfig, load_config
from gpt2lib.config.schema import flat, with_changes
from gpt2lib.utils.errors import UserError
from gpt2lib.utils.files import expand
from gpt2lib.utils.process import world_size

if TYPE_CHECKING:
    from gpt2lib.training.plan import Plan

Method = Literal["auto", "full", "last-k", "lora", "head", "norms"]
SMALLER: tuple[str, ...] = ("full", "lora", "last-k", "norms")
"""From the method that takes the most memory to those that take less."""


@dataclass(frozen=True)
class Finetune(Options):
    """Train a model that is trained already on a text of your own.

    First it is said what will be done and why: how much text there is, the method and the rate,
    from which study they come, the memory and the minutes. Before the first step the held-out loss
    of the model as it is is measured, and at the end both are shown. The run ends when the
    held-out loss falls no more.

    --from is what --init_from of `gpt2lib train` takes, by default gpt2.

    Attributes:
        text: what --data.source of `gpt2lib train` takes: a file, a folder, hf:OWNER/NAME.
        out: the run's folder; by default runs/ and the name of the text.
        resume: as in `train`.
        method: which parameters train; auto is what did best in the study on a text of this size.
        minutes: end within about so many minutes, on this machine.
        fit: take no more memory than this, such as 8GB: auto takes the first of full,
            lora, last-k and norms that fits.
        plan: say what would be done, and do nothing.
        control: train a new model on the same tokens too, to see what the trained one was worth.
        remember: a text that the model knew before; how much of it is lost is measured.
        json: print JSON and nothing else.
    """

    usage = "TEXT [--from MODEL] [--method NAME] [--minutes N] [--fit SIZE] [--plan]"
    arguments = ("text",)
    config = TrainConfig
    often = (
        *("init_from", "steps", "batch_size", "optim.lr", "method.k", "method.rank"),
        *("model.block_size", "data.template", "data.column", "data.val_fraction"),
    )

    text: str
    out: str | None = None
    resume: str = "auto"
    method: Method = "auto"
    minutes: float | None = None
    fit: str | None = None
    plan: bool = False
    control: bool = False
    remember: str | None = None
    json: bool = False

    def __post_init__(self) -> None:
        if self.minutes is not None and not 0 < self.minutes < 1e6:
            raise UserError(f"--minutes must be above 0, not {self.minutes}")

    @property
    def folder(self) -> Path:
        """The run's folder."""
        name = re.sub(r"\W+", "-", Path(self.text).stem).strip("-") or "text"
        return expand(self.out or f"runs/{name}")


def finetune(argv: list[str]) -> int:
    """Run `gpt2lib finetune TEXT [--from MODEL] [--method NAME] [--plan]`."""
    given = [re.sub(r"^--from(?==|$)", "--init_from", word) for word in argv]
    options, changes = Finetune.read(given)
    if "data.source" in changes or "method.name" in changes:
        raise UserError("the text stands by its place, and the method is --method NAME")
    if options.minutes is not None and "steps" in changes:
        raise UserError("--minutes chooses the steps; leave it or --steps out")
    from gpt2lib.training.hardware import prepare_process

    if world_size() > 1:
        raise UserError(
            "finetune plans and judges in one process; `gpt2lib train PRESET --init_from MODEL` "
            "trains in several"
        )
    prepare_process()
    if not options.plan and (options.folder / "requested.yaml").is_file():  # it goes on
        return _run(options, _as_before(options, changes), argv)
    plan, costs = _planned(options, changes)
    if options.plan and options.json:
        print_json({"config": plan.config.to_dict(), **plan_values(plan), **costs})
        return 0
    if not options.json:
        print_table(plan_rows(plan, costs))
    if options.plan:
        return 0
    return _run(options, plan.config, argv)


def _as_before(options: Finetune, changes: dict[str, Any]) -> TrainConfig:
    """Return the settings of the run that lies in the folder: a plan made anew may be another.

    Raises:
        UserError: if another text or method is asked for. What else differs, `train` refuses.
    """
    before = load_config(str(options.folder / "requested.yaml"))
    asked = {"data.source": options.text}
    if options.method != "auto":
        asked["method.name"] = options.method
    earlier = flat(before.to_dict())
    for name, value in asked.items():
        if earlier[name] != value:
            raise UserError(
                f"{options.folder} holds a run with {name} {earlier[name]}, not {value}; choose "
                "another --out"
            )
    return TrainConfig.from_dict(with_changes(before.to_dict(), changes))


def _planned(options: Finetune, changes: dict[str, Any]) -> tuple[Plan, dict[str, Any]]:
    """Return the plan, and what it costs."""
    from gpt2lib.training.finetune import prepared_for
    from gpt2lib.training.plan import base_config

    changes = {"init_from": "gpt2", **changes, "data.source": options.text}
    config = TrainConfig.from_dict(with_changes(base_config().to_dict(), changes))
    source = str(config.init_from)
    data = prepared_for(config, source)
    held_out = 0 if data.val is None else data.val.header.n_tokens
    tokens = data.train.header.n_tokens, held_out, data.train.header.n_scored_bytes
    budget = None if options.fit is None else parse_bytes(options.fit, "--fit")
    names = [options.method] if budget is None or options.method != "auto" else list(SMALLER)
    for name in names:
        plan, costs = _priced(config, source, tokens, name, changes.keys(), options, budget)
        if budget is None or costs["peak"] <= budget:
            return plan, costs
    raise UserError(
        f"--fit {options.fit}: {plan.config.method.name} needs {costs['peak'] / 1e9:.2f} GB in "
        "micro-batches of one sequence; a smaller model or --model.block_size needs less"
    )


def _priced(
    config: TrainConfig,
    source: str,
    tokens: tuple[int, int, int],
    method: str,
    given: Collection[str],
    options: Finetune,
    budget: int | None,
) -> tuple[Plan, dict[str, Any]]:
    """Return the plan for a method, and what it takes."""
    from dataclasses import replace

    from gpt2lib.hub import model_config
    from gpt2lib.training.costs import estimate_run
    from gpt2lib.training.hardware import resolve_device
    from gpt2lib.training.plan import planned

    plan = planned(config, model_config(source), tokens, method, given)
    run = plan.config
    here = {"device": resolve_device(run.device)}  # for the estimate; the run resolves its own
    if budget is not None and "micro_batch" not in given:
        largest = estimate_run(run.replace(**here), budget)["memory"]["largest_micro_batch"]
        run = run.replace(micro_batch=largest or 1)
    peak = estimate_run(run.replace(**here))["bytes"]["peak"]
    seconds = minutes.update_seconds(run, wait=1.0)
    if options.minutes is not None:
        folder, wanted = options.folder, options.minutes
        run = minutes.for_minutes(
            run, wanted, given, folder, lambda _: seconds, before="the plan had"
        )
    held_out = plan.held_out_tokens / (run.batch_size * run.model.block_size)  # in batches
    judged = run.steps / run.eval_every * min(run.eval_batches, held_out)
    return replace(plan, config=run), {
        "peak": peak,
        "seconds_per_update": seconds,
        "minutes": (run.steps + judged / minutes.PASSES) * seconds / 60,
    }


def _run(options: Finetune, config: TrainConfig, argv: list[str]) -> int:
    """Fine-tune, and print what came of it."""
    from gpt2lib.runs.plots import write_report
    from gpt2lib.training.finetune import finetune as run_finetuning
    from gpt2lib.training.guard import Interrupted

    out = options.folder
    resume, remember, control = options.resume, options.remember, options.control
    try:
        with memory_explained(config):
            report = run_finetuning(config, out, resume=resume, remember=remember, control=control)
    except Interrupted as stop:
        return stopped(stop, command_line("finetune", *argv))
    write_report(out)
    if options.json:
        print_json(report)
        return 0
    print(f"\n{out} is complete:\n")
    print_table(verdict_rows(report, out))
    checkpoint = out / "checkpoints" / report["checkpoint"]
    print(f'\nNext: {command_line("generate", checkpoint)} --prompt "..."')
    return 0
