"""Ways to fine-tune: each is a file that says which parameters of a model train.

What does not train has no gradient and no moments, and the backward pass does not compute for it.
Where nothing below a layer trains, the layer's activations are not kept either.
"""

from __future__ import annotations

from collections.abc import Callable

from gpt2lib.config import MethodConfig
from gpt2lib.model.gpt import GPT
from gpt2lib.training.methods.full import full
from gpt2lib.training.methods.head import head
from gpt2lib.training.methods.last_k import last_k
from gpt2lib.training.methods.lora import lora
from gpt2lib.training.methods.norms import norms

METHODS: dict[str, Callable[[GPT, MethodConfig], None]] = {
    "full": full,
    "last-k": last_k,
    "lora": lora,
    "head": head,
    "norms": norms,
}
"""By the name of `method.name`, what marks the parameters that train."""


def choose_parameters(model: GPT, config: MethodConfig) -> None:
    """Mark which parameters of a model train, by `requires_grad`.

    Raises:
        UserError: if the model has none of those that the method trains.
    """
    METHODS[config.name](model, config)


def trained_parameters(model: GPT) -> int:
    """Count the parameters that train."""
    return sum(p.numel() for p in model.parameters() if p.requires_grad)
