"""Solutions of notebook 12."""

import torch


def my_logit_lens(model, stream):
    """Return logits, a float tensor (..., V). model: a GPT. stream: a float tensor (..., C)."""
    return model.lm_head(model.transformer.ln_f(stream))


def my_contributions(parts, gain, direction, eps):
    """Return what each part adds to the logit, a float tensor (P,).

    parts: a float tensor (P, C). gain and direction: float tensors (C,). eps: a float.
    """
    whole = parts.sum(0)  # (C,), what the layer norm reads
    scale = (whole.var(correction=0) + eps).sqrt()  # one number for all parts
    centred = parts - parts.mean(-1, keepdim=True)  # (P, C)
    return centred / scale * gain @ direction


def my_without_head(z, head, n_head):
    """Return a new float tensor (B, T, C). z: a float tensor (B, T, C). head and n_head: ints."""
    size = z.size(-1) // n_head
    changed = z.clone()  # the caller's tensor stays as it is
    changed[..., head * size : (head + 1) * size] = 0
    return changed


def my_recovered(clean, corrupted, patched):
    """Return a share, a float. clean, corrupted and patched: floats."""
    return (patched - corrupted) / (clean - corrupted)


def my_prefix_mask(idx):
    """Return a bool tensor (B, T, T), queries before keys. idx: a long tensor (B, T)."""
    B, T = idx.shape
    marked = torch.zeros(B, T, T, dtype=torch.bool)
    for t in range(T):
        for j in range(1, t + 1):  # nothing is before key 0
            marked[:, t, j] = idx[:, j - 1] == idx[:, t]
    return marked


def my_kink(steps, losses, width):
    """Return one of the steps, an int. steps: ints. losses: as many floats. width: an int."""
    best, most = None, float("-inf")
    for i in range(width, len(losses) - width):
        fall = losses[i - width] - losses[i + width]
        if fall > most:
            best, most = steps[i], fall
    return best
