"""The folder of a run: what lies in it, in which state it is, and who may write there.

runs/NAME/
  requested.yaml    what was asked for
  config.yaml       the same with every "auto" resolved
  origin.json       the checkpoint of another run that this one went on from, if any
  metrics.jsonl     a line for each update and each evaluation
  samples.jsonl     a line for each sample
  trackers.json     by which name each tracker knows the run, if it has any
  checkpoints/      step-00000500/ and so on
  non_finite/       the batches of updates that stopped the run, if any did
  result.json       written when the run is complete
  loss.png          drawn by the command line
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from gpt2lib.config import TrainConfig
from gpt2lib.runs.checkpoint import prune
from gpt2lib.runs.resume import (
    checkpoint_to_continue,
    named_checkpoint,
    refuse_changes,
    settings,
)
from gpt2lib.utils.errors import UserError
from gpt2lib.utils.files import clear_leftovers, file_lock, write_text, writing
from gpt2lib.utils.formats import read_json, read_jsonl, to_json, write_json
from gpt2lib.utils.process import rank

REQUESTED, RESOLVED, ORIGIN, RESULT = "requested.yaml", "config.yaml", "origin.json", "result.json"
LOGS = ("metrics.jsonl", "samples.jsonl")
OURS = (REQUESTED, RESOLVED, ORIGIN, "trackers.json", RESULT, *LOGS)
"""Files of a run that are written in one move."""

State = Literal["new", "refused", "begun", "complete"]
"""What a folder is to a run: empty or not there; its run was refused before the first update, and
the settings may still be mended; its run has trained; its run has its result."""


def state_of(folder: Path) -> State:
    """Say in which state a run's folder is.

    Raises:
        UserError: if other files lie in it.
    """
    # Hidden files aside: another process may be writing one.
    there = {p.name for p in folder.iterdir() if p.name[0] != "."} if folder.is_dir() else set()
    names = there - {ORIGIN}
    if REQUESTED in names and names - {REQUESTED, RESOLVED}:
        return "complete" if RESULT in names else "begun"
    if REQUESTED in names and _are_settings(folder / REQUESTED):
        return "refused"
    if names or (folder.exists() and not folder.is_dir()):
        raise UserError(f"{folder} exists and is not a run; choose another --out")
    return "new"


def _are_settings(path: Path) -> bool:
    """Whether a file holds settings of a run, and not something of the user's."""
    try:
        return bool(TrainConfig.from_dict(settings(path)))
    except UserError:
        return False


@dataclass(frozen=True)
class Run:
    """One run's folder, opened.

    Attributes:
        folder: where it lies.
        state: what was found there when it was opened.
        checkpoint: what to resume from, verified; None starts afresh.
    """

    folder: Path
    state: State = "new"
    checkpoint: Path | None = None

    @property
    def result(self) -> dict[str, Any]:
        """The result of a complete run."""
        return read_json(self.folder / RESULT)

    def begin(self, config: TrainConfig) -> None:
        """Write down what is asked for, in a folder where nothing was trained yet.

        Raises:
            UserError: if the disk refuses.
        """
        if rank() != 0 or self.state in ("begun", "complete"):
            return
        with _writing(self.folder):
            if self.checkpoint is not None:  # first, so that no kill can part the two files
                origin = {"checkpoint": str(self.checkpoint.resolve())}
                write_json(self.folder / ORIGIN, origin)
            else:
                (self.folder / ORIGIN).unlink(missing_ok=True)
            self.write_config(REQUESTED, config)

    def earlier_choices(self) -> dict[str, Any]:
        """Return the configuration with every "auto" resolved that a resumed run began with.

        A run that stopped before its first checkpoint begins again with the same. Empty for a
        new run, or if only its checkpoint is left.
        """
        if self.checkpoint is None and self.state in ("new", "refused"):
            return {}
        folder = self.folder if self.checkpoint is None else self.checkpoint.parent.parent
        return settings(folder / RESOLVED) if (folder / RESOLVED).exists() else {}

    def tidy(self, config: TrainConfig, step: int) -> None:
        """Clear away what a killed process left half done, and what comes after `step`.

        Raises:
            UserError: if the disk refuses.
        """
        forget_after(self.folder, step if self.checkpoint else -1)
        with _writing(self.folder):
            for name in OURS:  # of other names nothing is touched: the folder is the user's
                clear_leftovers(self.folder, name)
            clear_leftovers(self.folder / "checkpoints")
            prune(self.folder, config.keep, config.keep_best)

    def write_config(self, name: str, config: TrainConfig) -> None:
        """Write a configuration as YAML."""
        import yaml

        write_text(self.folder / name, yaml.safe_dump(config.to_dict(), sort_keys=False))

    def write_result(self, result: dict[str, Any]) -> None:
        """Write the result, which makes the run complete."""
        write_json(self.folder / RESULT, result)


def forget_after(folder: Path, step: int) -> None:
    """Drop the log lines that are going to be written again, and damaged ones.

    Those are the lines after `step` (-1 drops all), and those of the evaluation that completes a
    run.
    """
    for path in (folder / name for name in LOGS if (folder / name).exists()):
        lines = [m for m in read_jsonl(path, "step") if m["step"] <= step and not m.get("complete")]
        write_text(path, "".join(to_json(line) + "\n" for line in lines))


@contextmanager
def open_run(folder: Path, config: TrainConfig, resume: str = "auto") -> Iterator[Run]:
    """Open a run's folder, alone: what it means for the run that is asked for is decided here.

    Of several processes that were launched together, the first holds the lock.

    Args:
        folder: where the run lies or will lie.
        config: what is asked for.
        resume: "auto" continues what is there, "never" wants a new folder, anything else is the
            path of the checkpoint to continue from.

    Yields:
        The run, with the checkpoint to start from, if any.

    Raises:
        UserError: if the folder holds another run or other files, another process trains there,
            the checkpoint is damaged, or the disk refuses. Nothing is overwritten.
    """
    named = None if resume in ("auto", "never") else named_checkpoint(resume, config)
    state_of(folder)  # refuses other files, before a lock is laid among them
    with _writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    with _alone(folder):
        state = state_of(folder)  # here it counts: no other process can change it now
        checkpoint = named
        if state in ("begun", "complete"):
            if resume == "never":
                raise UserError(
                    f"{folder} holds an earlier run; choose another --out, or continue it"
                )
            refuse_changes(folder, config)
            checkpoint = checkpoint_to_continue(folder, named, _origin_of(folder))
        elif resume == "auto":
            checkpoint = _origin_of(folder)
        yield Run(folder, state, checkpoint)


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Keep other processes out of a folder."""

    def refuse() -> None:
        raise UserError(
            f"another process is training in {folder}; wait for it or choose another --out"
        )

    if rank() != 0:
        yield
        return
    with ExitStack() as until_the_end:
        with _writing(folder):
            until_the_end.enter_context(file_lock(folder / ".lock", refuse))
        yield


def _origin_of(folder: Path) -> Path | None:
    """Return the checkpoint of another run that this one went on from, if any."""
    path = folder / ORIGIN
    if not path.exists():
        return None
    checkpoint = read_json(path).get("checkpoint")
    if not isinstance(checkpoint, str):
        raise UserError(f"{path} is damaged: it names no checkpoint; choose another --out")
    return Path(checkpoint)


def _writing(folder: Path) -> AbstractContextManager[None]:
    return writing(f"to {folder}", "; choose another --out")
