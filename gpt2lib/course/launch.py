"""A real training run, controlled from a notebook.

The run is a process of its own, in a session of its own: it survives a closed browser, a
restarted kernel and a stopped cell. Beside the run's folder lie NAME.log (what it says) and
NAME.process.json (its pid and when it started), by which another kernel finds it again.
"""

from __future__ import annotations

import json
import re
import shlex
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gpt2lib.config import TrainConfig
from gpt2lib.config.schema import is_group, kinds_of
from gpt2lib.course.background import WINDOWS, Background
from gpt2lib.course.live import Samples, follow, last_step, progress_line
from gpt2lib.utils.errors import UserError
from gpt2lib.utils.formats import read_json

TRAINING = re.compile(
    r"(-m accelerate\.commands\.launch --multi_gpu --num_processes \d+ )?-m gpt2lib train "
)
"""How the arguments of every process begin that `launch` starts."""


def command(preset: str, out: str | Path, *, processes: int | None = None, **overrides: Any) -> str:
    """Return the shell command that does the same as `launch` with these arguments.

    Args:
        preset: a preset's name or a YAML file.
        out: the run's folder.
        processes: how many; None is one for each GPU, and one where there is none.
        overrides: fields to their values, nested ones as dictionaries: `optim={"lr": 1e-3}`.
    """
    many = _processes(processes)
    start = ["gpt2lib"]
    if many > 1:
        start = ["accelerate", "launch", *_many(many), "-m", "gpt2lib"]
    words = [*start, *_arguments(preset, Path(out), overrides)]
    return subprocess.list2cmdline(words) if WINDOWS else shlex.join(words)


def launch(
    preset: str, out: str | Path, *, processes: int | None = None, **overrides: Any
) -> LiveRun:
    """Start a run as a process of its own, or take hold of it if it is running already.

    A stopped run goes on from its newest checkpoint. A complete one stays as it is.

    Args:
        preset: a preset's name or a YAML file.
        out: the run's folder.
        processes: how many; None is one for each GPU, and one where there is none.
        overrides: fields to their values, nested ones as dictionaries: `optim={"lr": 1e-3}`.

    Raises:
        UserError: if the run is running with other arguments.
    """
    many = _processes(processes)
    accelerate = ["-m", "accelerate.commands.launch", *_many(many)] if many > 1 else []
    arguments = _arguments(preset, Path(out), overrides)
    arguments = [*accelerate, "-m", "gpt2lib", *arguments]
    run = LiveRun(Path(out))
    if run.result is None or run.process.arguments != arguments:  # others are refused, in its log
        run.process.start(arguments)
    return run


def attach(out: str | Path) -> LiveRun:
    """Take hold of a run that was launched before, running or not, by this kernel or another.

    Raises:
        UserError: if no run was launched there.
    """
    run = LiveRun(Path(out))
    if run.process.arguments is None and not (run.out / "requested.yaml").is_file():
        raise UserError(f"no run was launched in {out}; launch(PRESET, {str(out)!r}) starts one")
    return run


class LiveRun:
    """A run, running or not.

    Attributes:
        out: the run's folder.
        process: the process that trains; `process.log` is the file with what it says.
    """

    def __init__(self, out: Path) -> None:
        self.out = out
        beside = out.with_name(f"{out.name}.process.json")
        self.process = Background(beside, out.with_name(f"{out.name}.log"))

    def __repr__(self) -> str:
        return progress_line(self)

    @property
    def running(self) -> bool:
        """Whether the process is alive."""
        return self.process.running

    @property
    def result(self) -> dict[str, Any] | None:
        """What the run reached, once it is complete; until then None."""
        path = self.out / "result.json"
        return read_json(path) if path.is_file() else None

    @property
    def step(self) -> int:
        """Updates made so far."""
        return last_step(self.out)

    @property
    def error(self) -> str | None:
        """The line that says why the process ended early, or None while it runs or if it did not.

        A run that was asked to stop has one; so has a complete one that was launched again with
        other settings.
        """
        if self.running:
            return None
        result = self.out / "result.json"
        if not result.is_file():
            return self.process.last_words()
        completed = result.stat().st_mtime
        return self.process.last_words(refused=True) if self.process.started > completed else None

    def follow(
        self, refresh: float = 1.0, until: int | None = None, figure: str | None = None
    ) -> None:
        """Watch the run in a plot that grows, until it ends or reaches step `until`.

        Interrupting the cell stops the watching, not the run.

        Args:
            refresh: seconds between two looks, at least.
            until: the step to watch up to; None watches to the end.
            figure: name of the figure that stays at the end; by default "training-" and the
                run's name.
        """
        follow(self, refresh, until, figure)

    def samples(self, *steps: int) -> Samples:
        """Return the samples drawn so far, as a table by step.

        Args:
            steps: only those of these steps (of each, the newest sample up to it).
        """
        return Samples.read(self.out, steps)

    def stop(self, timeout: float = 120.0) -> None:
        """Ask the run to write a checkpoint and end, as Ctrl-C does, and wait until it has.

        Args:
            timeout: seconds to wait at most.

        Raises:
            UserError: if it is still running then.
        """
        self.process.interrupt(timeout)

    def resume(self) -> LiveRun:
        """Go on from the newest checkpoint, with the arguments of before.

        Nothing happens if it is running or complete.

        Raises:
            UserError: if it was never launched from a notebook.
        """
        if not self.running and self.result is None:
            if self.process.arguments is None:
                raise UserError(
                    f"{self.out} was not launched from a notebook; launch it with its preset"
                )
            if not TRAINING.match(" ".join(self.process.arguments)):
                raise UserError(
                    f"{self.process.record} names no training of gpt2lib to go on with; launch it "
                    "with its preset"
                )
            self.process.start(self.process.arguments)
        return self


def _processes(processes: int | None) -> int:
    if processes is not None:
        return processes
    import torch

    return max(1, torch.cuda.device_count())


def _many(processes: int) -> list[str]:
    return ["--multi_gpu", "--num_processes", str(processes)]


def _arguments(preset: str, out: Path, overrides: Mapping[str, Any]) -> list[str]:
    words = ["train", preset, "--out", out.as_posix()]
    kinds = kinds_of(TrainConfig)
    for name, value in overrides.items():
        group = is_group(kinds.get(name)) and isinstance(value, Mapping)
        fields = {f"{name}.{key}": v for key, v in value.items()} if group else {name: value}
        for field, given in fields.items():
            text = given if isinstance(given, str) else json.dumps(given)
            words += [f"--{field}={text}"] if text.startswith("--") else [f"--{field}", text]
    return words
