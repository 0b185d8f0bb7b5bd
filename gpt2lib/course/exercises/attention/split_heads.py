"""Notebook 04: Channels become heads."""

from __future__ import annotations

from typing import Any

from gpt2lib.course.exercise import Exercise, Function, Misconception, case, lazy
from gpt2lib.course.exercises.attention.shared import Watch, draw, make_layer

torch: Any = lazy("torch")
config: Any = lazy("gpt2lib.config")


def _split(kind: Any) -> Function:
    """Run the layer with a c_attn that changes nothing, and see how it splits its queries."""

    def split(x: Any, n_head: int) -> Any:
        C, watch = x.size(-1), Watch()
        weights = {"c_attn.weight": torch.eye(C).repeat(3, 1), "c_attn.bias": torch.zeros(3 * C)}
        torch.func.functional_call(make_layer(kind, C, n_head), weights, (x, watch))
        return watch.seen[0]

    return split


EXERCISE = Exercise(
    id="split-heads",
    notebook="04",
    title="Channels become heads",
    signature="my_split_heads(x, n_head)",
    reference="gpt2lib.model.attention:CausalSelfAttention",
    adapt=_split,
    shows="gpt2lib.model.attention:CausalSelfAttention.forward",
    cases=lambda: [case(*draw((2, 4, 6)), 3), case(*draw((1, 6, 8), seed=1), 2)],
    hints=[
        "Head 0 owns the first hs channels of every place, head 1 the next hs, and so on.",
        "x.view(B, T, n_head, hs) cuts the channels and moves nothing. Which two dimensions "
        "must change places?",
        "x.view(B, T, n_head, C // n_head).transpose(1, 2)",
    ],
    misconceptions=[
        Misconception(
            "view-without-transpose",
            "the shape is right and the numbers are not: view(B, n_head, T, hs) cuts time into "
            "pieces, so a head gets some places whole. Cut the channels first, with "
            "view(B, T, n_head, hs), then swap",
            wrong=lambda x, n_head: x.reshape(x.size(0), n_head, x.size(1), -1),
        ),
        Misconception(
            "forgot-to-swap",
            "this is (B, T, nh, hs): well cut, but attention works on the last two dimensions, "
            "which must be time and head size: transpose(1, 2)",
            wrong=lambda x, n_head: x.reshape(x.size(0), x.size(1), n_head, -1),
        ),
        Misconception(
            "interleaved",
            "head 0 got every n_head-th channel; GPT-2's heads are slices of neighbours: view "
            "as (B, T, n_head, hs), not (B, T, hs, n_head)",
            wrong=lambda x, n_head: x.reshape(x.size(0), x.size(1), -1, n_head).permute(0, 3, 1, 2),
        ),
        Misconception(
            "time-last",
            "this is (B, nh, hs, T): one transposition too many; time comes before head size",
            wrong=lambda x, n_head: x.reshape(x.size(0), x.size(1), n_head, -1).permute(0, 2, 3, 1),
        ),
    ],
)
