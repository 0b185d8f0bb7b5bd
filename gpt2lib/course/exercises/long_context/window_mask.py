"""Notebook 13: A window that slides."""

from __future__ import annotations

from typing import Any

from gpt2lib.course.exercise import Exercise, Function, Misconception, case, lazy
from gpt2lib.course.exercises.long_context.shared import distances, says_of_mask

torch: Any = lazy("torch")
masks: Any = lazy("gpt2lib.model.masks")


def _dense_window(SlidingWindow: Any) -> Function:
    return lambda T, window: masks.dense(masks.Causal() & SlidingWindow(window), T, T)


EXERCISE = Exercise(
    id="window-mask",
    notebook="13",
    title="A window that slides",
    signature="my_window_mask(T, window)",
    reference="gpt2lib.model.masks:SlidingWindow",
    adapt=_dense_window,
    cases=lambda: [case(1, 1), case(6, 3), case(7, 2), case(5, 9)],
    hints=[
        "A query at place i sees `window` keys: itself, and the window - 1 before it.",
        "Write the distance i - j as a table: places[:, None] - places[None, :].",
        "(distance >= 0) & (distance < window)",
    ],
    misconceptions=[
        Misconception(
            "one-too-many",
            says_of_mask(
                "a query sees window + 1 keys. The window counts the query itself, so the "
                "distance must be below window, not up to it"
            ),
            wrong=lambda T, window: (distances(T) >= 0) & (distances(T) <= window),
        ),
        Misconception(
            "two-sided",
            says_of_mask(
                "that is ahead of it. Longformer's window has two sides, a model that writes "
                "has only the left one"
            ),
            wrong=lambda T, window: distances(T).abs() < window,
        ),
        Misconception(
            "forgets-itself",
            says_of_mask("the window begins with the query itself, at distance 0"),
            wrong=lambda T, window: (distances(T) >= 1) & (distances(T) <= window),
        ),
        Misconception(
            "window-unused",
            says_of_mask("its distance is the whole window or more; this is the causal mask"),
            wrong=lambda T, window: distances(T) >= 0,
        ),
        Misconception(
            "looks-ahead",
            says_of_mask(
                "the window lies on the wrong side. Rows are queries, and i - j is not "
                "negative for what lies behind"
            ),
            wrong=lambda T, window: (distances(T) <= 0) & (distances(T) > -window),
        ),
        Misconception(
            "blocks-for-windows",
            says_of_mask(
                "you cut the text into blocks of `window` tokens. A window slides: each query "
                "has its own"
            ),
            wrong=lambda T, window: (
                (distances(T) >= 0)
                & (torch.arange(T)[:, None] // window == torch.arange(T)[None, :] // window)
            ),
        ),
        Misconception(
            "float-mask",
            "these are numbers; a mask answers yes or no, so return booleans",
            wrong=lambda T, window: ((distances(T) >= 0) & (distances(T) < window)).float(),
        ),
    ],
)
