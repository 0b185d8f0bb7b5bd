"""Notebook 05: Turn every pair at every place."""

from __future__ import annotations

from typing import Any

from gpt2lib.course.exercise import Case, Exercise, Function, Misconception, Seen, case, lazy
from gpt2lib.course.exercises.positions.shared import draw, make_rotation, wrong_rope

torch: Any = lazy("torch")
config: Any = lazy("gpt2lib.config")


def _rope(kind: Any) -> Function:
    def rope(x: Any, base: float) -> Any:
        T, hs = x.shape
        return make_rotation(kind, torch.arange(T), hs, base)(x[None, None])[0, 0]

    return rope


def _half_after_half(x: Any, base: float) -> Any:
    T, hs = x.shape
    angles = torch.arange(T)[:, None] * base ** (-torch.arange(0, hs, 2) / hs)
    first, second = x.chunk(2, dim=1)
    first = first * angles.cos() - second * angles.sin()
    return torch.cat((first, first * angles.sin() + second * angles.cos()), dim=1)


def _constant_places(T: int, scale: float) -> Any:
    return torch.ones(T)


def _from_one(T: int, scale: float) -> Any:
    return torch.arange(1, T + 1)


def _rope_cases() -> list[Case]:
    return [case(draw(5, 8), 10000.0), case(draw(7, 4, seed=1), 100.0)]


def _length(seen: Seen) -> str:
    row = seen.index[0]
    before, after = seen.case.args[0][row].norm(), seen.got[row].norm()
    return (
        f"row {row} had length {float(before):.2f} and now has {float(after):.2f}: a rotation "
        "keeps lengths. One of the two sines needs a minus: the first half becomes "
        "first·cos - second·sin"
    )


EXERCISE = Exercise(
    id="rope",
    notebook="05",
    title="Turn every pair at every place",
    signature="my_rope(x, base)",
    reference="gpt2lib.model.positions:RotaryPositions",
    adapt=_rope,
    cases=_rope_cases,
    hints=[
        "The angles are a table (T, hs/2): place p times frequency i. my_frequencies gives the "
        "frequencies, torch.arange(T) the places.",
        "first, second = x.chunk(2, dim=-1): channel i of first and channel i of second are a "
        "pair. Turn it as in my_turn.",
        "torch.cat((first * cos - second * sin, first * sin + second * cos), dim=-1)",
    ],
    misconceptions=[
        Misconception(
            "turns-backwards",
            "every pair turns the other way round. If queries and keys both do, the scores "
            "depend on the distance only, too, and a model trained so works. But it cannot "
            "exchange weights with models that turn the usual way",
            wrong=wrong_rope(sign=-1),
        ),
        Misconception(
            "pairs-neighbours",
            "you paired channels 0 and 1, 2 and 3, and so on, as the paper does. That is RoPE, "
            "with its channels in another order; here channel i goes with channel i + hs/2, as "
            "in the library and in transformers",
            wrong=wrong_rope(neighbours=True),
        ),
        Misconception(
            "halves-paired-angles-doubled",
            "you paired the halves but laid the angles out for neighbours, each twice in a row "
            "(repeat_interleave): the two channels of a pair turn by different angles. Lay the "
            "angles out as the channels are: all of them, and all of them again",
            wrong=wrong_rope(mixed=True),
        ),
        Misconception(
            "overwrites-the-first-half",
            "the second half was made from the new first half: keep both old halves until both "
            "new ones are made",
            wrong=_half_after_half,
        ),
        Misconception(
            "no-minus",
            _length,
            wrong=wrong_rope(cross=(1, 1)),
        ),
        Misconception(
            "place-ignored",
            "every row is turned by the same angles: multiply the frequencies by the place",
            wrong=wrong_rope(places=_constant_places),
        ),
        Misconception(
            "places-from-one",
            "row 0 is turned already: places count from 0. The scores would not notice, since "
            "only distances matter, but vectors that are compared or exchanged would",
            wrong=wrong_rope(places=_from_one),
        ),
    ],
)
