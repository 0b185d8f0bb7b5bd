"""GPT-2's initial weights, and tying.

| tensor | initial value |
| --- | --- |
| token embedding, position embedding | normal, std 0.02 |
| weights of linear layers | normal, std 0.02 |
| `c_proj` weights, which write into the residual stream | normal, std 0.02 / √(2·n_layer) |
| biases | 0 |
| gains of layer norms | 1 |

Each block adds to the residual stream twice, once in attention and once in the MLP, so
2·n_layer independent terms pile up. A sum of N such terms has √N times the deviation of one,
and the division cancels that: the stream keeps its size at any depth.

Reference: Radford et al. 2019, section 2.3.
"""

from __future__ import annotations

import math

from torch import Tensor, nn

STD = 0.02


def residual_std(n_layer: int) -> float:
    """Return the std of the weights that write into the residual stream of `n_layer` blocks."""
    return STD / math.sqrt(2 * n_layer)


def init_parameter(weight: Tensor, name: str, n_layer: int) -> None:
    """Give one parameter its initial value, in place.

    Args:
        weight: the parameter.
        name: GPT-2's name of it, such as "transformer.h.0.attn.c_proj.weight".
        n_layer: number of blocks of the model.
    """
    if name.endswith("bias"):
        nn.init.zeros_(weight)
    elif weight.dim() == 1:  # the only vectors beside the biases are gains
        nn.init.ones_(weight)
    elif name.endswith("c_proj.weight"):
        nn.init.normal_(weight, std=residual_std(n_layer))
    else:
        nn.init.normal_(weight, std=STD)


def init_weights(module: nn.Module, n_layer: int) -> None:
    """Give every parameter inside `module` GPT-2's initial value, drawn from torch's generator.

    Args:
        module: a model or a part of one, with GPT-2's parameter names.
        n_layer: number of blocks, for the scaling of the residual projections.
    """
    for name, weight in module.named_parameters():
        init_parameter(weight, name, n_layer)


def tie(head: nn.Linear, embedding: nn.Embedding) -> None:
    """Make the output head and the token embedding one parameter, as in GPT-2.

    Both map between tokens and channels with a (V, C) matrix: the embedding reads a row, the
    head compares with every row. Tied, they are one tensor in memory with one gradient, to
    which both uses add.

    Reference: Press and Wolf 2017, section 2; Vaswani et al. 2017, section 3.4.
    """
    head.weight = embedding.weight
