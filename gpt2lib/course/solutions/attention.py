"""Solutions of notebook 04."""

import math

import torch

from gpt2lib.model.attention import eager
from gpt2lib.model.masks import Causal


def my_average_past(x):
    """Return a float tensor (B, T, C). x: a float tensor (B, T, C)."""
    return torch.stack([x[:, : t + 1].mean(dim=1) for t in range(x.size(1))], dim=1)


def my_causal_mask(T):
    """Return a bool tensor (T, T), True where the row may see the column. T: an int."""
    return torch.ones(T, T, dtype=torch.bool).tril()


def my_attention_weights(q, k):
    """Return the weights, a float tensor (T, T). q, k: float tensors (T, hs)."""
    scores = q @ k.T / math.sqrt(q.size(-1))
    return scores.masked_fill(~my_causal_mask(len(q)), -torch.inf).softmax(dim=-1)


def my_split_heads(x, n_head):
    """Return a float tensor (B, nh, T, C // nh). x: a float tensor (B, T, C). n_head: an int."""
    B, T, C = x.shape
    return x.view(B, T, n_head, C // n_head).transpose(1, 2)


def my_self_attention(x, W_attn, b_attn, W_proj, b_proj, n_head):
    """Return a float tensor (B, T, C).

    x: (B, T, C), W_attn: (3·C, C), b_attn: (3·C,), W_proj: (C, C), b_proj: (C,), all float
    tensors. n_head: an int.
    """
    q, k, v = (x @ W_attn.T + b_attn).split(x.size(-1), dim=-1)  # (B, T, C) each
    q, k, v = (my_split_heads(part, n_head) for part in (q, k, v))
    y = eager(q, k, v, Causal())  # (B, nh, T, hs)
    y = y.transpose(1, 2).reshape(x.shape)
    return y @ W_proj.T + b_proj
