"""Solutions of notebook 13."""

import math

import torch


def my_gqa(q, k, v):
    """Return a float tensor (nh, T, hs). q: a float tensor (nh, T, hs). k, v: (nkv, T, hs)."""
    nh, T, hs = q.shape
    group = nh // len(k)
    mask = torch.ones(T, T, dtype=torch.bool).tril()
    heads = []
    for h in range(nh):
        scores = q[h] @ k[h // group].T / math.sqrt(hs)
        weights = scores.masked_fill(~mask, -torch.inf).softmax(dim=-1)
        heads.append(weights @ v[h // group])
    return torch.stack(heads)


def my_pool_heads(weight, n_kv_head, head_size):
    """Return a float tensor (n_kv_head · hs, C).

    weight: a float tensor (nh · hs, C). n_kv_head, head_size: ints.
    """
    heads = weight.view(n_kv_head, -1, head_size, weight.size(1))  # (nkv, group, hs, C)
    return heads.mean(dim=1).flatten(0, 1)


def my_window_mask(T, window):
    """Return a bool tensor (T, T), causal, row = query, column = key. T, window: ints."""
    places = torch.arange(T)
    distance = places[:, None] - places[None, :]
    return (distance >= 0) & (distance < window)


def my_global_mask(T, window, places):
    """Return a bool tensor (T, T). T, window: ints. places: a tuple of ints."""
    near = my_window_mask(T, window)
    chosen = torch.zeros(T, dtype=torch.bool)
    chosen[list(places)] = True
    causal = torch.ones(T, T, dtype=torch.bool).tril()
    return causal & (near | chosen[:, None] | chosen[None, :])


def my_chunked(q, k, v, window):
    """Return a float tensor (T, hs). q, k, v: float tensors (T, hs). window: an int."""
    T, hs = q.shape
    outputs = []
    for start in range(0, T, window):
        end, first = min(start + window, T), max(0, start - window)
        distance = torch.arange(start, end)[:, None] - torch.arange(first, end)[None, :]
        scores = q[start:end] @ k[first:end].T / math.sqrt(hs)
        scores = scores.masked_fill((distance < 0) | (distance >= window), -torch.inf)
        outputs.append(scores.softmax(dim=-1) @ v[first:end])
    return torch.cat(outputs)


def my_receptive_field(windows, dilation):
    """Return how many positions, from the furthest one reached to the own: an int.

    windows: a tuple of ints. dilation: an int.
    """
    return sum((w - 1) * dilation for w in windows) + 1
