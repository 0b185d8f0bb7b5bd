"""Solutions of notebook 05."""

import math

import torch


def my_turn(x, angle):
    """Return a float tensor (2,). x: a float tensor (2,). angle: a float, in radians."""
    c, s = math.cos(angle), math.sin(angle)
    return torch.stack((x[0] * c - x[1] * s, x[0] * s + x[1] * c))


def my_frequencies(head_size, base):
    """Return a float tensor (hs/2,): the angle of each pair for one position.

    head_size: an int, hs. base: a float.
    """
    return base ** (-torch.arange(0, head_size, 2) / head_size)


def my_rope(x, base):
    """Return a float tensor (T, hs). x: a float tensor (T, hs). base: a float."""
    return my_interpolated_rope(x, base, 1.0)


def my_interpolated_rope(x, base, scale):
    """Return a float tensor (T, hs). x: a float tensor (T, hs). base, scale: floats."""
    T, hs = x.shape
    angles = torch.arange(T)[:, None] / scale * my_frequencies(hs, base)  # (T, hs/2)
    first, second = x.chunk(2, dim=-1)
    cos, sin = angles.cos(), angles.sin()
    return torch.cat((first * cos - second * sin, first * sin + second * cos), dim=-1)


def my_ntk_base(base, scale, head_size):
    """Return a float. base, scale: floats. head_size: an int."""
    return base * scale ** (head_size / (head_size - 2))
