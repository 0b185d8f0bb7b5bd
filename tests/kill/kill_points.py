"""Where a run can be killed: each place counts how often it is passed, and kills at the n-th time.

In place of a kill it can be a signal that arrives there, or an error of the disk.

`install` wraps functions of the running process, which is thrown away afterwards: nothing is put
back. A place is named after what the run is doing there, so that a table by place says which
phases of a run were cut. The process kills itself with SIGKILL, which no handler can see and
after which no `finally` runs: the system alone closes its files.
"""

from __future__ import annotations

import errno
import os
import shutil
import signal
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any


class Points:
    """Counts passages, and kills this process at one of them.

    Args:
        place: where to kill; None only counts.
        n: at which passage, from 1.
        what: "kill"; or signals to send to this process, such as "15" or "2 2"; or the name of
            an error of the system to raise, such as "ENOSPC".
    """

    def __init__(self, place: str | None = None, n: int = 0, what: str = "kill") -> None:
        self.place, self.n, self.what = place, n, what
        self.counts: Counter[str] = Counter()

    def due(self, place: str) -> bool:
        """Count a passage; return whether it is the one to die at."""
        self.counts[place] += 1
        return place == self.place and self.counts[place] == self.n

    def passed(self, place: str) -> None:
        """Count a passage, and die if it is the one."""
        if self.due(place):
            self.strike()

    def strike(self) -> None:
        """Do what is to be done at the place."""
        if self.what == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        elif self.what.startswith("E"):
            number = getattr(errno, self.what)
            raise OSError(number, os.strerror(number))
        else:
            for number in map(int, self.what.split()):
                signal.raise_signal(number)  # at once: two that wait would count as one

    def around(self, owner: Any, name: str, place: str | Callable[..., str]) -> None:
        """Make a function a place before it and one after it.

        `place` may be a function of the arguments.
        """
        original = getattr(owner, name)

        def wrapped(*args: Any, **kwargs: Any) -> Any:
            where = place if isinstance(place, str) else place(*args, **kwargs)
            self.passed(f"before {where}")
            out = original(*args, **kwargs)
            self.passed(f"after {where}")
            return out

        setattr(owner, name, wrapped)


def kind(path: Any, *_: Any) -> str:
    """Say what a path of a run is, without its step or process number."""
    path = Path(path)
    if path.parent.name == "checkpoints":
        return (
            f"checkpoint's {path.name.split('.')[2].split('-')[0]} folder"
            if (path.name.startswith("."))
            else "checkpoint"
        )
    if path.name.startswith("."):
        return f"temporary {path.name[1:].partition('.tmp')[0]}"
    return path.name


def install(points: Points) -> None:
    """Make places of everything that a run does."""
    from gpt2lib.model.gpt import GPT
    from gpt2lib.runs import checkpoint, folder, log
    from gpt2lib.training import loop as trainer
    from gpt2lib.training.evaluation import Evaluator
    from gpt2lib.training.state import TrainingState
    from gpt2lib.utils import files as storage

    for name in ("update", "save", "finish"):
        points.around(trainer.Trainer, name, name)
    for name in ("score", "sample"):
        points.around(Evaluator, name, name)
    points.around(TrainingState, "load", "load")
    points.around(checkpoint, "prune", "pruning")
    points.around(folder, "forget_after", "forgetting lines")
    points.around(storage, "flush", lambda path: f"fsync of {kind(path)}")
    for name in ("rename", "replace"):
        points.around(Path, name, lambda p, target: f"rename of {kind(p)} to {kind(target)}")
    points.around(shutil, "rmtree", lambda path, *_, **__: f"removal of {kind(path)}")
    _inside_removal(points)
    _between_micro_batches(points, trainer.Trainer, GPT)
    _torn_tensors(points, checkpoint)
    _torn_text(points)
    _torn_line(points, log)


def _inside_removal(points: Points) -> None:
    """A folder is half deleted: some of its files are gone."""
    original = os.unlink

    def unlink(*args: Any, **kwargs: Any) -> None:
        original(*args, **kwargs)
        if "dir_fd" in kwargs:  # so calls shutil.rmtree, and no other
            points.passed("within a removal")

    os.unlink = unlink  # type: ignore[assignment]


def _between_micro_batches(points: Points, trainer_class: Any, model_class: Any) -> None:
    """An update is half made: some gradients are there, and random numbers are drawn."""
    call = model_class.__call__  # not `forward`, which would be compiled with what is done here

    def counted(self: Any, *args: Any, **kwargs: Any) -> Any:
        if self.training:
            points.passed("before a micro-batch")
        out = call(self, *args, **kwargs)
        points.passed("between forward and backward" if self.training else "within an evaluation")
        return out

    model_class.__call__ = counted


def _torn_tensors(points: Points, checkpoint: Any) -> None:
    original = checkpoint.save_file

    def save_file(tensors: Any, path: Path, **kwargs: Any) -> None:
        original(tensors, path, **kwargs)
        if points.due(f"half of {Path(path).name}"):
            whole = Path(path).read_bytes()
            os.truncate(path, len(whole) // 2)
            points.strike()
            Path(path).write_bytes(whole)  # a signal only was sent

    checkpoint.save_file = save_file


def _torn_text(points: Points) -> None:
    original = Path.write_text

    def write_text(self: Path, data: str, *args: Any, **kwargs: Any) -> int:
        if points.due(f"half of {kind(self)}"):
            original(self, data[: len(data) // 2], *args, **kwargs)
            points.strike()
        return original(self, data, *args, **kwargs)

    Path.write_text = write_text  # type: ignore[method-assign,assignment]


def _torn_line(points: Points, log: Any) -> None:
    original = log.write_line

    def write_line(path: Path, values: dict[str, Any]) -> None:
        due = points.due(f"half of a line of {path.name}")
        if due and points.what in ("kill", "ENOSPC"):
            with path.open("a", encoding="utf-8") as lines:
                lines.write('{"step": ' + str(values["step"])[:1])
        if due and points.what.startswith("E"):
            Path.open = lambda *_, **__: points.strike()  # type: ignore[method-assign]
        elif due:
            points.strike()
        original(path, values)

    log.write_line = write_line


PHASES = {
    "starting": ("requested.yaml", "config.yaml", "forgetting", "load", "origin.json"),
    "completing": ("finish", "result.json"),
    "rotation": ("pruning", "removal", "gone folder"),
    "putting it in place": ("rename of checkpoint", "fsync of checkpoint"),
    "lines of a log": ("half of a line", "metrics.jsonl", "samples.jsonl"),
    "mid-evaluation": ("score", "sample", "within an evaluation"),
    "mid-update": ("update", "micro-batch", "forward and backward"),
    "a random time": ("at random",),
    "sealing a checkpoint": ("fsync of", "manifest.json"),
    "writing a checkpoint": ("half of", "save", "temporary"),
}
"""Phases of a run, and the words by which the places of each are known; the first that fits."""


def phase(place: str) -> str:
    """Say in which phase of a run a place lies."""
    return next(name for name, words in PHASES.items() if any(word in place for word in words))
