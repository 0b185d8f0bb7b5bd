"""Solutions of notebook 06."""

import torch
from torch.nn import functional as F


def my_layer_norm(x, gain, bias):
    """Return a float tensor (B, T, C). x: as the result. gain, bias: float tensors (C,)."""
    mean = x.mean(dim=-1, keepdim=True)  # (B, T, 1)
    variance = x.var(dim=-1, keepdim=True, unbiased=False)
    return (x - mean) / torch.sqrt(variance + 1e-5) * gain + bias


def my_mlp(x, W_fc, b_fc, W_proj, b_proj):
    """Return a float tensor (B, T, C).

    x: (B, T, C), W_fc: (4·C, C), b_fc: (4·C,), W_proj: (C, 4·C), b_proj: (C,), all float tensors.
    """
    hidden = F.gelu(x @ W_fc.T + b_fc, approximate="tanh")  # (B, T, 4·C)
    return hidden @ W_proj.T + b_proj


def my_block(x, ln_1, attn, ln_2, mlp):
    """Return the new stream, a float tensor (B, T, C).

    x: a float tensor (B, T, C). ln_1, attn, ln_2, mlp: functions from such a tensor to another.
    """
    x = x + attn(ln_1(x))
    return x + mlp(ln_2(x))


def my_count_parameters(V, T, L, d):
    """Return an int. V, T, L, d: ints."""
    attention = (3 * d * d + 3 * d) + (d * d + d)
    mlp = (4 * d * d + 4 * d) + (4 * d * d + d)
    norm = 2 * d
    return V * d + T * d + L * (attention + mlp + 2 * norm) + norm
