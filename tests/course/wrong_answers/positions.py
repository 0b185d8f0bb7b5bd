"""Answers to the exercises of notebook 05."""

import math

import torch

from wrong_answers import fails, right, wrong

# --- turn-a-pair ---------------------------------------------------------------------------


@wrong("turn-a-pair", "turns-backwards", says="(0, 1)")
def matrix_transposed(x, angle):
    c, s = math.cos(angle), math.sin(angle)
    return torch.tensor([[c, s], [-s, c]]) @ x


@wrong("turn-a-pair", "no-minus")
def all_plus(x, angle):
    c, s = math.cos(angle), math.sin(angle)
    return torch.stack([c * x[0] + s * x[1], s * x[0] + c * x[1]])


@wrong("turn-a-pair", "overwrites-the-first", says="keep both old ones")
def one_after_the_other(x, angle):
    a, b = x.tolist()
    a = a * math.cos(angle) - b * math.sin(angle)
    b = a * math.sin(angle) + b * math.cos(angle)
    return torch.tensor([a, b])


@wrong("turn-a-pair", "in-degrees", says="radians")
def degrees(x, angle):
    angle = angle * math.pi / 180
    turned = torch.view_as_complex(x) * complex(math.cos(angle), math.sin(angle))
    return torch.view_as_real(turned)


@wrong("turn-a-pair", "sine-and-cosine-swapped")
def swapped(x, angle):
    sin, cos = math.cos(angle), math.sin(angle)
    return torch.tensor([[cos, -sin], [sin, cos]]) @ x


@wrong("turn-a-pair", None, says="expected")
def first_coordinate_only(x, angle):
    c, s = math.cos(angle), math.sin(angle)
    return torch.stack([c * x[0] - s * x[1], x[1]])


@fails("turn-a-pair", says="TypeError")
def cosine_of_a_number(x, angle):
    return x * torch.cos(angle)


@right("turn-a-pair")
def as_a_complex_number(x, angle):
    return torch.view_as_real(torch.view_as_complex(x) * complex(math.cos(angle), math.sin(angle)))


# --- rope-frequencies ----------------------------------------------------------------------


@wrong("rope-frequencies", "i-without-the-two", says="-2i/hs")
def half_the_exponent(head_size, base):
    return torch.tensor([1 / base ** (i / head_size) for i in range(head_size // 2)])


@wrong("rope-frequencies", "exponent-without-minus", says="grow with i")
def plus(head_size, base):
    return torch.tensor([base ** (2 * i / head_size) for i in range(head_size // 2)])


@wrong("rope-frequencies", "one-a-channel", says="there are 4")
def one_for_each_channel(head_size, base):
    return torch.tensor([base ** (-i / head_size) for i in range(head_size)])


@wrong("rope-frequencies", "twice-in-a-row", says="each frequency twice")
def both_halves(head_size, base):
    half = 1.0 / base ** (torch.arange(0, head_size, 2).float() / head_size)
    return torch.cat([half, half])


@wrong("rope-frequencies", "counts-from-one", says="i counts from 0")
def from_one(head_size, base):
    return torch.tensor([base ** (-2 * i / head_size) for i in range(1, head_size // 2 + 1)])


@wrong("rope-frequencies", "reaches-the-base", says="linspace")
def linspace(head_size, base):
    return base ** -torch.linspace(0, 1, head_size // 2)


@wrong("rope-frequencies", "wavelengths", says="2π")
def places_for_a_full_turn(head_size, base):
    return 2 * math.pi / base ** (-torch.arange(0, head_size, 2) / head_size)


@wrong("rope-frequencies", None, says="expected")
def in_turns(head_size, base):
    return base ** (-torch.arange(0, head_size, 2) / head_size) / (2 * math.pi)


@fails("rope-frequencies", says="RuntimeError")
def odd_length(head_size, base):
    return torch.arange(head_size // 2) * torch.ones(head_size)


@right("rope-frequencies")
def each_from_the_one_before(head_size, base):
    speeds = [1.0]
    while len(speeds) < head_size // 2:
        speeds.append(speeds[-1] / base ** (2 / head_size))
    return torch.tensor(speeds)


# --- rope ----------------------------------------------------------------------------------


def table(T, hs, base):
    return torch.outer(torch.arange(T).float(), base ** (-torch.arange(0, hs, 2) / hs))


def spin(x, angles):
    """Turn the pairs (i, i + hs/2) by a table of angles, as complex numbers."""
    a, b = x.chunk(2, dim=-1)
    turned = torch.complex(a, b) * torch.polar(torch.ones_like(angles), angles)
    return torch.cat([turned.real, turned.imag], dim=-1)


@wrong("rope", "turns-backwards", says="exchange weights")
def minus_in_the_other_half(x, base):
    T, hs = x.shape
    cos, sin = (f(table(T, hs, base)) for f in (torch.cos, torch.sin))
    a, b = x[:, : hs // 2], x[:, hs // 2 :]
    return torch.cat([a * cos + b * sin, b * cos - a * sin], dim=1)


@wrong("rope", "pairs-neighbours", says="i + hs/2")
def as_the_paper_writes_it(x, base):
    T, hs = x.shape
    angles = table(T, hs, base)
    pairs = torch.view_as_complex(x.reshape(T, hs // 2, 2).contiguous())
    return torch.view_as_real(pairs * torch.polar(torch.ones_like(angles), angles)).reshape(T, hs)


@wrong("rope", "halves-paired-angles-doubled", says="repeat_interleave")
def mixed_conventions(x, base):
    T, hs = x.shape
    angles = table(T, hs, base).repeat_interleave(2, dim=-1)
    a, b = x.chunk(2, dim=-1)
    return x * angles.cos() + torch.cat([-b, a], dim=-1) * angles.sin()


@wrong("rope", "no-minus", says="a rotation keeps lengths")
def halves_swapped_without_a_minus(x, base):
    angles = torch.cat([table(*x.shape, base)] * 2, dim=-1)
    return x * angles.cos() + x.roll(x.shape[1] // 2, dims=1) * angles.sin()


@wrong("rope", "place-ignored", says="multiply the frequencies by the place")
def the_same_everywhere(x, base):
    hs = x.shape[1]
    return spin(x, (base ** (-torch.arange(0, hs, 2) / hs)).expand(len(x), -1))


@wrong("rope", "places-from-one", says="places count from 0")
def first_row_turned(x, base):
    T, hs = x.shape
    return spin(x, table(T + 1, hs, base)[1:])


@wrong("rope", None, says="expected")
def first_half_only(x, base):
    T, hs = x.shape
    return torch.cat([spin(x, table(T, hs, base))[:, : hs // 2], x[:, hs // 2 :]], dim=1)


@fails("rope", says="RuntimeError")
def angles_for_half_the_channels(x, base):
    return x * table(*x.shape, base).cos()


@right("rope")
def row_by_row(x, base):
    T, hs = x.shape
    y = torch.empty_like(x)
    for place in range(T):
        for i in range(hs // 2):
            angle = place * base ** (-2 * i / hs)
            a, b = x[place, i].item(), x[place, i + hs // 2].item()
            y[place, i] = a * math.cos(angle) - b * math.sin(angle)
            y[place, i + hs // 2] = a * math.sin(angle) + b * math.cos(angle)
    return y


# --- interpolated-rope ---------------------------------------------------------------------


@wrong("interpolated-rope", "multiplies-the-places", says="divide")
def further(x, base, scale):
    return spin(x, table(*x.shape, base) * scale)


@wrong("interpolated-rope", "whole-places-only", says="with scale 4")
def rounded_down(x, base, scale):
    T, hs = x.shape
    places = torch.tensor([t // int(scale) for t in range(T)])
    return spin(x, table(T, hs, base)[places])


@wrong("interpolated-rope", "scales-the-base", says="close to the NTK form")
def larger_base(x, base, scale):
    return spin(x, table(*x.shape, base * scale))


@wrong("interpolated-rope", "ntk-in-place-of-linear", says="keeps the base")
def ntk(x, base, scale):
    T, hs = x.shape
    return spin(x, table(T, hs, base * scale ** (hs / (hs - 2))))


@wrong("interpolated-rope", "scales-the-vectors", says="lengths change")
def shorter_vectors(x, base, scale):
    return spin(x, table(*x.shape, base)) / scale


@wrong("interpolated-rope", "scale-unused")
def plain_rope(x, base, scale):
    return spin(x, table(*x.shape, base))


@wrong("interpolated-rope", None, says="expected")
def slow_half_only(x, base, scale):
    angles = table(*x.shape, base)
    angles[:, angles.shape[1] // 2 :] /= scale
    return spin(x, angles)


@fails("interpolated-rope", says="RuntimeError")
def fewer_rows(x, base, scale):
    T, hs = x.shape
    return spin(x, table(int(T / scale), hs, base))


@right("interpolated-rope")
def slower_frequencies(x, base, scale):
    return spin(x, table(*x.shape, base) / scale)


# --- ntk-base ------------------------------------------------------------------------------


@wrong("ntk-base", "base-times-scale", says="hs/(hs - 2)")
def times(base, scale, head_size):
    return scale * base


@wrong("ntk-base", "exponent-inverted", says="upside down")
def upside_down(base, scale, head_size):
    return base * scale ** (1 - 2 / head_size)


@wrong("ntk-base", "base-lowered", says="the base must rise")
def lowered(base, scale, head_size):
    return base * (1 / scale) ** (head_size / (head_size - 2))


@wrong("ntk-base", "minus-one", says="two channels")
def one_channel_off(base, scale, head_size):
    return base * math.pow(scale, head_size / (head_size - 1))


@wrong("ntk-base", "base-and-scale-raised", says="with scale 1")
def everything_raised(base, scale, head_size):
    return (base * scale) ** (head_size / (head_size - 2))


@wrong("ntk-base", None, says="expected")
def to_the_power_of_the_heads(base, scale, head_size):
    return base * scale**head_size


@fails("ntk-base", says="ZeroDivisionError")
def without_brackets(base, scale, head_size):
    return base * scale ** (head_size / (head_size - head_size))


@right("ntk-base")
def by_logarithms(base, scale, head_size):
    pairs = head_size // 2
    return math.exp(math.log(base) + math.log(scale) * pairs / (pairs - 1))


@wrong("rope", "overwrites-the-first-half", says="keep both old halves")
def first_half_overwritten(x, base):
    T, hs = x.shape
    angles = torch.outer(torch.arange(T), base ** (-torch.arange(0, hs, 2) / hs))
    first, second = x[:, : hs // 2], x[:, hs // 2 :]
    first = first * angles.cos() - second * angles.sin()
    second = first * angles.sin() + second * angles.cos()
    return torch.cat((first, second), dim=-1)
