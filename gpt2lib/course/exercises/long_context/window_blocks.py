"""Notebook 13: A window at the cost of a window."""

from __future__ import annotations

import math
from typing import Any

from gpt2lib.course.exercise import Exercise, Function, Misconception, case, lazy
from gpt2lib.course.exercises.long_context.shared import distances, draw

torch: Any = lazy("torch")
masks: Any = lazy("gpt2lib.model.masks")
watching: Any = lazy("gpt2lib.course.watching")


def _chunked(chunked: Function) -> Function:
    def attention(q: Any, k: Any, v: Any, window: int) -> Any:
        mask = masks.Causal() & masks.SlidingWindow(window)
        return chunked(q[None, None], k[None, None], v[None, None], mask)[0, 0]

    return attention


def _wrong_blocks(
    *,
    back: int = 1,
    slide: bool = True,
    wider: int = 0,
    causal: bool = True,
    whole: bool = False,
    pad: bool = False,
) -> Function:
    """Return blockwise attention with one thing changed."""

    def attention(q: Any, k: Any, v: Any, window: int) -> Any:
        T, hs = q.shape
        ys = []
        for start in range(0, T - T % window if whole else T, window):
            end = min(start + window, T)
            first = max(0, start - back * window)
            keys, values, distance = k[first:end], v[first:end], distances(T)[start:end, first:end]
            if pad and start == 0:  # a block of zeros before the first one
                zeros = torch.zeros(window, hs)
                keys, values = torch.cat((zeros, keys)), torch.cat((zeros, values))
                before = torch.arange(end)[:, None] + torch.arange(window, 0, -1)[None, :]
                distance = torch.cat((before, distance), dim=1)
            allowed = (distance < window + wider) if slide else (distance == distance)
            if causal:
                allowed = allowed & (distance >= 0)
            scores = (q[start:end] @ keys.T / math.sqrt(hs)).masked_fill(~allowed, -torch.inf)
            ys.append(scores.softmax(-1) @ values)
        return torch.cat(ys) if ys else q[:0]

    return attention


def _dense_table(my_chunked: Function) -> str | None:
    T, window = 256, 4
    q, k, v = draw((T, 2), (T, 2), (T, 2), seed=3)
    with watching.Tables(math.prod) as tables:
        my_chunked(q, k, v, window)
    if tables.largest < T * T:
        return None
    return (
        f"for {T} positions and a window of {window} a tensor of {tables.largest:,} numbers was "
        f"made: a table of every position by every other, which is what the blocks are to avoid. "
        "Make scores and mask of one block at a time"
    )


EXERCISE = Exercise(
    id="window-blocks",
    notebook="13",
    title="A window at the cost of a window",
    signature="my_chunked(q, k, v, window)",
    reference="gpt2lib.model.kernels.window:chunked",
    adapt=_chunked,
    cases=lambda: [
        case(*draw((8, 3), (8, 3), (8, 3)), 4),
        case(*draw((7, 2), (7, 2), (7, 2), seed=1), 3),
        case(*draw((3, 2), (3, 2), (3, 2), seed=2), 5),
    ],
    hints=[
        "Cut the queries into blocks of `window`. The block from start to end needs the keys "
        "from max(0, start - window) to end, and no others.",
        "Inside a block not every key is allowed: use the distance of the true places, "
        "0 <= i - j < window.",
        "for start in range(0, T, window): slice q[start : start + window], slice k and v from "
        "max(0, start - window), mask, softmax, and torch.cat the outputs.",
    ],
    misconceptions=[
        Misconception(
            "own-block-only",
            "the first query of each later block sees itself only: it needs the keys of the "
            "block before, too",
            wrong=_wrong_blocks(back=0),
        ),
        Misconception(
            "window-not-sliding",
            "inside two blocks the last queries see up to twice the window. Two blocks of keys "
            "hold all that a query may see, and more: hide distances of `window` and above",
            wrong=_wrong_blocks(slide=False),
        ),
        Misconception(
            "future-of-the-block",
            "queries see keys that come later in their own block: the causal mask holds inside "
            "a block as well",
            wrong=_wrong_blocks(causal=False),
        ),
        Misconception(
            "drops-the-rest",
            lambda seen: (
                f"the last {len(seen.expected) - len(seen.got)} places are missing: T need not "
                f"be a multiple of the window, and the last block may be shorter"
            ),
            wrong=_wrong_blocks(whole=True),
        ),
        Misconception(
            "attends-to-padding",
            "the first block has nothing before it. Zeros put there as keys get weight, since "
            "a score of 0 is not a score of −∞: hide them, or leave them out",
            wrong=_wrong_blocks(pad=True),
        ),
        Misconception(
            "one-too-many",
            "a query sees window + 1 keys: the window counts the query itself, so hide "
            "distances of `window` and above, 0 <= i - j < window",
            wrong=_wrong_blocks(wider=1),
        ),
        Misconception("dense-table", test=_dense_table, when_right=True),
    ],
)
