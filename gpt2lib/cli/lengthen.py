"""`gpt2lib lengthen`: a trained model, trained on in stages with longer texts."""

from __future__ import annotations

import sys
from dataclasses import dataclass

from gpt2lib.cli.terminal import Options, command_line
from gpt2lib.utils.files import expand


@dataclass(frozen=True)
class Lengthen(Options):
    """Train a model on with longer and longer texts, as Longformer was.

    In each stage block and window double, and batch and learning rate halve. Each stage is a run
    in a folder of its own.

    Attributes:
        run: the run to start from.
        out: the folder for the stages.
        stages: how often to double.
        steps: updates a stage.
    """

    usage = "RUN --out DIR [--stages N] [--steps N]"
    arguments = ("run",)

    run: str
    out: str
    stages: int = 2
    steps: int = 200


def lengthen(argv: list[str]) -> int:
    """Run `gpt2lib lengthen RUN --out DIR [--stages N] [--steps N]`."""
    options, _ = Lengthen.read(argv)
    from gpt2lib.training.hardware import prepare_process

    prepare_process()  # before the first tensor
    from gpt2lib.training.guard import Interrupted
    from gpt2lib.training.lengthening import lengthen as train_stages

    try:
        run, out = expand(options.run), expand(options.out)
        last = train_stages(run, out, options.stages, options.steps)
    except Interrupted as stop:
        print("gpt2lib: stopped; the same command goes on from there", file=sys.stderr)
        return 128 + int(stop.signum)
    print(f'{last} is the longest. Next: {command_line("generate", last)} --prompt "..."')
    return 0
