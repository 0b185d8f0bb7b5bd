"""Checkpoints: weights, optimiser and random state, each whole and verified, and exact.

Tensors lie in safetensors and the rest in JSON; nothing is pickled, so nothing can run code. The
folder is written and sealed as `gpt2lib.storage` says.
"""

from __future__ import annotations

import logging
import re
import shutil
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from gpt2lib.errors import UserError
from gpt2lib.storage import verify

logger = logging.getLogger(__name__)

MODEL = "model.safetensors"


def checkpoints(run: Path) -> list[Path]:
    """List the checkpoint folders of a run, oldest first, whether or not they verify."""
    folders = [p for p in (run / "checkpoints").glob("step-*") if re.search(r"^step-\d+$", p.name)]
    return sorted(folders, key=lambda p: int(p.name.removeprefix("step-")))


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


def prune(run: Path, keep: int) -> None:
    """Delete all but the newest `keep` checkpoints. Call it only after a new one verified."""
    for folder in checkpoints(run)[:-keep]:
        shutil.rmtree(folder)


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write named tensors as safetensors, from any device."""
    contiguous = {name: t.detach().cpu().contiguous() for name, t in tensors.items()}
    save_file(contiguous, path, metadata={"format": "pt"})


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Read named tensors from safetensors.

    Raises:
        UserError: if the file is missing or damaged.
    """
    try:
        return dict(load_file(path))
    except FileNotFoundError as error:
        raise UserError(f"{path} is missing") from error
    except Exception as error:  # safetensors raises its own type, and OSError
        raise UserError(f"{path} is damaged or no safetensors file: {error}") from error


def model_tensors(model: nn.Module) -> dict[str, Tensor]:
    """Return the weights by name; a tied weight once, under its first name."""
    return {name: p.detach() for name, p in model.named_parameters()}


@torch.no_grad()
def load_weights(model: nn.Module, tensors: Mapping[str, Tensor], where: str | Path) -> None:
    """Copy tensors into the parameters of the same names, strictly.

    Args:
        model: receives the weights; a tied pair takes either name, or both if they are equal.
        tensors: every weight of the model and nothing else.
        where: what to call the source in messages.

    Raises:
        UserError: for a missing or unknown name, or a shape that differs (both are named).
    """
    own = dict(model.named_parameters(remove_duplicate=False))
    filled: dict[int, str] = {}
    for name, tensor in tensors.items():
        if name not in own:
            raise UserError(f"{where} has a tensor {name!r} that the model has no place for")
        place = own[name]
        if place.shape != tensor.shape:
            raise UserError(
                f"{name} has shape {tuple(tensor.shape)} in {where}, "
                f"but the model needs {tuple(place.shape)}"
            )
        if id(place) in filled and not torch.equal(place, tensor.to(place)):
            raise UserError(
                f"{where}: {name} differs from {filled[id(place)]}, which it is tied to"
            )
        place.copy_(tensor)
        filled[id(place)] = name
    missing = [name for name, place in own.items() if id(place) not in filled]
    if missing:
        raise UserError(f"{where} lacks {len(missing)} tensors, the first is {missing[0]!r}")


def optimizer_tensors(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Return the optimiser's state as tensors named `<what>/<parameter>`."""
    return {
        f"{key}/{name}": value
        for name, p in model.named_parameters()
        for key, value in optimizer.state.get(p, {}).items()
    }


def load_optimizer(
    model: nn.Module, optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]
) -> None:
    """Give the optimiser the state that `optimizer_tensors` returned, on each weight's device."""
    own = dict(model.named_parameters())
    for full_name, tensor in tensors.items():
        key, _, name = full_name.partition("/")
        optimizer.state[own[name]][key] = tensor.to(own[name].device, copy=True)
