"""The folder of a run, and what may happen to one that is already there.

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

from gpt2lib.checkpoint import checkpoints, newest, prune
from gpt2lib.config import TrainConfig
from gpt2lib.errors import UserError
from gpt2lib.fields import flat
from gpt2lib.storage import (
    clear_leftovers,
    expand,
    flush,
    read_json,
    verify,
    write_json,
    write_text,
)

MAY_CHANGE = frozenset(
    {"micro_batch", "eval_every", "eval_batches", "save_every", "keep", "keep_best", "data.cache"}
    | {"sample_prompt", "sample_tokens", "device", "compile", "gradient_checkpointing"}
    | {"max_skipped", "spike_threshold", "trackers"}
)
"""Fields that a resumed run may change: the mathematics stay the same. (With dropout, the size of
the pieces, the device and compiling decide which activations are dropped.)"""


ORIGIN = "origin.json"


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
            raise _refused(self.folder, error) from error
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
        if os.environ.get("RANK", "0") != "0" or not _never_began(self.folder):
            return
        try:
            if self.checkpoint is not None:  # first, so that no kill can part the two files
                origin = {"checkpoint": str(self.checkpoint.resolve())}
                write_json(self.folder / ORIGIN, origin)
            else:
                (self.folder / ORIGIN).unlink(missing_ok=True)
            self.write_config("requested.yaml", config)
        except OSError as error:
            raise _refused(self.folder, error) from error

    def tidy(self, config: TrainConfig) -> None:
        """Clear away what a killed process left half done. Call it with the lock held.

        Raises:
            UserError: if the disk refuses.
        """
        try:
            for folder in (self.folder, self.folder / "checkpoints"):
                clear_leftovers(folder)
            prune(self.folder, config.keep, config.keep_best)
        except OSError as error:
            raise _refused(self.folder, error) from error

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


def _refused(folder: Path, error: OSError) -> UserError:
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


def open_run(folder: Path, config: TrainConfig, resume: str = "auto") -> Run:
    """Decide what a run folder means for the run that is asked for.

    Args:
        folder: where the run lies or will lie.
        config: what is asked for.
        resume: "auto" continues what is there, "never" wants a new folder, anything else is the
            path of the checkpoint to continue from.

    Returns:
        The run, with the checkpoint to start from, if any.

    Raises:
        UserError: if the folder holds another run or other files, the checkpoint is damaged, or
            the disk refuses. Nothing is overwritten.
    """
    explicit = None if resume in ("auto", "never") else expand(resume).resolve()
    if explicit is not None:
        if not explicit.is_dir():
            raise UserError(f"--resume {resume}: there is no such checkpoint folder")
        if checkpoints(explicit):
            raise UserError(
                f"--resume {resume} is a run, not a checkpoint; give one of its checkpoints, such "
                f"as {checkpoints(explicit)[-1]}, or --out {resume} to go on in it"
            )
        verify(explicit)
    if (folder / "requested.yaml").exists() and not _never_began(folder):
        if resume == "never":
            raise UserError(f"{folder} holds an earlier run; choose another --out, or continue it")
        _refuse_changes(folder, config)
        return Run(folder, _checkpoint_to_continue(folder, explicit))
    if folder.exists() and not _never_began(folder):
        raise UserError(f"{folder} exists and is not a run; choose another --out")
    if explicit is not None and (explicit.parent.parent / "requested.yaml").exists():
        _refuse_changes(explicit.parent.parent, config)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _refused(folder, error) from error
    return Run(folder, _origin(folder) if resume == "auto" else explicit)


def _checkpoint_to_continue(folder: Path, explicit: Path | None) -> Path | None:
    """Return the newest whole checkpoint of a run that began, or None if it wrote none."""
    latest = newest(folder)
    if latest is None and (damaged := len(checkpoints(folder))):
        raise UserError(
            f"none of the {damaged} checkpoints in {folder} is whole, and starting "
            "over would overwrite its logs; choose another --out"
        )
    origin = _origin(folder)
    if explicit is not None and explicit.resolve() not in (origin, latest and latest.resolve()):
        raise UserError(
            f"{folder} has gone further than {explicit}; to go on from there choose another --out"
        )
    if latest is None and origin is not None:  # stopped before a checkpoint of its own
        verify(origin)
    return latest or origin


def _origin(folder: Path) -> Path | None:
    """Return the checkpoint of another run that this one went on from, if any."""
    path = folder / ORIGIN
    return Path(read_json(path)["checkpoint"]) if path.exists() else None


def _names(folder: Path) -> set[str]:
    """Return what lies in a folder, hidden files aside: another process may be writing one."""
    return {p.name for p in folder.iterdir() if not p.name.startswith(".")}


def _never_began(folder: Path) -> bool:
    """Whether a folder is empty or its run was refused before its first update.

    Its settings may then be mended.
    """
    return folder.is_dir() and _names(folder) - {ORIGIN} in (
        set(),
        {"requested.yaml"},
        {"requested.yaml", "config.yaml"},
    )


def _read_yaml(path: Path) -> dict[str, Any]:
    """Read settings that a run wrote down.

    Raises:
        UserError: if they are damaged.
    """
    import yaml

    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError):
        values = None
    if not isinstance(values, dict):
        raise UserError(f"{path} is damaged: it holds no settings; put a copy of it in its place")
    return values


def _refuse_changes(folder: Path, config: TrainConfig) -> None:
    before = _read_yaml(folder / "requested.yaml")
    old, new = flat(TrainConfig.from_dict(before).to_dict()), flat(config.to_dict())
    names = [name for name in {**old, **new} if name not in MAY_CHANGE]
    changed = [name for name in names if old.get(name) != new.get(name)]
    if changed:
        shown = ", ".join(f"{name} {old.get(name)} → {new.get(name)}" for name in changed)
        raise UserError(
            f"{folder} holds a run with other settings ({shown}); choose another --out "
            f"(make: NAME=) or the same settings; --init_from starts a new run from its weights; "
            f"only these may change: {', '.join(sorted(MAY_CHANGE))}"
        )


def earlier_choices(run: Run) -> dict[str, Any]:
    """Return the configuration with every "auto" resolved that a resumed run began with.

    A run that stopped before its first checkpoint begins again with the same. Empty for a new run,
    or if only its checkpoint is left.
    """
    if run.checkpoint is None and _never_began(run.folder):
        return {}
    folder = run.folder if run.checkpoint is None else run.checkpoint.parent.parent
    path = folder / "config.yaml"
    return _read_yaml(path) if path.exists() else {}
