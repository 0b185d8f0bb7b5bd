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

from torch import nn

STD = 0.02


def init_weights(module: nn.Module, n_layer: int) -> None:
    """Give every parameter inside `module` GPT-2's initial value, drawn from torch's generator.

    Args:
        module: a model or a part of one, with GPT-2's parameter names.
        n_layer: number of blocks, for the scaling of the residual projections.
    """
    for name, part in module.named_modules():
        if isinstance(part, nn.Linear | nn.Embedding):
            residual = name.endswith("c_proj")
            nn.init.normal_(part.weight, std=STD / math.sqrt(2 * n_layer) if residual else STD)
        elif isinstance(part, nn.LayerNorm):
            nn.init.ones_(part.weight)
        bias = getattr(part, "bias", None)
        if isinstance(bias, nn.Parameter):
            nn.init.zeros_(bias)


def tie(head: nn.Linear, embedding: nn.Embedding) -> None:
    """Make the output head and the token embedding one parameter, as in GPT-2.

    Both map between tokens and channels with a (V, C) matrix: the embedding reads a row, the
    head compares with every row. Tied, they are one tensor in memory with one gradient, to
    which both uses add.

    Reference: Press and Wolf 2017, section 2; Vaswani et al. 2017, section 3.4.
    """
    head.weight = embedding.weight
