"""What may happen to a run's folder that is there already: go on, or be refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from gpt2lib.config import TrainConfig
from gpt2lib.config.schema import flat
from gpt2lib.runs.checkpoint import checkpoints, newest
from gpt2lib.runs.folder import Run, never_began, origin_of, refused, steps_logged
from gpt2lib.utils.errors import UserError
from gpt2lib.utils.files import expand, verify

MAY_CHANGE = frozenset(
    {"micro_batch", "eval_every", "eval_batches", "save_every", "keep", "keep_best"}
    | {"sample_prompt", "sample_tokens", "device", "compile", "gradient_checkpointing"}
    | {"max_skipped", "spike_threshold", "trackers", "data.cache", "data.source"}
)
"""Fields that a resumed run may change: the mathematics stay the same. (With dropout, the size of
the pieces, the device and compiling decide which activations are dropped. The text may lie in
another place; that it is the same text, its fingerprint shows.)"""


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
    if (folder / "requested.yaml").exists() and not never_began(folder):
        if resume == "never":
            raise UserError(f"{folder} holds an earlier run; choose another --out, or continue it")
        _refuse_changes(folder, config)
        return Run(folder, _checkpoint_to_continue(folder, explicit))
    if folder.exists() and not (never_began(folder) and _is_ours(folder / "requested.yaml")):
        raise UserError(f"{folder} exists and is not a run; choose another --out")
    if explicit is not None and (explicit.parent.parent / "requested.yaml").exists():
        _refuse_changes(explicit.parent.parent, config)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise refused(folder, error) from error
    return Run(folder, origin_of(folder) if resume == "auto" else explicit)


def _checkpoint_to_continue(folder: Path, explicit: Path | None) -> Path | None:
    """Return the newest whole checkpoint of a run that began, or None if it wrote none."""
    latest = newest(folder)
    if latest is None and (damaged := len(checkpoints(folder))):
        raise UserError(
            f"none of the {damaged} checkpoints in {folder} is whole, and starting "
            "over would overwrite its logs; choose another --out"
        )
    origin = origin_of(folder)
    if latest is None and origin is None:
        _refuse_to_start_over(folder)
    if explicit is not None and explicit.resolve() not in (origin, latest and latest.resolve()):
        raise UserError(
            f"{folder} has gone further than {explicit}; to go on from there choose another --out"
        )
    if latest is None and origin is not None:  # stopped before a checkpoint of its own
        verify(origin)
    return latest or origin


def _refuse_to_start_over(folder: Path) -> None:
    """Refuse a run whose checkpoints somebody took away: its log is all that is left of it."""
    save_every = _read_yaml(folder / "requested.yaml").get("save_every", 1)
    logged = steps_logged(folder)
    if logged > int(save_every):
        raise UserError(
            f"the checkpoints of {folder} are gone, but its log reaches step {logged}, and "
            "starting over would overwrite it; put them back, or choose another --out"
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


def _is_ours(requested: Path) -> bool:
    """Whether the settings in a folder where nothing was trained are a run's, or absent."""
    try:
        return not requested.exists() or bool(TrainConfig.from_dict(_read_yaml(requested)))
    except UserError:
        return False


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
    if run.checkpoint is None and never_began(run.folder):
        return {}
    folder = run.folder if run.checkpoint is None else run.checkpoint.parent.parent
    path = folder / "config.yaml"
    return _read_yaml(path) if path.exists() else {}
