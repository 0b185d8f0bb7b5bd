"""Notebook 04: The whole layer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gpt2lib.course.exercise import Case, Exercise, Function, Misconception, case, lazy
from gpt2lib.course.exercises.attention.shared import Watch, causal_table, draw, make_layer

torch: Any = lazy("torch")
config: Any = lazy("gpt2lib.config")


def _whole(kind: Any) -> Function:
    """Run the layer with the weights that are given."""

    def self_attention(
        x: Any, W_attn: Any, b_attn: Any, W_proj: Any, b_proj: Any, n_head: int
    ) -> Any:
        names = ("c_attn.weight", "c_attn.bias", "c_proj.weight", "c_proj.bias")
        weights = dict(zip(names, (W_attn, b_attn, W_proj, b_proj), strict=True))
        layer = make_layer(kind, x.size(-1), n_head)
        return torch.func.functional_call(layer, weights, (x, Watch()))

    return self_attention


def _wrong_layer(
    *,
    order: Sequence[int] = (0, 1, 2),
    project: bool = True,
    join: bool = True,
    scaled_by: Function = lambda C, n_head: C // n_head,
    one_head: bool = False,
    masked: bool = True,
) -> Function:
    """Return the layer with one thing changed."""

    def layer(x: Any, W_attn: Any, b_attn: Any, W_proj: Any, b_proj: Any, n_head: int) -> Any:
        B, T, C = x.shape
        heads = 1 if one_head else n_head
        parts = (x @ W_attn.T + b_attn).split(C, dim=-1)
        q, k, v = (
            parts[i].view(B, T, heads, C // heads).transpose(1, 2) for i in order
        )  # 3 × (B, nh, T, hs)
        scores = q @ k.transpose(-2, -1) / scaled_by(C, heads) ** 0.5
        if masked:
            scores = scores.masked_fill(~causal_table(T), -torch.inf)
        y = scores.softmax(-1) @ v  # (B, nh, T, hs)
        y = (y.transpose(1, 2) if join else y).reshape(B, T, C)
        return y @ W_proj.T + b_proj if project else y

    return layer


def _layer_cases() -> list[Case]:
    made = []
    for B, T, C, n_head in ((2, 5, 12, 3), (1, 4, 8, 2)):
        x, *weights = draw((B, T, C), (3 * C, C), (3 * C,), (C, C), (C,), seed=C)
        made.append(case(x, *(w / C**0.5 for w in weights), n_head))
    return made


EXERCISE = Exercise(
    id="self-attention",
    notebook="04",
    title="The whole layer",
    signature="my_self_attention(x, W_attn, b_attn, W_proj, b_proj, n_head)",
    reference="gpt2lib.model.attention:CausalSelfAttention",
    adapt=_whole,
    cases=_layer_cases,
    hints=[
        "x @ W_attn.T + b_attn is (B, T, 3·C). Cut it into q, k and v along the last "
        "dimension, in this order.",
        "Split each into heads, attend, and bring the heads side by side again: "
        "y.transpose(1, 2).reshape(B, T, C).",
        "At the end y @ W_proj.T + b_proj. The scale is √hs with hs = C / n_head, not √C.",
    ],
    misconceptions=[
        Misconception(
            "split-order",
            "queries and keys are swapped: c_attn gives q, k, v in this order",
            wrong=_wrong_layer(order=(1, 0, 2)),
        ),
        Misconception(
            "values-first",
            "the three parts come as q, k, v; you took the values first",
            wrong=_wrong_layer(order=(1, 2, 0)),
        ),
        Misconception(
            "forgot-c-proj",
            "the heads lie side by side but were never mixed: apply W_proj and b_proj",
            wrong=_wrong_layer(project=False),
        ),
        Misconception(
            "joined-without-swap",
            "the heads were joined while time was still behind them: transpose(1, 2) before "
            "reshape(B, T, C), or the places are shuffled",
            wrong=_wrong_layer(join=False),
        ),
        Misconception(
            "scaled-by-the-width",
            "you divided by √C; a score is a sum over one head's hs = C / n_head channels, so "
            "divide by √hs",
            wrong=_wrong_layer(scaled_by=lambda C, n_head: C),
        ),
        Misconception(
            "one-big-head",
            "n_head is not used: all channels make one table of weights, where each head must "
            "have its own",
            wrong=_wrong_layer(one_head=True),
        ),
        Misconception(
            "no-mask",
            "the past changes when the future does: there is no causal mask",
            wrong=_wrong_layer(masked=False),
        ),
    ],
)
