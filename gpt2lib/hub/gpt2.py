"""`GPT2LMHeadModel` of transformers: learned positions, and keys and values for every head.

The names are ours. Four weights of a block are kept as (in, out), a linear layer as (out, in).

Shapes: T places, C channels, nh heads, nkv key/value heads, hs head size.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from gpt2lib.config import GPTConfig
from gpt2lib.hub.family import (
    NOT_QUANTIZED,
    Family,
    Tensors,
    check_inner,
    read_dropout,
    read_gelu,
    refuse_other,
    special_tokens,
)
from gpt2lib.model.gpt import GPT
from gpt2lib.model.weights import model_tensors
from gpt2lib.utils.errors import UserError

DEFAULTS: dict[str, Any] = {
    "vocab_size": 50257,
    "n_positions": 1024,
    "n_layer": 12,
    "n_head": 12,
    "n_embd": 768,
    "tie_word_embeddings": True,
}
DROPOUTS = ("resid_pdrop", "embd_pdrop", "attn_pdrop")  # 0.1 where config.json is silent
FIXED: dict[str, tuple[Any, ...]] = {
    "layer_norm_epsilon": (1e-5,),
    "scale_attn_weights": (True,),
    "scale_attn_by_inverse_layer_idx": (False,),
    "reorder_and_upcast_attn": (False,),
    "add_cross_attention": (False,),
}
TURNED = re.compile(r"(attn\.c_attn|attn\.c_proj|mlp\.c_fc|mlp\.c_proj)\.weight$")
MASK_BUFFER = re.compile(r"(transformer\.)?h\.\d+\.attn\.(bias|masked_bias)")
TRUNK = re.compile(r"(wte|wpe|ln_f|h\.\d+)\.")


def read_config(values: Mapping[str, Any], gelu: str = "gelu_new") -> GPTConfig:
    """Translate the `config.json` of a GPT-2, or of a model that shares its fields.

    The three dropout rates become our one; if they differ, the one of the residual stream is
    taken and a warning says so.

    Args:
        values: the JSON.
        gelu: the activation function where the file is silent.

    Raises:
        UserError: naming the first field whose value our model cannot represent.
    """
    refuse_other(values, {**FIXED, "quantization_config": NOT_QUANTIZED})
    ours = {key: values.get(key, default) for key, default in DEFAULTS.items()}
    config = GPTConfig.from_dict(
        {
            "block_size": ours.pop("n_positions"),
            "tie_weights": ours.pop("tie_word_embeddings"),
            "dropout": read_dropout(values, DROPOUTS, 0.1),
            "gelu": read_gelu(values, "activation_function", gelu),
            **ours,
        }
    )
    check_inner(values, "n_inner", None, config.n_embd)
    return config


def our_names(tensors: Mapping[str, Tensor]) -> Tensors:
    """Return tensors under our names: the `transformer.` put in, and mask buffers left out.

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
        ours[full_name] = tensor
    return ours


def turned(tensors: Mapping[str, Tensor]) -> Tensors:
    """Transpose the weights that a GPT-2 of transformers keeps the other way round."""
    return {
        name: tensor.t() if TURNED.search(name) and tensor.dim() == 2 else tensor
        for name, tensor in tensors.items()
    }


def read_tensors(tensors: Mapping[str, Tensor], config: GPTConfig) -> Tensors:
    """Translate the tensors of a GPT-2; errors as in `our_names`."""
    return turned(our_names(tensors))


def write_config(config: GPTConfig, eot: int | None) -> dict[str, Any]:
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
        "activation_function": "gelu_new" if config.gelu == "tanh" else "gelu",
        **{field: possible[0] for field, possible in FIXED.items()},
        **dict.fromkeys(DROPOUTS, config.dropout),
        "initializer_range": 0.02,
        "tie_word_embeddings": config.tie_weights,
        **special_tokens(eot),
        "use_cache": True,
    }


def complete(model: GPT) -> Tensors:
    """Return our tensors and, as zeros, those that we have not: they then change nothing.

    These are the biases of a model without, and the vectors of its places if it has none. A tied
    head is left out, as transformers does.
    """
    config, all_of_them = model.config, model_tensors(model)
    wte = model.transformer.wte.weight
    if config.position == "none":
        places = wte.new_zeros(config.block_size, config.n_embd)  # (T, C)
        all_of_them["transformer.wpe.weight"] = places
    if not config.bias:
        for name in [n for n in all_of_them if n.startswith(("transformer.h.", "transformer.ln_"))]:
            zeros = wte.new_zeros(all_of_them[name].size(0))  # (out,)
            all_of_them[f"{name.removesuffix('weight')}bias"] = zeros
    return all_of_them


def with_own_heads(c_attn: Tensor, config: GPTConfig) -> Tensor:
    """Repeat the rows of shared key and value heads, until every head has its own.

    Args:
        c_attn: weight or bias of queries, keys and values, (C + 2 · nkv · hs, ...).
        config: the shape of the model that it comes from.

    Returns:
        (3 · C, ...), which computes the same.
    """
    q, k, v = torch.split(c_attn, [config.n_embd, *2 * [config.kv_heads * config.head_size]])
    sharing, rest = config.n_head // config.kv_heads, c_attn.shape[1:]
    heads = (part.view(config.kv_heads, config.head_size, *rest) for part in (k, v))
    repeated = (head.repeat_interleave(sharing, dim=0) for head in heads)  # 2 × (nh, hs, ...)
    return torch.cat((q, *(part.flatten(0, 1) for part in repeated)))


def write_tensors(model: GPT) -> Tensors:
    """Return the tensors of a `GPT2LMHeadModel`; shared heads are repeated."""
    theirs = {
        name: with_own_heads(tensor, model.config) if ".c_attn." in name else tensor
        for name, tensor in complete(model).items()
    }
    return turned(theirs)


GPT2 = Family(read_config, read_tensors, write_config, write_tensors)
