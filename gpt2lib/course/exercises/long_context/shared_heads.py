"""Notebook 13: Query heads in groups."""

from __future__ import annotations

import math
from typing import Any

from gpt2lib.course.exercise import Case, Exercise, Function, Misconception, case, lazy
from gpt2lib.course.exercises.long_context.shared import distances, draw

torch: Any = lazy("torch")
masks: Any = lazy("gpt2lib.model.masks")


def _grouped(eager: Function) -> Function:
    """The library's attention, for one text without a batch."""
    return lambda q, k, v: eager(q[None], k[None], v[None], masks.Causal())[0]


def _wrong_grouped(
    *,
    head_for: Function | None = None,
    pool: bool = False,
    masked: bool = True,
    scaled: bool = True,
) -> Function:
    """Return grouped attention with one thing changed."""

    def attention(q: Any, k: Any, v: Any) -> Any:
        nh, T, hs = q.shape
        group = nh // k.size(0)
        if pool:
            k, v = (part.mean(0, keepdim=True).expand(nh, -1, -1) for part in (k, v))
        else:
            used = [head_for(h, group, k.size(0)) if head_for else h // group for h in range(nh)]
            k, v = k[used], v[used]  # (nh, T, hs)
        scores = q @ k.transpose(-2, -1) / (math.sqrt(hs) if scaled else 1)
        if masked:
            scores = scores.masked_fill(distances(T) < 0, -torch.inf)
        return scores.softmax(-1) @ v

    return attention


def _grouped_cases() -> list[Case]:
    return [
        case(*draw((4, 5, 3), (2, 5, 3), (2, 5, 3))),
        case(*draw((6, 4, 2), (2, 4, 2), (2, 4, 2), seed=1)),
        case(*draw((8, 4, 2), (4, 4, 2), (4, 4, 2), seed=2)),
    ]


EXERCISE = Exercise(
    id="shared-heads",
    notebook="13",
    title="Query heads in groups",
    signature="my_gqa(q, k, v)",
    reference="gpt2lib.model.attention:eager",
    adapt=_grouped,
    cases=_grouped_cases,
    hints=[
        "Each key/value head serves nh // nkv query heads. Which one does query head h ask?",
        "Heads of a group are neighbours: query head h uses key/value head h // group.",
        "For each h: scores = q[h] @ k[h // group].T / √hs, hide the future, softmax, times "
        "v[h // group]. torch.stack the results.",
    ],
    misconceptions=[
        Misconception(
            "interleaved",
            "query head h took key/value head h % nkv, so the heads of a group lie apart. "
            "Groups are neighbours: h // group (k.repeat_interleave, not k.repeat)",
            wrong=_wrong_grouped(head_for=lambda h, group, nkv: h % nkv),
        ),
        Misconception(
            "divides-by-the-heads",
            "query head h took key/value head h // nkv; a group has nh // nkv query heads, so "
            "divide by that: h // (nh // nkv)",
            wrong=_wrong_grouped(head_for=lambda h, group, nkv: h // nkv),
        ),
        Misconception(
            "one-head-for-all",
            "all query heads asked key/value head 0; that is multi-query attention, and the "
            "other key/value heads are never used",
            wrong=_wrong_grouped(head_for=lambda h, group, nkv: 0),
        ),
        Misconception(
            "averages-heads",
            "you averaged the key/value heads while attending. The mean is for converting a "
            "trained model, once; here each group keeps its own keys and values",
            wrong=_wrong_grouped(pool=True),
        ),
        Misconception(
            "backwards",
            "the groups are in the wrong order: the first heads share key/value head 0, not "
            "the last one",
            wrong=_wrong_grouped(head_for=lambda h, group, nkv: nkv - 1 - h // group),
        ),
        Misconception(
            "no-mask",
            "place 0 changes when a later place does: sharing heads does not replace the "
            "causal mask",
            wrong=_wrong_grouped(masked=False),
        ),
        Misconception(
            "no-scale",
            "the scores are not divided by √hs; sharing keys does not change their size",
            wrong=_wrong_grouped(scaled=False),
        ),
    ],
)
