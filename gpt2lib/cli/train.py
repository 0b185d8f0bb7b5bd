"""`gpt2lib train`."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Any

from gpt2lib.cli.options import Parser, positional, preset_values, train_config
from gpt2lib.cli.output import is_main_process, print_table, scores_table, set_up_logging
from gpt2lib.config import TrainConfig, preset_names
from gpt2lib.utils.errors import UserError
from gpt2lib.utils.process import world_size

DESCRIPTION = """
Train a GPT-2, or go on with a run. Everything goes into one folder: metrics, samples, checkpoints,
the loss curve and the result. Ctrl-C writes a checkpoint first; the same command goes on from it.
"""


def train(argv: list[str]) -> int:
    """Run `gpt2lib train PRESET_OR_YAML [--out DIR] [--resume ...] [--any.field value]`."""
    values = _parse(argv)
    preset, out = values["preset"], values["out"]
    config = train_config(values)
    folder = Path(out or f"runs/{Path(preset).stem}")
    set_up_logging()
    from gpt2lib.training.hardware import prepare_process

    prepare_process()  # before the first tensor
    from gpt2lib.runs.plots import write_report
    from gpt2lib.training.guard import Interrupted
    from gpt2lib.training.loop import train as run_training

    try:
        result = run_training(config, folder, resume=values["resume"])
    except Interrupted as stop:
        if is_main_process():
            print(f"gpt2lib: stopped at step {stop.step}; a checkpoint is written", file=sys.stderr)
            print(f"to go on: {_again(argv, folder)}", file=sys.stderr)
        return 128 + int(stop.signum)
    except RuntimeError as error:
        on_cpu = "can't allocate memory" in str(error)  # there PyTorch has no type for it
        if type(error).__name__ != "OutOfMemoryError" and not on_cpu:
            raise
        raise UserError(_out_of_memory(config)) from error
    if is_main_process():
        write_report(folder)
        print_result(result, folder)
    return 0


def _again(argv: list[str], folder: Path) -> str:
    """Return the command that goes on with the run, to be copied."""
    words = ["gpt2lib", "train"]
    for before, word in zip(["", *argv], argv, strict=False):
        # The run itself remembers where it came from; "never" would refuse to go on.
        if "--resume" not in (before, word) and not word.startswith("--resume="):
            words.append(word)
    named = any(word == "--out" or word.startswith("--out=") for word in argv)
    if (processes := world_size()) > 1:
        launch = ["accelerate", "launch", "--multi_gpu", "--num_processes", str(processes)]
        words[:1] = [*launch, "-m", "gpt2lib"]
    return shlex.join(words if named else [*words, "--out", str(folder)])


def _parse(argv: list[str]) -> dict[str, Any]:
    parser = Parser(
        "train",
        "PRESET_OR_YAML [--out DIR] [--resume auto|never|PATH] [--any.field value]",
        DESCRIPTION,
        TrainConfig,
    )
    names = ", ".join(preset_names())
    parser.add_argument("preset", help=f"a preset ({names}) or a YAML file")
    parser.add_argument(
        "--out", metavar="DIR", help="the run's folder; by default runs/ and the preset's name"
    )
    parser.add_argument(
        "--resume",
        metavar="auto|never|PATH",
        default="auto",
        help="auto goes on with the run in DIR, never wants a new one, "
        "a checkpoint's path goes on from there",
    )
    parser.add_fields()
    defaults = preset_values(argv)
    if defaults is not None:
        parser.set_defaults(defaults)
    elif positional(argv) is None and not {"-h", "--help"} & set(argv):
        raise UserError(f"train needs a preset or a YAML file; presets: {names}")
    return parser.read(argv)


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
        print("\nA sample:\n\n" + "\n".join(f"  {line}" for line in sample.strip().splitlines()))
    print(f'\nNext: gpt2lib generate {folder} --prompt "..."')
