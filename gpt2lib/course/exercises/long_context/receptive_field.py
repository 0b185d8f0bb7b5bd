"""Notebook 13: How far a stack of windows sees."""

from __future__ import annotations

import math
from typing import Any

from gpt2lib.course.exercise import Exercise, Function, Misconception, case, lazy

torch: Any = lazy("torch")
config: Any = lazy("gpt2lib.config")
masks: Any = lazy("gpt2lib.model.masks")


def _reach(layer_mask: Function) -> Function:
    """Follow the masks of the layers from the last place down, and count the places reached."""

    def field(windows: Any, dilation: int) -> int:
        T = sum(windows) * dilation + 2  # more than can be reached
        shape = config.GPTConfig(
            n_layer=len(windows), block_size=T, window=tuple(windows), dilation=dilation
        )
        seen = torch.zeros(T, dtype=torch.bool)
        seen[-1] = True
        for layer in reversed(range(len(windows))):
            seen = masks.dense(layer_mask(shape, layer), T, T)[seen].any(0)
        return int(T - seen.float().argmax())  # from the first place reached to the last

    return field


EXERCISE = Exercise(
    id="receptive-field",
    notebook="13",
    title="How far a stack of windows sees",
    signature="my_receptive_field(windows, dilation)",
    reference="gpt2lib.model.masks:layer_mask",
    adapt=_reach,
    cases=lambda: [
        case((3,), 1),
        case((3, 3, 3), 1),
        case((2, 4, 8), 2),
        case((4, 5), 3),
    ],
    hints=[
        "One layer with window w reaches w - 1 places back. With dilation d it reaches "
        "(w - 1) · d.",
        "The next layer looks from there, so distances add up. And the place itself counts.",
        "sum((w - 1) * dilation for w in windows) + 1",
    ],
    misconceptions=[
        Misconception(
            "adds-windows",
            lambda seen: (
                f"{seen.got} is the sum of the windows, but neighbouring windows overlap in "
                f"the place that they start from: a layer adds w - 1, not w"
            ),
            wrong=lambda windows, dilation: sum(windows) * dilation,
        ),
        Misconception(
            "forgets-the-place-itself",
            lambda seen: (
                f"{seen.got} is how far back the stack reaches; with the place itself these "
                f"are {seen.expected} places"
            ),
            wrong=lambda windows, dilation: sum(w - 1 for w in windows) * dilation,
        ),
        Misconception(
            "multiplies-layers",
            "you multiplied the windows. Distances add up from layer to layer",
            wrong=lambda windows, dilation: math.prod(windows) * dilation,
        ),
        Misconception(
            "widest-layer-only",
            "that is what one layer reaches. The layer above looks at places that have looked "
            "further back themselves",
            wrong=lambda windows, dilation: (max(windows) - 1) * dilation + 1,
        ),
        Misconception(
            "forgets-dilation",
            "dilation is not used: the keys of a window lie that far apart, so each layer "
            "reaches that many times as far",
            wrong=lambda windows, dilation: sum(w - 1 for w in windows) + 1,
        ),
        Misconception(
            "two-sided",
            "you counted both sides. That is Longformer's encoder; nothing reaches a place "
            "from its future here",
            wrong=lambda windows, dilation: 2 * sum(w - 1 for w in windows) * dilation + 1,
        ),
    ],
)
