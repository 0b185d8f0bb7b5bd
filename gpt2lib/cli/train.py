"""`gpt2lib train`."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gpt2lib.cli import minutes
from gpt2lib.cli.terminal import Options, command_line, print_table, scores_table
from gpt2lib.config import TrainConfig, load_config, preset_names
from gpt2lib.utils.errors import UserError, visible
from gpt2lib.utils.files import expand
from gpt2lib.utils.process import rank, world_size

if TYPE_CHECKING:
    from gpt2lib.training.guard import Interrupted

OFTEN = (
    *("steps", "batch_size", "micro_batch", "seed", "precision", "device", "init_from"),
    *("data.source", "data.tokenizer", "data.vocab_size"),
    *("model.n_layer", "model.n_head", "model.n_embd", "model.block_size"),
    *("optim.name", "optim.lr", "optim.warmup_steps"),
)
"""The fields that are changed most."""


@dataclass(frozen=True)
class Train(Options):
    """Train a GPT-2, or go on with a run.

    Everything goes into one folder: metrics, samples, checkpoints, the loss curve and the result.
    Ctrl-C writes a checkpoint first; the same command goes on from it.

    Attributes:
        preset: the name of a preset, or a YAML file.
        out: the run's folder; by default runs/ and the preset's name.
        resume: auto goes on with the run in that folder, never wants a new one, a checkpoint's
            path goes on from there.
        minutes: how long the training may take: a few seconds of measuring say how many steps
            that is, and evaluations, checkpoints and warm-up follow them. In place of --steps.
    """

    usage = (
        "PRESET_OR_YAML [--out DIR] [--minutes N] [--resume auto|never|PATH] [--any.field value]"
    )
    arguments = ("preset",)
    config = TrainConfig
    often = OFTEN
    notes = f"Presets: {', '.join(preset_names())}."

    preset: str = ""
    out: str | None = None
    resume: str = "auto"
    minutes: float | None = None

    def __post_init__(self) -> None:
        if not self.preset:
            names = ", ".join(preset_names())
            raise UserError(f"train needs a preset or a YAML file; presets: {names}")

    @classmethod
    def defaults(cls, words: Sequence[str]) -> TrainConfig:
        """Return the preset's values."""
        return load_config(words[0]) if words else TrainConfig()

    @property
    def folder(self) -> Path:
        """The run's folder."""
        return expand(self.out or f"runs/{Path(self.preset).stem}")


def train(argv: list[str]) -> int:
    """Run `gpt2lib train PRESET_OR_YAML [--out DIR] [--resume ...] [--any.field value]`."""
    options, config = parse(argv)
    minutes.spare_a_busy_machine(config)  # before PyTorch is loaded
    from gpt2lib.training.hardware import prepare_process

    prepare_process()  # before the first tensor
    if options.minutes is not None:
        _, given = Train.read(argv)
        measure, wanted = minutes.update_seconds, options.minutes
        config = minutes.for_minutes(config, wanted, given, options.folder, measure)
    from gpt2lib.runs.plots import write_report
    from gpt2lib.training.guard import Interrupted
    from gpt2lib.training.loop import train as run_training

    try:
        with memory_explained(config):
            result = run_training(config, options.folder, resume=options.resume)
    except Interrupted as stop:
        return stopped(stop, _again(argv, options))
    if rank() == 0:
        write_report(options.folder)
        print_result(result, options.folder)
    return 0


@contextmanager
def memory_explained(config: TrainConfig) -> Iterator[None]:
    """Say in one line what to do where a run needs more memory than there is."""
    try:
        yield
    except RuntimeError as error:
        on_cpu = "can't allocate memory" in str(error)  # there PyTorch has no type for it
        if type(error).__name__ != "OutOfMemoryError" and not on_cpu:
            raise
        raise UserError(_out_of_memory(config)) from error


def stopped(stop: Interrupted, again: str) -> int:
    """Say how far a run came that was asked to stop, and how it goes on; return the exit code."""
    if rank() == 0:
        print(f"gpt2lib: stopped at step {stop.step}; a checkpoint is written", file=sys.stderr)
        print(f"to go on: {again}", file=sys.stderr)
    return 128 + int(stop.signum)


def parse(argv: Sequence[str]) -> tuple[Train, TrainConfig]:
    """Return the command's own options, and the run that is asked for.

    Raises:
        UserError: for whatever is wrong in them.
    """
    options, changes = Train.read(argv)
    return options, load_config(options.preset, changes)


def _again(argv: list[str], options: Train) -> str:
    """Return the command that goes on with the run, to be copied."""
    words, rest = [], iter(argv)
    for word in rest:
        # The run itself remembers where it came from; "never" would refuse to go on.
        if word == "--resume":
            next(rest, None)
        elif not word.startswith("--resume="):
            words.append(word)
    if options.out is None:
        words[:0] = ["--out", str(options.folder)]
    if (processes := world_size()) > 1:
        launch = ["launch", "--multi_gpu", "--num_processes", str(processes), "-m", "gpt2lib"]
        return command_line(*launch, "train", *words, program="accelerate")
    return command_line("train", *words)


def _out_of_memory(config: TrainConfig) -> str:
    size = config.batch_size if config.micro_batch in (None, "auto") else config.micro_batch
    return (
        f"the memory is not enough for micro-batches of {size} sequences of "
        f"{config.model.block_size} tokens; set --micro_batch auto or "
        f"--gradient_checkpointing true"
    )


def _duration(seconds: float) -> str:
    return f"{seconds / 60:.1f} minutes" if seconds >= 60 else f"{seconds:.1f} seconds"


def print_result(result: dict[str, Any], folder: Path) -> None:
    """Print what a run reached, where it lies, and what to do next."""
    if result.get("already_complete"):
        print(f"{folder} is complete already; its result:\n")
    else:
        print(f"\n{folder} is complete:\n")
    rows = scores_table(result) if "loss" in result else {"held-out loss": "no held-out text"}
    rows["training"] = (
        f"{result['steps']:,} steps, {_duration(result['train_seconds'])}, "
        f"{result['tokens_per_second']:,.0f} tokens/s on {result['device']} "
        f"({result['precision']})"
    )
    best = result.get("best")
    if best and best["step"] != result["steps"]:  # the model got worse on text it did not train on
        rows["best"] = f"checkpoints/{best['checkpoint']}, {best['val_loss']:.4f} nats per token"
    if result.get("skipped") or result.get("spikes"):
        rows["guard"] = f"{result['skipped']} updates skipped, {result['spikes']} loss spikes"
    seen = (p for p in folder.iterdir() if not p.name.startswith("."))
    rows["files"] = ", ".join(sorted(p.name + "/" * p.is_dir() for p in seen))
    print_table(rows)
    if sample := result.get("sample"):
        text = visible(sample) if sys.stdout.isatty() else sample
        print("\nA sample:\n\n" + "\n".join(f"  {line}" for line in text.strip().splitlines()))
    print(f'\nNext: {command_line("generate", folder)} --prompt "..."')
