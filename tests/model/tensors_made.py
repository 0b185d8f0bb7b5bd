"""What a computation makes on its way, for tests of what must never exist."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch.utils._python_dispatch import TorchDispatchMode


class Made(NamedTuple):
    """A tensor that an operation returned."""

    operation: str
    shape: tuple[int, ...]
    dtype: torch.dtype


class TensorsMade(TorchDispatchMode):  # type: ignore[misc]
    """While open, writes down every tensor that an operation returns, in `found`."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[Made] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        made = func(*args, **(kwargs or {}))
        if isinstance(made, torch.Tensor):
            self.found.append(Made(str(func), tuple(made.shape), made.dtype))
        return made
