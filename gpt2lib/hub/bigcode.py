"""`GPTBigCodeForCausalLM` of transformers: a GPT-2 in which all heads share one key/value head.

Names and fields are GPT-2's, but the weights are kept as we keep them, (out, in).

Shapes: C channels, nh heads, hs head size.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from gpt2lib.config import GPTConfig
from gpt2lib.hub import gpt2
from gpt2lib.hub.family import Family, Tensors, refuse_other

FIXED = ("layer_norm_epsilon", "scale_attn_weights", "add_cross_attention")


def read_config(values: Mapping[str, Any]) -> GPTConfig:
    """Translate the `config.json` of a GPTBigCode.

    Raises:
        UserError: naming the first field whose value our model cannot represent.
    """
    refuse_other(values, {"multi_query": (True, False)})
    ours = gpt2.read_config(values, "gelu_pytorch_tanh")
    return ours.replace(n_kv_head=1) if values.get("multi_query", True) else ours


def read_tensors(tensors: Mapping[str, Tensor], config: GPTConfig) -> Tensors:
    """Translate the tensors of a GPTBigCode; errors as in `gpt2.our_names`.

    Where every head has its own keys and values, the rows of `c_attn` lie head by head: the
    queries, keys and values of the first, then those of the second.
    """
    ours = gpt2.our_names(tensors)
    own_heads = config.kv_heads == config.n_head
    for name, tensor in ours.items():
        if own_heads and ".c_attn." in name and tensor.size(0) == 3 * config.n_embd:
            rows = tensor.view(config.n_head, 3, config.head_size, *tensor.shape[1:])
            ours[name] = rows.transpose(0, 1).reshape(tensor.shape)  # (nh, 3, ...) to (3, nh, ...)
    return ours


def write_config(config: GPTConfig, eot: int | None) -> dict[str, Any]:
    """Return the `config.json` of a `GPTBigCodeForCausalLM`; `eot` None: no special tokens."""
    shared = gpt2.write_config(config, eot)
    for field in ("n_ctx", *(field for field in gpt2.FIXED if field not in FIXED)):
        del shared[field]
    return shared | {
        "architectures": ["GPTBigCodeForCausalLM"],
        "model_type": "gpt_bigcode",
        "activation_function": "gelu_pytorch_tanh" if config.gelu == "tanh" else "gelu",
        "multi_query": True,
    }


BIGCODE = Family(read_config, read_tensors, write_config, gpt2.complete)
