"""What an answer makes and keeps on its way, for exercises whose lesson is memory."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class Tables(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """While open, measures the tables that operations return; a table is known by its shape.

    Args:
        size: of a shape; 0 for what is no table.

    Attributes:
        largest: the size of the largest one.
        most: the most of their sizes that lived at once.
    """

    def __init__(self, size: Callable[[tuple[int, ...]], int]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._size = size
        self._storages: set[int] = set()
        self._alive = self.largest = self.most = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run one operation, and look at what it returns."""
        out = func(*args, **(kwargs or {}))
        for made in tree_leaves(out):
            if isinstance(made, Tensor) and self._size(tuple(made.shape)):
                self._meet(made)
        return out

    def _meet(self, table: Tensor) -> None:
        storage, size = table.untyped_storage(), self._size(tuple(table.shape))
        self.largest = max(self.largest, size)
        if id(storage) not in self._storages:  # a view of one that is counted is no other
            self._storages.add(id(storage))
            weakref.finalize(storage, self._part, id(storage), size)
            self._alive += size
            self.most = max(self.most, self._alive)

    def _part(self, storage: int, size: int) -> None:
        self._storages.discard(storage)
        self._alive -= size


class _Kept:
    """A tensor that waits for the backward pass."""

    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor


def forward_calls(model: nn.Module, run: Callable[[], Any]) -> list[tuple[int, int]]:
    """Run something that calls a model, and look at each call.

    Returns:
        For each call the rows of its first argument, and how many tensors of earlier calls still
        waited for their backward pass.
    """
    waiting: weakref.WeakSet[_Kept] = weakref.WeakSet()
    calls: list[tuple[int, int]] = []

    def keep(tensor: Tensor) -> _Kept:
        kept = _Kept(tensor)
        waiting.add(kept)
        return kept

    def look(_: nn.Module, args: tuple[Any, ...]) -> None:
        calls.append((len(args[0]), len(waiting)))

    hook = model.register_forward_pre_hook(look)
    try:
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda kept: kept.tensor):
            run()
    finally:
        hook.remove()
    return calls
