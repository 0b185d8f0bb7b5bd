"""The folder of a run: what lies in it, and how it is written.

runs/NAME/
  requested.yaml    what was asked for
  config.yaml       the same with every "auto" resolved
  origin.json       the checkpoint of another run that this one went on from, if any
  metrics.jsonl     a line for each update and each evaluation
  samples.jsonl     a line for each sample
  checkpoints/      step-00000500/ and so on
  result.json       written when the run is complete
  loss.png          drawn by the command line
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from gpt2lib.config import TrainConfig
from gpt2lib.runs.checkpoint import checkpoints, prune
from gpt2lib.utils.errors import UserError
from gpt2lib.utils.files import (
    clear_leftovers,
    flush,
    read_json,
    write_json,
    write_text,
)

ORIGIN = "origin.json"
OURS = (
    *("requested.yaml", "config.yaml", ORIGIN, "trackers.json", "result.json"),
    *("metrics.jsonl", "samples.jsonl"),
)
"""Files of a run that are written in one move."""


class Run:
    """One run's folder.

    Attributes:
        folder: where it lies.
        checkpoint: what to resume from, verified; None starts afresh.
    """

    def __init__(self, folder: Path, checkpoint: Path | None = None) -> None:
        self.folder = folder
        self.checkpoint = checkpoint
        self._seen = self._traces()

    @property
    def result(self) -> dict[str, Any] | None:
        """The result of a complete run, or None."""
        path = self.folder / "result.json"
        return read_json(path) if path.exists() else None

    def has_moved_on(self) -> bool:
        """Whether another process has trained here since this object was made."""
        return self._seen != self._traces()

    def _traces(self) -> list[str]:
        requested, done = self.folder / "requested.yaml", self.folder / "result.json"
        return [
            *(p.name for p in checkpoints(self.folder)),
            requested.read_text(encoding="utf-8") if requested.exists() else "",
            done.name if done.exists() else "",
        ]

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Keep other processes out of the folder; of many launched together, the first does it.

        Raises:
            UserError: if another process trains here.
        """
        if os.environ.get("RANK", "0") != "0":
            yield
            return
        from filelock import FileLock, Timeout

        lock = FileLock(self.folder / ".lock", timeout=0)
        try:
            lock.acquire()
        except Timeout as error:
            raise UserError(
                f"another process is training in {self.folder}; wait for it or choose another --out"
            ) from error
        except OSError as error:
            raise refused(self.folder, error) from error
        try:
            yield
        finally:
            lock.release()

    def begin(self, config: TrainConfig) -> None:
        """Write down what is asked for, in a folder where nothing was trained yet.

        Call it with the lock held: of two runs that begin together, the files are of the one
        that trains.

        Raises:
            UserError: if the disk refuses.
        """
        if os.environ.get("RANK", "0") != "0" or not never_began(self.folder):
            return
        try:
            if self.checkpoint is not None:  # first, so that no kill can part the two files
                origin = {"checkpoint": str(self.checkpoint.resolve())}
                write_json(self.folder / ORIGIN, origin)
            else:
                (self.folder / ORIGIN).unlink(missing_ok=True)
            self.write_config("requested.yaml", config)
        except OSError as error:
            raise refused(self.folder, error) from error

    def tidy(self, config: TrainConfig) -> None:
        """Clear away what a killed process left half done. Call it with the lock held.

        Raises:
            UserError: if the disk refuses.
        """
        try:
            for name in OURS:  # of other names nothing is touched: the folder is the user's
                clear_leftovers(self.folder, name)
            clear_leftovers(self.folder / "checkpoints")
            prune(self.folder, config.keep, config.keep_best)
        except OSError as error:
            raise refused(self.folder, error) from error

    def log(self, file: str, **values: Any) -> None:
        """Append one line to a `.jsonl` file.

        Raises:
            UserError: if the disk refuses.
        """
        path = self.folder / file
        try:
            with path.open("a", encoding="utf-8") as lines:
                lines.write(json.dumps(values) + "\n")
        except OSError as error:
            raise UserError(f"cannot write {path}: {error.strerror or error}") from error

    def flush_logs(self) -> None:
        """Have the system write the log lines to the disk: a checkpoint must not outlive them.

        Raises:
            UserError: if the disk refuses.
        """
        for path in sorted(self.folder.glob("*.jsonl")):
            try:
                flush(path)
            except OSError as error:
                raise UserError(f"cannot write {path}: {error.strerror or error}") from error

    def forget_after(self, step: int) -> None:
        """Drop the log lines that are going to be written again.

        Those are the lines after `step` (-1 drops all), and those of the evaluation that
        completes a run.
        """
        for name in ("metrics.jsonl", "samples.jsonl"):
            path = self.folder / name
            if path.exists():
                write_text(path, "".join(line + "\n" for line in _lines_up_to(path, step)))

    def write_config(self, name: str, config: TrainConfig) -> None:
        """Write a configuration as YAML."""
        import yaml

        write_text(self.folder / name, yaml.safe_dump(config.to_dict(), sort_keys=False))

    def write_result(self, result: dict[str, Any]) -> None:
        """Write the result, which makes the run complete."""
        write_json(self.folder / "result.json", result)


def refused(folder: Path, error: OSError) -> UserError:
    return UserError(f"cannot write to {folder}: {error.strerror or error}; choose another --out")


def _lines_up_to(path: Path, step: int) -> list[str]:
    kept = []
    for line in path.read_bytes().splitlines():
        try:
            values = json.loads(line)
            keep = values["step"] <= step and not values.get("complete")
        except (ValueError, KeyError, TypeError):  # torn by a crash, or damaged; others are good
            continue
        if keep:
            kept.append(line.decode("utf-8"))
    return kept


def steps_logged(folder: Path) -> int:
    """Return the last update that a run's log knows; lines that are damaged do not count."""
    path, last = folder / "metrics.jsonl", 0
    for line in path.read_bytes().splitlines() if path.exists() else []:
        try:
            last = max(last, int(json.loads(line)["step"]))
        except (ValueError, KeyError, TypeError):
            continue
    return last


def origin_of(folder: Path) -> Path | None:
    """Return the checkpoint of another run that this one went on from, if any."""
    path = folder / ORIGIN
    if not path.exists():
        return None
    checkpoint = read_json(path).get("checkpoint")
    if not isinstance(checkpoint, str):
        raise UserError(f"{path} is damaged: it names no checkpoint; choose another --out")
    return Path(checkpoint)


def _names(folder: Path) -> set[str]:
    """Return what lies in a folder, hidden files aside: another process may be writing one."""
    return {p.name for p in folder.iterdir() if not p.name.startswith(".")}


def never_began(folder: Path) -> bool:
    """Whether a folder is empty or its run was refused before its first update.

    Its settings may then be mended.
    """
    return folder.is_dir() and _names(folder) - {ORIGIN} in (
        set(),
        {"requested.yaml"},
        {"requested.yaml", "config.yaml"},
    )
