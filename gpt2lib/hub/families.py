"""The families of transformers models that can be read and written, each one entry.

A family translates a configuration and a set of tensors, both ways. Shapes: C channels.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from gpt2lib import checkpoint
from gpt2lib.config import GPTConfig
from gpt2lib.errors import UserError
from gpt2lib.model import GPT

logger = logging.getLogger(__name__)

Tensors = dict[str, Tensor]


@dataclass(frozen=True)
class Family:
    """How one family of transformers models maps to ours.

    Attributes:
        read_config: the JSON of a `config.json` to our configuration; refuses what has no
            counterpart.
        read_tensors: their names and layouts to ours.
        write_config: our configuration to the JSON; the second argument is the id of the
            end-of-text token.
        write_tensors: our model to their names and layouts.
    """

    read_config: Callable[[Mapping[str, Any]], GPTConfig]
    read_tensors: Callable[[Mapping[str, Tensor]], Tensors]
    write_config: Callable[[GPTConfig, int | None], dict[str, Any]]
    write_tensors: Callable[[GPT], Tensors]


GPT2_DEFAULTS: dict[str, Any] = {
    "vocab_size": 50257,
    "n_positions": 1024,
    "n_layer": 12,
    "n_head": 12,
    "n_embd": 768,
    "tie_word_embeddings": True,
}
GPT2_DROPOUTS = ("resid_pdrop", "embd_pdrop", "attn_pdrop")  # 0.1 where config.json is silent
GPT2_FIXED: dict[str, tuple[Any, ...]] = {  # field: the values that we have, the default first
    "activation_function": ("gelu_new", "gelu_pytorch_tanh"),
    "layer_norm_epsilon": (1e-5,),
    "scale_attn_weights": (True,),
    "scale_attn_by_inverse_layer_idx": (False,),
    "reorder_and_upcast_attn": (False,),
    "add_cross_attention": (False,),
    "quantization_config": (None,),
}
# transformers keeps these four weights as (in, out), a linear layer as (out, in).
CONV1D = re.compile(r"(attn\.c_attn|attn\.c_proj|mlp\.c_fc|mlp\.c_proj)\.weight$")
MASK_BUFFER = re.compile(r"(transformer\.)?h\.\d+\.attn\.(bias|masked_bias)")
TRUNK = re.compile(r"(wte|wpe|ln_f|h\.\d+)\.")


def read_gpt2_config(values: Mapping[str, Any]) -> GPTConfig:
    """Translate the `config.json` of a GPT-2.

    The three dropout rates become our one; if they differ, the one of the residual stream is
    taken and a warning says so.

    Raises:
        UserError: naming the first field whose value our model cannot represent.
    """
    for field, possible in GPT2_FIXED.items():
        value = values.get(field, possible[0])
        if value not in possible:
            wanted = " or ".join(map(str, possible))
            raise UserError(f"{field} {value!r} has no counterpart here; it must be {wanted}")
    ours = {key: values.get(key, default) for key, default in GPT2_DEFAULTS.items()}
    inner, width = values.get("n_inner"), ours["n_embd"]
    if inner is not None and inner != 4 * width:
        raise UserError(
            f"n_inner {inner} has no counterpart here; it must be 4·n_embd, {4 * width}"
        )
    rates = {name: values.get(name, 0.1) for name in GPT2_DROPOUTS}
    if len(set(rates.values())) > 1:
        listed = ", ".join(f"{name} {rate}" for name, rate in rates.items())
        logger.warning("three dropout rates, %s: the first is taken for all", listed)
    return GPTConfig.from_dict(
        {
            "block_size": ours.pop("n_positions"),
            "tie_weights": ours.pop("tie_word_embeddings"),
            "dropout": rates["resid_pdrop"],
            **ours,
        }
    )


def read_gpt2_tensors(tensors: Mapping[str, Tensor]) -> Tensors:
    """Translate the tensors of a GPT-2: names with and without `transformer.`, no mask buffers.

    Raises:
        UserError: for a tensor given under both names.
    """
    ours: Tensors = {}
    for name, tensor in tensors.items():
        if MASK_BUFFER.fullmatch(name):
            continue
        full_name = f"transformer.{name}" if TRUNK.match(name) else name
        if full_name in ours:
            raise UserError(f"{full_name} is there twice, with and without 'transformer.'")
        turned = CONV1D.search(name) and tensor.dim() == 2
        ours[full_name] = tensor.t() if turned else tensor  # (in, out) to (out, in)
    return ours


def write_gpt2_config(config: GPTConfig, eot: int | None) -> dict[str, Any]:
    """Return the `config.json` of a `GPT2LMHeadModel`; `eot` None means no special tokens."""
    return {
        "architectures": ["GPT2LMHeadModel"],
        "model_type": "gpt2",
        "dtype": "float32",
        "vocab_size": config.vocab_size,
        "n_positions": config.block_size,
        "n_ctx": config.block_size,
        "n_embd": config.n_embd,
        "n_layer": config.n_layer,
        "n_head": config.n_head,
        "n_inner": None,
        **{field: possible[0] for field, possible in GPT2_FIXED.items() if possible[0] is not None},
        **dict.fromkeys(GPT2_DROPOUTS, config.dropout),
        "initializer_range": 0.02,
        "tie_word_embeddings": config.tie_weights,
        "bos_token_id": eot,  # without these two lines transformers assumes 50256
        "eos_token_id": eot,
        "use_cache": True,
    }


def write_gpt2_tensors(model: GPT) -> Tensors:
    """Return the tensors of a `GPT2LMHeadModel`.

    A tied head is left out, as transformers does; a model without biases gets biases of zero,
    which computes the same.
    """
    theirs: Tensors = {}
    for name, tensor in checkpoint.model_tensors(model).items():
        theirs[name] = tensor.t() if CONV1D.search(name) else tensor  # (out, in) to (in, out)
        stem = name.removesuffix(".weight")
        if not model.config.bias and stem.startswith(("transformer.h.", "transformer.ln_f")):
            theirs[f"{stem}.bias"] = tensor.new_zeros(tensor.size(0))  # (out,)
    return theirs


FAMILIES: dict[str, Family] = {
    "gpt2": Family(read_gpt2_config, read_gpt2_tensors, write_gpt2_config, write_gpt2_tensors),
}
"""By `model_type`, as `config.json` names it."""
