"""What a family of transformers models is, and what the translations of several share.

Shapes: C channels.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from gpt2lib.config import GPTConfig
from gpt2lib.model.gpt import GPT
from gpt2lib.utils.errors import UserError

logger = logging.getLogger(__name__)

Tensors = dict[str, Tensor]


@dataclass(frozen=True)
class Family:
    """How one family of transformers models maps to ours.

    Attributes:
        read_config: the JSON of a `config.json` to our configuration; refuses what has no
            counterpart.
        read_tensors: their names and layouts to ours; the second argument is what `read_config`
            made.
        write_config: our configuration to the JSON; the second argument is the id of the
            end-of-text token.
        write_tensors: our model to their names and layouts.
    """

    read_config: Callable[[Mapping[str, Any]], GPTConfig]
    read_tensors: Callable[[Mapping[str, Tensor], GPTConfig], Tensors]
    write_config: Callable[[GPTConfig, int | None], dict[str, Any]]
    write_tensors: Callable[[GPT], Tensors]


GELUS = {
    "gelu_new": "tanh",
    "gelu_pytorch_tanh": "tanh",
    "gelu": "exact",
    "gelu_python": "exact",
}
"""Their names of the activations that we have, and ours."""

WRAPPERS = re.compile(r"^(_orig_mod\.|module\.)+")

NOT_QUANTIZED: tuple[Any, ...] = (None,)


def refuse_other(values: Mapping[str, Any], fixed: Mapping[str, tuple[Any, ...]]) -> None:
    """Check fields for which we have some values only.

    Args:
        values: the JSON of a `config.json`.
        fixed: field to the values that we have, the one of a silent file first.

    Raises:
        UserError: naming the first field with another value.
    """
    for field, possible in fixed.items():
        value = values.get(field, possible[0])
        if value not in possible:
            wanted = " or ".join(map(str, possible))
            raise UserError(f"{field} {value!r} has no counterpart here; it must be {wanted}")


def read_gelu(values: Mapping[str, Any], field: str, default: str) -> str:
    """Return our name of the activation function.

    Raises:
        UserError: if it is another function.
    """
    refuse_other(values, {field: (default, *(name for name in GELUS if name != default))})
    return GELUS[values.get(field, default)]


def check_inner(values: Mapping[str, Any], field: str, default: int | None, width: int) -> None:
    """Refuse an MLP that is not four times as wide as the stream, C; null means that it is."""
    inner = values.get(field, default)
    if inner is not None and inner != 4 * width:
        raise UserError(
            f"{field} {inner!r} has no counterpart here; it must be 4·{width} = {4 * width}"
        )


def read_dropout(values: Mapping[str, Any], names: Sequence[str], default: float) -> Any:
    """Return one dropout rate for three: the first, with a warning if they differ."""
    rates = {name: values.get(name, default) for name in names}
    if any(rate != rates[names[0]] for rate in rates.values()):
        listed = ", ".join(f"{name} {rate}" for name, rate in rates.items())
        logger.warning("three dropout rates, %s: the first is taken for all", listed)
    return rates[names[0]]


def without_wrappers(tensors: Mapping[Any, Tensor]) -> Tensors:
    """Return tensors without what torch.compile and DataParallel put before their names."""
    found = {WRAPPERS.sub("", str(name)): tensor for name, tensor in tensors.items()}
    if len(found) < len(tensors):
        raise UserError("some tensors are there twice, with and without _orig_mod. or module.")
    return found


def special_tokens(eot: int | None) -> dict[str, int | None]:
    """Return the ids of the first and the last token of a text, in both of which we have one.

    A silent `config.json` would mean 50256, whatever the vocabulary.
    """
    return {"bos_token_id": eot, "eos_token_id": eot}
