"""Answers to the exercises of notebook 12."""

from itertools import pairwise

import torch
from torch import nn
from torch.nn import functional as F

from wrong_answers import fails, right, wrong

# ── logit-lens ──────────────────────────────────────────────────────────────────────────────────


@wrong("logit-lens", "no-layer-norm")
def straight_to_the_head(model, stream):
    return stream @ model.transformer.wte.weight.T


@wrong("logit-lens", "norm-without-gain")
def a_fresh_layer_norm(model, stream):
    return model.lm_head(nn.LayerNorm(stream.size(-1))(stream))


@wrong("logit-lens", "another-layers-norm")
def the_last_norm_of_the_last_block(model, stream):
    return model.lm_head(list(model.transformer.h)[-1].ln_2(stream))


@wrong("logit-lens", "probabilities")
def with_a_softmax(model, stream):
    return torch.softmax(model.lm_head(model.transformer.ln_f(stream)), dim=-1)


@wrong("logit-lens", "normed-twice")
def once_more(model, stream):
    normed = model.transformer.ln_f(stream)
    return model.lm_head(model.transformer.ln_f(normed))


@right("logit-lens")
def by_hand(model, stream):
    mean, var = stream.mean(-1, keepdim=True), stream.var(-1, correction=0, keepdim=True)
    ln = model.transformer.ln_f
    return ((stream - mean) / (var + ln.eps).sqrt() * ln.weight + ln.bias) @ model.lm_head.weight.T


@fails("logit-lens", says="Error")
def runs_the_model_on_it(model, stream):
    return model(stream)


# ── contributions ───────────────────────────────────────────────────────────────────────────────


@wrong("contributions", "each-its-own-norm")
def norm_every_part(parts, gain, direction, eps):
    return F.layer_norm(parts, (parts.size(1),), gain, eps=eps) @ direction


@wrong("contributions", "not-centred")
def only_divided(parts, gain, direction, eps):
    whole = parts.sum(0)
    scale = ((whole - whole.mean()).square().mean() + eps).sqrt()
    return torch.stack([part / scale * gain @ direction for part in parts])


@wrong("contributions", "not-scaled")
def only_centred(parts, gain, direction, eps):
    return torch.stack([(part - part.mean()) * gain @ direction for part in parts])


@wrong("contributions", "no-gain")
def without_the_gain(parts, gain, direction, eps):
    whole = parts.sum(0)
    scale = (whole.var(correction=0) + eps) ** 0.5
    return (parts - parts.mean(1, keepdim=True)) / scale @ direction


@wrong("contributions", "unbiased-variance")
def std_of_torch(parts, gain, direction, eps):
    scale = (parts.sum(0).std() ** 2 + eps).sqrt()
    return (parts - parts.mean(1, keepdim=True)) / scale * gain @ direction


@wrong("contributions", "no-square-root")
def by_the_variance(parts, gain, direction, eps):
    scale = parts.sum(0).var(correction=0) + eps
    return (parts - parts.mean(1, keepdim=True)) / scale * gain @ direction


@right("contributions")
def by_a_difference_of_norms(parts, gain, direction, eps):
    """The norm is linear once its scale is held, so its Jacobian without the scale will do."""
    whole = parts.sum(0)
    centre = torch.eye(parts.size(1)) - 1 / parts.size(1)
    return parts @ centre @ (gain * direction) / (whole.var(correction=0) + eps).sqrt()


# ── without-head ────────────────────────────────────────────────────────────────────────────────


@wrong("without-head", "every-nth-channel")
def strided(z, head, n_head):
    changed = z.clone()
    changed.view(*z.shape[:-1], -1, n_head)[..., head] = 0
    return changed


@wrong("without-head", "one-channel")
def the_channel_of_that_number(z, head, n_head):
    changed = z.clone()
    changed[:, :, head] = 0
    return changed


@wrong("without-head", "a-position")
def the_position_of_that_number(z, head, n_head):
    changed = z.clone()
    changed[:, head] = 0
    return changed


@wrong("without-head", "keeps-only-it")
def everything_else(z, head, n_head):
    mask = torch.zeros(n_head)
    mask[head] = 1
    return z * mask.repeat_interleave(z.size(-1) // n_head)


@wrong("without-head", "counts-from-one")
def the_one_before(z, head, n_head):
    pieces = list(z.chunk(n_head, dim=-1))
    pieces[head - 1] = torch.zeros_like(pieces[0])
    return torch.cat(pieces, -1)


@wrong("without-head", "cut-out")
def leaves_it_out(z, head, n_head):
    return torch.cat([p for i, p in enumerate(z.chunk(n_head, -1)) if i != head], -1)


@wrong("without-head", "changes-its-input")
def in_place(z, head, n_head):
    z.view(*z.shape[:-1], n_head, -1)[..., head, :] = 0
    return z


@right("without-head")
def by_a_mask(z, head, n_head):
    mask = torch.ones(n_head)
    mask[head] = 0
    return z * mask.repeat_interleave(z.size(-1) // n_head)


# ── recovered ───────────────────────────────────────────────────────────────────────────────────


@wrong("recovered", "share-of-the-clean")
def of_the_clean_run(clean, corrupted, patched):
    return patched / clean


@wrong("recovered", "what-is-still-missing")
def missing(clean, corrupted, patched):
    return 1 - (patched - corrupted) / (clean - corrupted)


@wrong("recovered", "not-a-share")
def in_logits(clean, corrupted, patched):
    return patched - corrupted


@wrong("recovered", "wrong-sign")
def turned(clean, corrupted, patched):
    return (corrupted - patched) / (clean - corrupted)


@wrong("recovered", "cut-to-0-and-1")
def clipped(clean, corrupted, patched):
    return max(0, min(1, (patched - corrupted) / (clean - corrupted)))


@right("recovered")
def from_the_other_end(clean, corrupted, patched):
    return 1 - (clean - patched) / (clean - corrupted)


# ── prefix-mask ─────────────────────────────────────────────────────────────────────────────────


def looped(idx, marks):
    B, T = idx.shape
    mask = torch.zeros(B, T, T, dtype=torch.bool)
    for b in range(B):
        for t in range(T):
            for j in range(T):
                mask[b, t, j] = bool(marks(idx[b].tolist(), t, j))
    return mask


@wrong("prefix-mask", "the-copy-itself", says="which is an earlier copy of the token itself")
def where_it_stood(idx):
    return looped(idx, lambda row, t, j: j <= t and row[j] == row[t])


@wrong("prefix-mask", "one-before")
def the_wrong_neighbour(idx):
    T = idx.size(1)
    return looped(idx, lambda row, t, j: j <= t and row[(j + 1) % T] == row[t])


@wrong("prefix-mask", "sees-the-future")
def not_causal(idx):
    return looped(idx, lambda row, t, j: j > 0 and row[j - 1] == row[t])


@wrong("prefix-mask", "wraps-around")
def index_minus_one(idx):
    return looped(idx, lambda row, t, j: j <= t and row[j - 1] == row[t])


@wrong("prefix-mask", "transposed")
def keys_first(idx):
    return looped(idx, lambda row, t, j: 0 < t <= j and row[t - 1] == row[j])


@wrong("prefix-mask", "newest-only")
def the_last_copy(idx):
    def marks(row, t, j):
        copies = [k for k in range(1, t + 1) if row[k - 1] == row[t]]
        return copies and j == copies[-1]

    return looped(idx, marks)


@wrong("prefix-mask", "not-itself")
def strictly_before(idx):
    return looped(idx, lambda row, t, j: 0 < j < t and row[j - 1] == row[t])


@right("prefix-mask")
def every_pair(idx):
    return looped(idx, lambda row, t, j: 0 < j <= t and row[j - 1] == row[t])


# ── kink ────────────────────────────────────────────────────────────────────────────────────────


@wrong("kink", "one-step")
def neighbours(steps, losses, width):
    falls = [a - b for a, b in pairwise(losses)]
    return steps[falls.index(max(falls)) + 1]


@wrong("kink", "lowest-loss")
def the_minimum(steps, losses, width):
    return steps[losses.index(min(losses))]


@wrong("kink", "position-not-step")
def the_index(steps, losses, width):
    falls = [losses[i] - losses[i + 2 * width] for i in range(len(losses) - 2 * width)]
    return falls.index(max(falls)) + width


@wrong("kink", "steepest-rise")
def after_minus_before(steps, losses, width):
    rises = [losses[i + 2 * width] - losses[i] for i in range(len(losses) - 2 * width)]
    return steps[rises.index(max(rises)) + width]


@wrong("kink", "relative")
def by_the_ratio(steps, losses, width):
    ratios = [losses[i] / losses[i + 2 * width] for i in range(len(losses) - 2 * width)]
    return steps[ratios.index(max(ratios)) + width]


@wrong("kink", "where-it-begins")
def the_beginning(steps, losses, width):
    falls = [losses[i] - losses[i + 2 * width] for i in range(len(losses) - 2 * width)]
    return steps[falls.index(max(falls))]


@right("kink")
def with_tensors(steps, losses, width):
    loss = torch.tensor(losses)
    return steps[int((loss[: -2 * width] - loss[2 * width :]).argmax()) + width]
