"""Solutions of notebook 11."""

import math

import torch


def my_temperature_probabilities(logits, temperature):
    """Return probabilities, a float tensor (B, V). logits: (B, V). temperature: a float above 0."""
    return (logits / temperature).softmax(dim=-1)


def my_top_k(logits, k):
    """Return probabilities, a float tensor (B, V). logits: a float tensor (B, V). k: an int."""
    values, tokens = logits.topk(k, dim=-1)
    kept = torch.full_like(logits, -torch.inf).scatter(-1, tokens, values)
    return kept.softmax(dim=-1)


def my_top_p(logits, p):
    """Return probabilities in the order of the tokens, a float tensor (B, V).

    logits: a float tensor (B, V). p: a float.
    """
    chances, tokens = logits.softmax(dim=-1).sort(dim=-1, descending=True, stable=True)
    before = chances.cumsum(dim=-1) - chances  # what the likelier ones have together
    chances = chances.where(before < p, 0.0)
    chances = chances / chances.sum(dim=-1, keepdim=True)
    return torch.zeros_like(logits).scatter(-1, tokens, chances)


def my_repetition_penalty(logits, seen, penalty):
    """Return new logits, a float tensor (B, V).

    logits: a float tensor (B, V). seen: a bool tensor (B, V). penalty: a float.
    """
    changed = torch.where(logits > 0, logits / penalty, logits * penalty)
    return torch.where(seen, changed, logits)


def my_cached_step(q, k, v, past_k, past_v):
    """Return y, a float tensor (B, nh, 1, hs), and the longer k and v, (B, nh, n + 1, hs) each.

    q, k, v: float tensors (B, nh, 1, hs). past_k, past_v: (B, nh, n, hs).
    """
    k, v = torch.cat((past_k, k), dim=2), torch.cat((past_v, v), dim=2)
    weights = (q @ k.transpose(-2, -1) / math.sqrt(q.size(-1))).softmax(dim=-1)
    return weights @ v, k, v


def my_cache_bytes(config, tokens, batch, bytes_per_number):
    """Return an int. config: a GPTConfig. tokens, batch, bytes_per_number: ints.

    See config.kv_heads, config.head_size, and config.windows: one entry a layer, None is no window.
    """
    held = sum(tokens if w is None else min(w, tokens) for w in config.windows)
    return 2 * config.kv_heads * config.head_size * held * batch * bytes_per_number


def my_quantize(weight):
    """Return q, an int8 tensor (N, K), and the scales, (N, 1). weight: a float tensor (N, K)."""
    scale = (weight.abs().amax(dim=1, keepdim=True) / 127).clamp(min=1e-30)
    return (weight / scale).round().to(torch.int8), scale
