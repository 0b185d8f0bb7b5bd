"""Notebook 13: Global tokens without a leak."""

from __future__ import annotations

from typing import Any

from gpt2lib.course.exercise import Exercise, Function, Misconception, case, lazy
from gpt2lib.course.exercises.long_context.shared import distances, says_of_mask

torch: Any = lazy("torch")
masks: Any = lazy("gpt2lib.model.masks")


def _dense_global(GlobalTokens: Any) -> Function:
    def table(T: int, window: int, places: Any) -> Any:
        near = masks.SlidingWindow(window) | GlobalTokens(tuple(places))
        return masks.dense(masks.Causal() & near, T, T)

    return table


def _wrong_global(combine: Function) -> Function:
    """Return the table that `combine` makes of its parts.

    It is given causal, window, queries that are global, and keys that are global.
    """

    def table(T: int, window: int, places: Any) -> Any:
        distance = distances(T)
        chosen = torch.tensor([t in places for t in range(T)])
        query, key = chosen[:, None].expand(T, T), chosen[None, :].expand(T, T)
        return combine(distance >= 0, distance.abs() < window, query, key)

    return table


EXERCISE = Exercise(
    id="global-mask",
    notebook="13",
    title="Global tokens without a leak",
    signature="my_global_mask(T, window, places)",
    reference="gpt2lib.model.masks:GlobalTokens",
    adapt=_dense_global,
    cases=lambda: [case(7, 2, (3,)), case(8, 3, (1, 5)), case(5, 2, ())],
    hints=[
        "Three tables: causal, the window, and `global`: True where the query or the key is "
        "one of the places.",
        "A pair is allowed if it is near or global, and in any case not ahead. Mind where the "
        "brackets go.",
        "causal & (near | is_global[:, None] | is_global[None, :])",
    ],
    misconceptions=[
        Misconception(
            "leaks-the-future",
            says_of_mask(
                "it is in its future. `causal & near | global` reads as `(causal & near) | "
                "global`, and lets a global token through whatever its place"
            ),
            wrong=_wrong_global(lambda causal, near, query, key: (causal & near) | query | key),
        ),
        Misconception(
            "global-looks-ahead",
            says_of_mask(
                "a global token that sees the whole text hands it on to everyone after it, "
                "the answers included"
            ),
            wrong=_wrong_global(lambda causal, near, query, key: (causal & (near | key)) | query),
        ),
        Misconception(
            "seen-before-it-was-read",
            says_of_mask("a global token is seen by those after it, not by those before it"),
            wrong=_wrong_global(lambda causal, near, query, key: (causal & (near | query)) | key),
        ),
        Misconception(
            "only-looked-at",
            says_of_mask(
                "a global token also looks at all places before it, beyond the window: that "
                "is how it collects what it hands on"
            ),
            wrong=_wrong_global(lambda causal, near, query, key: causal & (near | key)),
        ),
        Misconception(
            "only-looks",
            says_of_mask(
                "everyone after a global token sees it, however far away: otherwise what it "
                "has collected reaches nobody"
            ),
            wrong=_wrong_global(lambda causal, near, query, key: causal & (near | query)),
        ),
        Misconception(
            "no-window",
            says_of_mask("you left out the window: ordinary places see their neighbours, too"),
            wrong=_wrong_global(lambda causal, near, query, key: causal & (query | key)),
        ),
    ],
)
