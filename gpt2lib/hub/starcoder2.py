"""`Starcoder2ForCausalLM` of transformers: RoPE, shared heads, one window for all layers.

Shapes: C channels, nkv key/value heads, hs head size.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from gpt2lib.config import GPTConfig
from gpt2lib.hub import gpt2
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
from gpt2lib.utils.errors import UserError

DEFAULTS: dict[str, tuple[str, Any]] = {  # their field: ours, and the value of a silent file
    "vocab_size": ("vocab_size", 49152),
    "max_position_embeddings": ("block_size", 4096),
    "num_hidden_layers": ("n_layer", 30),
    "num_attention_heads": ("n_head", 24),
    "num_key_value_heads": ("n_kv_head", 2),
    "hidden_size": ("n_embd", 3072),
    "sliding_window": ("window", None),
    "tie_word_embeddings": ("tie_weights", True),
}
DROPOUTS = ("residual_dropout", "embedding_dropout", "attention_dropout")
FIXED: dict[str, tuple[Any, ...]] = {"norm_epsilon": (1e-5,)}
NAMES = {  # within a block: theirs to ours, where one tensor becomes one
    "input_layernorm": "ln_1",
    "self_attn.o_proj": "attn.c_proj",
    "post_attention_layernorm": "ln_2",
    "mlp.c_fc": "mlp.c_fc",
    "mlp.c_proj": "mlp.c_proj",
}
TRUNK = {"model.embed_tokens": "transformer.wte", "model.norm": "transformer.ln_f"}
BACK = {ours: theirs for theirs, ours in (NAMES | TRUNK).items()}
THEIR_BLOCK = re.compile(r"model\.layers\.(\d+)\.(.+)\.(weight|bias)")
OUR_BLOCK = re.compile(r"transformer\.h\.(\d+)\.(.+)\.(?:weight|bias)")
PARTS = ("q_proj", "k_proj", "v_proj")


def read_config(values: Mapping[str, Any]) -> GPTConfig:
    """Translate the `config.json` of a Starcoder2; dropout rates as for a GPT-2.

    `use_bias` false leaves the biases of its layer norms. Ours has all biases or none, so the
    model gets all, and those that the file has not are zero.

    Raises:
        UserError: naming the first field whose value our model cannot represent.
    """
    refuse_other(values, {**FIXED, "use_bias": (True, False), "quantization_config": NOT_QUANTIZED})
    ours = {name: values.get(theirs, silent) for theirs, (name, silent) in DEFAULTS.items()}
    if ours["n_kv_head"] == ours["n_head"]:
        ours["n_kv_head"] = None
    base, scale = read_rope(values)
    config = GPTConfig.from_dict(
        {
            **ours,
            "position": "rope",
            "rope_base": base,
            "rope_scale": scale,
            "dropout": read_dropout(values, DROPOUTS, 0.0),
            "gelu": read_gelu(values, "hidden_act", "gelu_pytorch_tanh"),
        }
    )
    check_inner(values, "intermediate_size", 12288, config.n_embd)
    refuse_other({"head_dim": values.get("head_dim")}, {"head_dim": (None, config.head_size)})
    return config


def read_rope(values: Mapping[str, Any]) -> tuple[Any, Any]:
    """Return base and scale of RoPE, from the fields of transformers 5 or those of 4.

    Raises:
        UserError: for another kind of rotation than the plain and the linearly interpolated one.
    """
    field = "rope_scaling" if values.get("rope_scaling") else "rope_parameters"
    rope = values.get(field) or {}
    if not isinstance(rope, Mapping) or any(isinstance(v, Mapping) for v in rope.values()):
        raise UserError(f"{field} {rope!r} has no counterpart here; it must be one set of fields")
    kind = rope.get("rope_type", rope.get("type", "default"))
    refuse_other({f"{field}.rope_type": kind}, {f"{field}.rope_type": ("default", "linear")})
    part = rope.get("partial_rotary_factor", values.get("partial_rotary_factor", 1))
    refuse_other({"partial_rotary_factor": part}, {"partial_rotary_factor": (1, None)})
    base = rope.get("rope_theta", values.get("rope_theta", 10000.0))
    if kind == "linear" and "factor" not in rope:
        raise UserError(f"{field} has rope_type linear, but no factor")
    return base, rope["factor"] if kind == "linear" else 1.0


def read_tensors(tensors: Mapping[str, Tensor], config: GPTConfig) -> Tensors:
    """Translate the tensors of a Starcoder2; names with and without `model.`.

    Raises:
        UserError: if one of the projections that become one is missing, or does not fit.
    """
    theirs = {
        name if name.startswith(("model.", "lm_head.")) else f"model.{name}": tensor
        for name, tensor in tensors.items()
        if not name.endswith("rotary_emb.inv_freq")
    }
    ours: Tensors = {}
    for name, tensor in theirs.items():
        found = THEIR_BLOCK.fullmatch(name)
        layer, what, kind = found.groups() if found else ("", "", "")
        if what in NAMES:
            ours[f"transformer.h.{layer}.{NAMES[what]}.{kind}"] = tensor
        elif what in {f"self_attn.{part}" for part in PARTS}:
            ours[f"transformer.h.{layer}.attn.c_attn.{kind}"] = _joined(theirs, layer, kind, config)
        else:
            stem, _, kind = name.rpartition(".")
            ours[f"{TRUNK.get(stem, stem)}.{kind}"] = tensor
    for name in [n for n in ours if ".c_" in n and n.endswith("weight")]:  # the linear layers
        zeros = ours[name].new_zeros(ours[name].size(0))  # (out,)
        ours.setdefault(f"{name.removesuffix('weight')}bias", zeros)
    return ours


def _joined(theirs: Mapping[str, Tensor], layer: str, kind: str, config: GPTConfig) -> Tensor:
    """Join queries, keys and values: (C, ...) and twice (nkv · hs, ...)."""
    rows, parts = [config.n_embd, *2 * [config.kv_heads * config.head_size]], []
    for part, n in zip(PARTS, rows, strict=True):
        name = f"model.layers.{layer}.self_attn.{part}.{kind}"
        if name not in theirs:
            raise UserError(f"{name} is missing")
        shape = (n, config.n_embd) if kind == "weight" else (n,)
        if theirs[name].shape != shape:
            found = tuple(theirs[name].shape)
            raise UserError(f"{name} has shape {found}, but the model needs {shape}")
        parts.append(theirs[name])
    return torch.cat(parts)  # (C + 2 · nkv · hs, ...)


def write_config(config: GPTConfig, eot: int | None) -> dict[str, Any]:
    """Return the `config.json` of a `Starcoder2ForCausalLM`; `eot` None: no special tokens."""
    rope: dict[str, Any] = {"rope_type": "default", "rope_theta": config.rope_base}
    if config.rope_scale != 1.0:
        rope |= {"rope_type": "linear", "factor": config.rope_scale}
    ours = config.to_dict() | {"n_kv_head": config.kv_heads, "window": inner_window(config)}
    return {
        "architectures": ["Starcoder2ForCausalLM"],
        "model_type": "starcoder2",
        "dtype": "float32",
        **{theirs: ours[name] for theirs, (name, _) in DEFAULTS.items()},
        "intermediate_size": 4 * config.n_embd,
        "hidden_act": "gelu_pytorch_tanh" if config.gelu == "tanh" else "gelu",
        "use_bias": config.bias,
        "rope_parameters": rope,
        **{field: possible[0] for field, possible in FIXED.items()},
        **dict.fromkeys(DROPOUTS, config.dropout),
        "initializer_range": 0.02,
        **special_tokens(eot),
        "use_cache": True,
    }


def inner_window(config: GPTConfig) -> int | None:
    """Return the window of the first layer if it is narrower than the block; else it is none."""
    window = config.windows[0]
    return None if window is None or window >= config.block_size else window


def write_tensors(model: GPT) -> Tensors:
    """Return the tensors of a `Starcoder2ForCausalLM`; without biases, its layer norms get 0."""
    config, theirs = model.config, {}
    rows = [config.n_embd, *2 * [config.kv_heads * config.head_size]]
    for name, tensor in gpt2.complete(model).items():
        found = OUR_BLOCK.fullmatch(name)
        stem, _, kind = name.rpartition(".")
        layer, what = found.groups() if found else ("", "")
        block = f"model.layers.{layer}"
        if kind == "bias" and not config.bias and ".c_" in name:
            continue  # use_bias is false
        if what == "attn.c_attn":
            for part, piece in zip(PARTS, torch.split(tensor, rows), strict=True):
                theirs[f"{block}.self_attn.{part}.{kind}"] = piece
        elif found:
            theirs[f"{block}.{BACK[what]}.{kind}"] = tensor
        else:
            theirs[f"{BACK.get(stem, stem)}.{kind}"] = tensor
    return theirs


STARCODER2 = Family(read_config, read_tensors, write_config, write_tensors)
