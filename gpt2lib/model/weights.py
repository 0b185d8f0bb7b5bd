"""Weights and the optimiser's state by GPT-2's names, out of a model and strictly into one."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from gpt2lib.utils.errors import UserError
from gpt2lib.utils.process import like


def model_tensors(model: nn.Module) -> dict[str, Tensor]:
    """Return the weights by name; a tied weight once, under its first name."""
    return {name: p.detach() for name, p in model.named_parameters()}


@torch.no_grad()
def load_weights(model: nn.Module, tensors: Mapping[str, Tensor], where: str | Path) -> None:
    """Copy tensors into the parameters of the same names, all of them or none.

    Args:
        model: receives the weights; a tied pair takes either name, or both if they are equal.
        tensors: every weight of the model and nothing else.
        where: what to call the source in messages.

    Raises:
        UserError: for a missing or unknown name, or a shape that differs (both are named).
    """
    own = dict(model.named_parameters(remove_duplicate=False))
    filled: dict[int, str] = {}  # parameter → the first name that fills it
    for name, tensor in tensors.items():
        if name not in own:
            raise UserError(f"{where} has a tensor {name!r} that the model has no place for")
        if own[name].shape != tensor.shape:
            raise UserError(
                f"{name} has shape {tuple(tensor.shape)} in {where}, "
                f"but the model needs {tuple(own[name].shape)}"
            )
        first = filled.setdefault(id(own[name]), name)
        if first != name and not torch.equal(tensors[first].to(tensor), tensor):
            raise UserError(f"{where}: {name} differs from {first}, which it is tied to")
    missing = [name for name, p in model.named_parameters() if id(p) not in filled]
    if missing:
        raise UserError(
            f"{where} lacks {len(missing)} of the model's tensors, the first is {missing[0]!r}"
        )
    for name in filled.values():
        own[name].copy_(like(tensors[name].to(own[name].dtype), own[name]))


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
    """Replace the optimiser's state by what `optimizer_tensors` returned, on each weight's device.

    Raises:
        UserError: for a name or a shape that the model does not have.
    """
    own = dict(model.named_parameters())
    state: dict[str, dict[str, Tensor]] = {}
    for full_name, tensor in tensors.items():
        key, _, name = full_name.partition("/")
        if name not in own:
            raise UserError(f"the optimiser's state has {full_name!r}, but the model no {name!r}")
        place = own[name]
        if tensor.dim() and tensor.shape != place.shape:  # the step count has no dimension
            raise UserError(
                f"{full_name} has shape {tuple(tensor.shape)} in the optimiser's state, "
                f"but the weight has {tuple(place.shape)}"
            )
        spread = like(tensor, place) if tensor.dim() else tensor
        state.setdefault(name, {})[key] = spread.to(place.device, copy=True)
    optimizer.state.clear()
    for name, values in state.items():
        optimizer.state[own[name]] = values
