"""Whether a run that is there already may go on, and from which checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from gpt2lib.config import TrainConfig
from gpt2lib.config.schema import flat
from gpt2lib.runs.checkpoint import checkpoints, newest
from gpt2lib.utils.errors import UserError
from gpt2lib.utils.files import expand, verify
from gpt2lib.utils.formats import read_jsonl, read_yaml

MAY_CHANGE = frozenset(
    {"micro_batch", "eval_every", "eval_batches", "save_every", "keep", "keep_best"}
    | {"sample_prompt", "sample_tokens", "device", "compile", "gradient_checkpointing"}
    | {"max_skipped", "spike_threshold", "trackers", "data.cache", "data.source"}
)
"""Fields that a resumed run may change: the mathematics stay the same. (With dropout, the size of
a micro-batch, the device and compiling decide which activations are dropped. The text may lie in
another place; that it is the same text, its fingerprint shows.)"""


def named_checkpoint(path: str, config: TrainConfig) -> Path:
    """Return the checkpoint that `--resume PATH` names, verified.

    Raises:
        UserError: if it is none, is damaged, or lies in a run with other settings.
    """
    folder = expand(path).resolve()
    if not folder.is_dir():
        raise UserError(f"--resume {path}: there is no such checkpoint folder")
    if inside := checkpoints(folder):
        raise UserError(
            f"--resume {path} is a run, not a checkpoint; give one of its checkpoints, such "
            f"as {inside[-1]}, or --out {path} to go on in it"
        )
    verify(folder)
    run = folder.parent.parent
    if (run / "requested.yaml").exists():
        refuse_changes(run, config)
    return folder


def checkpoint_to_continue(folder: Path, named: Path | None, origin: Path | None) -> Path | None:
    """Return the newest whole checkpoint of a run that began, or None if it wrote none.

    Args:
        folder: the run's.
        named: the checkpoint that was asked for, if one was.
        origin: the checkpoint of another run that this one went on from, if any.

    Raises:
        UserError: if its checkpoints are damaged or gone, or the run is further than `named`.
    """
    latest = newest(folder)
    if latest is None and (damaged := len(checkpoints(folder))):
        raise UserError(
            f"none of the {damaged} checkpoints in {folder} is whole, and starting "
            "over would overwrite its logs; choose another --out"
        )
    if latest is None and origin is None:
        _refuse_to_start_over(folder)
    if named is not None and named not in (origin, latest and latest.resolve()):
        raise UserError(
            f"{folder} has gone further than {named}; to go on from there choose another --out"
        )
    if latest is None and origin is not None:  # stopped before a checkpoint of its own
        verify(origin)
    return latest or origin


def _refuse_to_start_over(folder: Path) -> None:
    """Refuse a run whose checkpoints somebody took away: its log is all that is left of it."""
    save_every = settings(folder / "requested.yaml").get("save_every", 1)
    logged = max((m["step"] for m in read_jsonl(folder / "metrics.jsonl", "step")), default=0)
    if logged > int(save_every):
        raise UserError(
            f"the checkpoints of {folder} are gone, but its log reaches step {logged}, and "
            "starting over would overwrite it; put them back, or choose another --out"
        )


def settings(path: Path) -> dict[str, Any]:
    """Read settings that a run wrote down.

    Raises:
        UserError: if they are damaged.
    """
    try:
        return read_yaml(path)
    except UserError as error:
        raise UserError(
            f"{path} is damaged: it holds no settings; put a copy of it in its place"
        ) from error


def refuse_changes(folder: Path, config: TrainConfig) -> None:
    """Refuse to go on with settings that would change the numbers of a run.

    Raises:
        UserError: naming each that differs.
    """
    before = TrainConfig.from_dict(settings(folder / "requested.yaml"))
    old, new = flat(before.to_dict()), flat(config.to_dict())
    names = [name for name in {**old, **new} if name not in MAY_CHANGE]
    changed = [name for name in names if old.get(name) != new.get(name)]
    if changed:
        shown = ", ".join(f"{name} {old.get(name)} → {new.get(name)}" for name in changed)
        raise UserError(
            f"{folder} holds a run with other settings ({shown}); choose another --out "
            f"(make: NAME=) or the same settings; --init_from starts a new run from its weights; "
            f"only these may change: {', '.join(sorted(MAY_CHANGE))}"
        )
