"""Checkpoints: weights, optimiser and random state, each whole and verified, and exact.

Tensors lie in safetensors and the rest in JSON; nothing is pickled, so nothing can run code. The
folder is written and sealed as `gpt2lib.utils.files` says.
"""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from safetensors import SafetensorError
from safetensors.torch import load, load_file, save_file
from torch import Tensor

from gpt2lib.config import GPTConfig
from gpt2lib.utils.errors import UserError
from gpt2lib.utils.files import FORMAT, printable, remove_folder, verify
from gpt2lib.utils.formats import read_json, write_json

logger = logging.getLogger(__name__)

MODEL, STATE = "model.safetensors", "state.json"
ADAPTER, ADAPTER_CONFIG = "adapter_model.safetensors", "adapter_config.json"
"""What stands in the place of the weights where LoRA trains: its matrices, as PEFT writes them."""


def checkpoints(run: Path) -> list[Path]:
    """List the checkpoint folders of a run, oldest first, whether or not they verify."""
    found = (run / "checkpoints").glob("step-*")
    return sorted((p for p in found if re.search(r"^step-\d+$", p.name) and p.is_dir()), key=_step)


def _step(folder: Path) -> int:
    return int(folder.name.removeprefix("step-"))


def newest(run: Path) -> Path | None:
    """Return the newest checkpoint that verifies, saying which ones were skipped, or None."""
    for folder in reversed(checkpoints(run)):
        try:
            verify(folder)
        except UserError as error:
            logger.warning("skipped a damaged checkpoint: %s", error)
        else:
            return folder
    return None


class Best(NamedTuple):
    """The checkpoint with the lowest held-out loss; `checkpoint` is its folder's name."""

    step: int
    val_loss: float
    checkpoint: str


def best(run: Path) -> Best | None:
    """Return the best of the checkpoints that verify, if any was evaluated.

    Only a checkpoint whose own step was evaluated has a loss. If a resumed run was evaluated on
    more or less text than before, only those that were evaluated as the newest was are compared.
    """
    read = [(*_val_loss(folder), folder) for folder in checkpoints(run)]
    evaluated = [(loss, on, folder) for loss, on, folder in read if loss is not None]
    losses = [(loss, folder) for loss, on, folder in evaluated if on == evaluated[-1][1]]
    for loss, folder in sorted(losses, key=lambda pair: pair[0]):
        if _verifies(folder):
            return Best(_step(folder), loss, folder.name)
    return None


def _val_loss(folder: Path) -> tuple[float | None, int | None]:
    """Return the held-out loss of a checkpoint, and on how many tokens it was measured."""
    try:
        state = read_json(folder / STATE)
    except UserError:  # damaged; `verify` says so where it matters
        return None, None
    loss = state.get("val_loss")
    if not isinstance(loss, int | float) or not math.isfinite(loss):
        return None, None
    return float(loss), state.get("val_tokens")


def prune(run: Path, keep: int, keep_best: bool = False) -> None:
    """Delete the checkpoints that are older than the newest `keep` that verify.

    Damaged ones do not count, so a run that went back past one never loses its last good one.

    Args:
        run: the run's folder.
        keep: how many to keep.
        keep_best: whether the one with the lowest held-out loss is kept as well.
    """
    folders = checkpoints(run)
    sound = 0
    old: list[Path] = []
    for folder in reversed(folders):
        if sound == keep:
            old.append(folder)
        else:
            sound += _verifies(folder)
    chosen = best(run) if keep_best and old else None
    for folder in old:
        if chosen is None or folder.name != chosen.checkpoint:
            remove_folder(folder)


def _verifies(folder: Path) -> bool:
    try:
        verify(folder)
    except UserError:
        return False
    return True


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write named tensors as safetensors, from any device.

    Raises:
        OSError: if the disk refuses (full, read-only).
    """
    contiguous = {name: t.detach().cpu().contiguous() for name, t in tensors.items()}
    try:
        save_file(contiguous, path, metadata={"format": "pt"})
    except SafetensorError as error:  # its own type even for a full disk
        raise OSError(str(error)) from error


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Read named tensors from safetensors.

    Raises:
        UserError: if the file is missing or damaged.
    """
    try:
        if printable(str(path)) == str(path):
            return dict(load_file(path))
        return dict(load(path.read_bytes()))  # safetensors opens no name that is not UTF-8
    except FileNotFoundError as error:
        raise UserError(f"{path} is missing") from error
    except Exception as error:  # safetensors raises its own type, and OSError
        raise UserError(f"{path} is damaged or no safetensors file: {error}") from error


def write_model_config(folder: Path, config: GPTConfig, **more: Any) -> None:
    """Write the shape of a checkpoint's model, so that it can be made again without the run.

    Args:
        folder: the checkpoint's.
        config: the shape.
        more: what else is to be known; for an adapter, its base.
    """
    about = {"kind": "gpt2lib", "format": FORMAT, "model": config.to_dict(), **more}
    write_json(folder / "config.json", about)


def read_model_config(folder: Path) -> GPTConfig:
    """Return the shape of a checkpoint's model."""
    return GPTConfig.from_dict(read_json(folder / "config.json")["model"])
