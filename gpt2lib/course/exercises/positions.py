"""Exercises of notebook 05."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from gpt2lib.course.exercise import Case, Exercise, Misconception, Seen, case, lazy

torch: Any = lazy("torch")
config: Any = lazy("gpt2lib.config")

Function = Callable[..., Any]


def _draw(*shape: int, seed: int = 0) -> Any:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def _rotation(kind: Any, places: Any, head_size: int, base: float, scale: float = 1.0) -> Any:
    """Return the library's turn for heads of this size."""
    shape = config.GPTConfig(
        n_embd=head_size, n_head=1, position="rope", rope_base=base, rope_scale=scale
    )
    return kind(shape).rotation(places)


def _pair(kind: Any) -> Function:
    """A head of two channels is one pair."""

    def turn(x: Any, angle: float) -> Any:
        a = torch.tensor([angle])
        return kind(a.cos(), a.sin())(x)

    return turn


def _frequencies(kind: Any) -> Function:
    """At place 1 the angles are the frequencies, all within half a turn."""

    def frequencies(head_size: int, base: float) -> Any:
        turn = _rotation(kind, torch.ones(1), head_size, base)
        return torch.atan2(turn.sin, turn.cos)[0, : head_size // 2]

    return frequencies


def _rope(kind: Any) -> Function:
    def rope(x: Any, base: float) -> Any:
        T, hs = x.shape
        return _rotation(kind, torch.arange(T), hs, base)(x[None, None])[0, 0]

    return rope


def _interpolated(kind: Any) -> Function:
    def interpolated(x: Any, base: float, scale: float) -> Any:
        T, hs = x.shape
        return _rotation(kind, torch.arange(T), hs, base, scale)(x[None, None])[0, 0]

    return interpolated


def _wrong_pair(
    *,
    a: Function = lambda x, y, c, s: x * c - y * s,
    b: Function = lambda x, y, c, s: x * s + y * c,
) -> Function:
    """Return the turn of a pair with one of the two coordinates changed."""

    def turn(x: Any, angle: float) -> Any:
        cos, sin = math.cos(angle), math.sin(angle)
        first = a(x[0], x[1], cos, sin)
        return torch.stack((first, b(x[0], x[1], cos, sin)))

    return turn


def _overwritten(x: Any, angle: float) -> Any:
    y = x.clone()
    y[0] = y[0] * math.cos(angle) - y[1] * math.sin(angle)
    y[1] = y[0] * math.sin(angle) + y[1] * math.cos(angle)
    return y


def _wrong_frequencies(exponent: Function) -> Function:
    """Return base to another exponent, which is given the pairs 0 .. hs/2 - 1 and hs."""

    def frequencies(head_size: int, base: float) -> Any:
        return base ** exponent(torch.arange(head_size // 2), head_size)

    return frequencies


def _wrong_rope(
    *,
    places: Function = lambda T, scale: torch.arange(T) / scale,
    scaled_base: Function = lambda base, scale, hs: base,
    sign: int = 1,
    cross: tuple[int, int] = (-1, 1),
    neighbours: bool = False,
    mixed: bool = False,
    before: Function = lambda x, scale: x,
) -> Function:
    """Return RoPE with one thing changed."""

    def rope(x: Any, base: float, scale: float = 1.0) -> Any:
        T, hs = x.shape
        x = before(x, scale)
        speeds = scaled_base(base, scale, hs) ** (-torch.arange(0, hs, 2) / hs)
        angles = places(T, scale)[:, None] * speeds  # (T, hs/2)
        cos, sin = angles.cos(), angles.sin() * sign
        if neighbours:
            a, b = x[:, ::2], x[:, 1::2]
            return torch.stack((a * cos - b * sin, a * sin + b * cos), dim=-1).flatten(1)
        a, b = x.chunk(2, dim=1)
        across = torch.cat((cross[0] * b, cross[1] * a), dim=1)
        wide = [t.repeat_interleave(2, 1) if mixed else t.repeat(1, 2) for t in (cos, sin)]
        return x * wide[0] + across * wide[1]

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
    return [case(_draw(5, 8), 10000.0), case(_draw(7, 4, seed=1), 100.0)]


def _interpolated_cases() -> list[Case]:
    return [case(_draw(8, 8), 10000.0, 4.0), case(_draw(6, 4, seed=1), 100.0, 2.0)]


def _length(seen: Seen) -> str:
    row = seen.index[0]
    before, after = seen.case.args[0][row].norm(), seen.got[row].norm()
    return (
        f"row {row} had length {float(before):.2f} and now has {float(after):.2f}: a rotation "
        "keeps lengths. One of the two sines needs a minus: the first half becomes "
        "first·cos - second·sin"
    )


EXERCISES = [
    Exercise(
        id="turn-a-pair",
        notebook="05",
        title="Turn a point in the plane",
        signature="my_turn(x, angle)",
        reference="gpt2lib.model.positions:Rotation",
        adapt=_pair,
        cases=lambda: [
            case(torch.tensor([1.0, 0.0]), math.pi / 2),
            case(_draw(2), 0.3),
            case(_draw(2, seed=1), -2.0),
        ],
        hints=[
            "Where do (1, 0) and (0, 1) go? To (cos, sin) and (-sin, cos). The rest is their sum.",
            "The new first coordinate is x[0]·cos - x[1]·sin.",
            "c, s = math.cos(angle), math.sin(angle); "
            "torch.stack((x[0] * c - x[1] * s, x[0] * s + x[1] * c))",
        ],
        misconceptions=[
            Misconception(
                "turns-backwards",
                "this turns clockwise: (1, 0) turned by a quarter must arrive at (0, 1), not at "
                "(0, -1). The minus belongs to the first coordinate",
                wrong=_wrong_pair(
                    a=lambda x, y, c, s: x * c + y * s, b=lambda x, y, c, s: y * c - x * s
                ),
            ),
            Misconception(
                "no-minus",
                "both sines are added, which stretches and squeezes the plane: lengths change. "
                "In the first coordinate the sine is subtracted",
                wrong=_wrong_pair(a=lambda x, y, c, s: x * c + y * s),
            ),
            Misconception(
                "overwrites-the-first",
                "the second coordinate was made from the new first one: keep both old ones until "
                "both new ones are made",
                wrong=_overwritten,
            ),
            Misconception(
                "in-degrees",
                "the angle is in radians, in which a full turn is 2π, about 6.28; you took it as "
                "degrees",
                wrong=lambda x, angle: _wrong_pair()(x, math.radians(angle)),
            ),
            Misconception(
                "sine-and-cosine-swapped",
                "sine and cosine have changed places: an angle of 0 must leave the point where it "
                "is, and cos(0) is 1",
                wrong=lambda x, angle: torch.stack(
                    (
                        x[0] * math.sin(angle) - x[1] * math.cos(angle),
                        x[0] * math.cos(angle) + x[1] * math.sin(angle),
                    )
                ),
            ),
        ],
    ),
    Exercise(
        id="rope-frequencies",
        notebook="05",
        title="How fast each pair turns",
        signature="my_frequencies(head_size, base)",
        reference="gpt2lib.model.positions:RotaryPositions",
        adapt=_frequencies,
        shows="gpt2lib.model.positions:RotaryPositions.rotation",
        cases=lambda: [case(8, 10000.0), case(64, 10000.0), case(6, 100.0)],
        hints=[
            "There is one frequency for each pair, so hs/2 of them. Pair 0 turns by 1 radian a "
            "place.",
            "Pair i turns by base^(-2i/hs). torch.arange(0, head_size, 2) holds the 2i.",
            "base ** (-torch.arange(0, head_size, 2) / head_size)",
        ],
        misconceptions=[
            Misconception(
                "i-without-the-two",
                "the exponent is -2i/hs, and you took -i/hs: the slowest pair then turns about "
                "1/√base a place, not about 1/base",
                wrong=_wrong_frequencies(lambda i, hs: -i / hs),
            ),
            Misconception(
                "exponent-without-minus",
                "the frequencies grow with i: the minus of the exponent is missing. The last pairs "
                "are the slow ones",
                wrong=_wrong_frequencies(lambda i, hs: 2 * i / hs),
            ),
            Misconception(
                "one-a-channel",
                lambda seen: (
                    f"you returned {len(seen.got)} frequencies for heads of "
                    f"{seen.case.args[0]} channels; two channels make one pair, so there are "
                    f"{len(seen.expected)}"
                ),
                wrong=lambda head_size, base: base ** (-torch.arange(head_size) / head_size),
            ),
            Misconception(
                "twice-in-a-row",
                lambda seen: (
                    f"you returned {len(seen.got)} numbers, each frequency twice; here we want one "
                    f"for each pair, {len(seen.expected)}"
                ),
                wrong=lambda head_size, base: (
                    base ** (-torch.arange(0, head_size, 2) / head_size)
                ).repeat(2),
            ),
            Misconception(
                "counts-from-one",
                "i counts from 0: the first pair turns by base^0 = 1 radian a place",
                wrong=_wrong_frequencies(lambda i, hs: -2 * (i + 1) / hs),
            ),
            Misconception(
                "reaches-the-base",
                "the last pair turns by exactly 1/base here, but the exponents are 2i/hs and stop "
                "one short of 1: divide by hs, not by hs - 2 (beware of linspace)",
                wrong=_wrong_frequencies(lambda i, hs: -2 * i / (hs - 2)),
            ),
            Misconception(
                "wavelengths",
                "these are wavelengths, places for a full turn. Radians a place are 2π divided by "
                "them",
                wrong=lambda head_size, base: (
                    2 * math.pi * base ** (torch.arange(0, head_size, 2) / head_size)
                ),
            ),
        ],
    ),
    Exercise(
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
                wrong=_wrong_rope(sign=-1),
            ),
            Misconception(
                "pairs-neighbours",
                "you paired channels 0 and 1, 2 and 3, and so on, as the paper does. That is RoPE, "
                "with its channels in another order; here channel i goes with channel i + hs/2, as "
                "in the library and in transformers",
                wrong=_wrong_rope(neighbours=True),
            ),
            Misconception(
                "halves-paired-angles-doubled",
                "you paired the halves but laid the angles out for neighbours, each twice in a row "
                "(repeat_interleave): the two channels of a pair turn by different angles. Lay the "
                "angles out as the channels are: all of them, and all of them again",
                wrong=_wrong_rope(mixed=True),
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
                wrong=_wrong_rope(cross=(1, 1)),
            ),
            Misconception(
                "place-ignored",
                "every row is turned by the same angles: multiply the frequencies by the place",
                wrong=_wrong_rope(places=_constant_places),
            ),
            Misconception(
                "places-from-one",
                "row 0 is turned already: places count from 0. The scores would not notice, since "
                "only distances matter, but vectors that are compared or exchanged would",
                wrong=_wrong_rope(places=_from_one),
            ),
        ],
    ),
    Exercise(
        id="interpolated-rope",
        notebook="05",
        title="More places on the same arc",
        signature="my_interpolated_rope(x, base, scale)",
        reference="gpt2lib.model.positions:RotaryPositions",
        adapt=_interpolated,
        shows="gpt2lib.model.positions:RotaryPositions.rotation",
        cases=_interpolated_cases,
        hints=[
            "Interpolation leaves the frequencies as they are. Which number becomes smaller?",
            "Place p is treated as place p / scale, a fraction.",
            "As my_rope, with torch.arange(T) / scale for the places.",
        ],
        misconceptions=[
            Misconception(
                "multiplies-the-places",
                "you multiplied the places by the scale, so that the angles go even further beyond "
                "what was trained; divide",
                wrong=_wrong_rope(places=lambda T, scale: torch.arange(T) * scale),
            ),
            Misconception(
                "whole-places-only",
                lambda seen: (
                    f"places were divided with // and rounded down: with scale "
                    f"{seen.case.args[2]:g}, neighbours get the same angles and cannot be told "
                    "apart. Divide with /"
                ),
                wrong=_wrong_rope(places=lambda T, scale: torch.arange(T) // scale),
            ),
            Misconception(
                "scales-the-base",
                "you multiplied the base by the scale, which slows down the slow pairs and leaves "
                "the fast ones: that is close to the NTK form. Linear interpolation divides the "
                "places, the same for all pairs",
                wrong=_wrong_rope(
                    places=lambda T, scale: torch.arange(T),
                    scaled_base=lambda base, scale, hs: base * scale,
                ),
            ),
            Misconception(
                "ntk-in-place-of-linear",
                "this is the NTK form, which raises the base and so slows down the slow pairs "
                "only; linear interpolation keeps the base and divides the places",
                wrong=_wrong_rope(
                    places=lambda T, scale: torch.arange(T),
                    scaled_base=lambda base, scale, hs: base * scale ** (hs / (hs - 2)),
                ),
            ),
            Misconception(
                "scales-the-vectors",
                "you divided the queries and keys by the scale, and lengths change; what is "
                "divided are the places",
                wrong=_wrong_rope(
                    places=lambda T, scale: torch.arange(T), before=lambda x, scale: x / scale
                ),
            ),
            Misconception(
                "scale-unused",
                "these are the angles without interpolation: the scale is not used",
                wrong=_wrong_rope(places=lambda T, scale: torch.arange(T)),
            ),
        ],
    ),
    Exercise(
        id="ntk-base",
        notebook="05",
        title="A base that reaches further",
        signature="my_ntk_base(base, scale, head_size)",
        reference="gpt2lib.model.positions:ntk_base",
        cases=lambda: [case(10000.0, 4.0, 64), case(10000.0, 2.0, 8), case(500.0, 8.0, 32)],
        hints=[
            "The slowest pair is i = hs/2 - 1, with frequency base^(-(hs - 2)/hs).",
            "Its frequency with the new base must be that of the old one divided by scale. Solve "
            "new^(-(hs - 2)/hs) = base^(-(hs - 2)/hs) / scale for new.",
            "base * scale ** (head_size / (head_size - 2))",
        ],
        misconceptions=[
            Misconception(
                "base-times-scale",
                "base · scale slows the slowest pair down by a little less than the scale: its "
                "exponent is (hs - 2)/hs, not 1, so scale must be raised to hs/(hs - 2)",
                wrong=lambda base, scale, head_size: base * scale,
            ),
            Misconception(
                "exponent-inverted",
                "the exponent is upside down: new^((hs - 2)/hs) = ... · scale, so that scale gets "
                "the inverse, hs/(hs - 2)",
                wrong=lambda base, scale, head_size: base * scale ** ((head_size - 2) / head_size),
            ),
            Misconception(
                "base-lowered",
                "you divided: a smaller base makes every pair turn faster. To reach further they "
                "must turn slower, and the base must rise",
                wrong=lambda base, scale, head_size: base / scale ** (head_size / (head_size - 2)),
            ),
            Misconception(
                "minus-one",
                "the exponent is hs/(hs - 2): of hs/2 pairs the last has the number hs/2 - 1, and "
                "you took one channel off where it is one pair, two channels",
                wrong=lambda base, scale, head_size: base * scale ** (head_size / (head_size - 1)),
            ),
            Misconception(
                "base-and-scale-raised",
                "only the scale is raised to hs/(hs - 2); the base stays as it is: with scale 1 "
                "nothing may change",
                wrong=lambda base, scale, head_size: (
                    (base * scale) ** (head_size / (head_size - 2))
                ),
            ),
        ],
    ),
]
