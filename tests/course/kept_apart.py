"""Wrong answers written without a look at the exercises' diagnoses; five for each of twenty.

They measure what a learner is told whom nobody foresaw. What is found here is never mended by a
diagnosis made for one of them alone: then they would measure nothing.
"""

import math
from collections import Counter
from itertools import pairwise

import torch
from torch.nn import functional as F


def tril(T):
    return torch.ones(T, T, dtype=torch.bool).tril()


def softmax_of(q, k, scale, mask=True):
    s = q @ k.T / scale
    return (s.masked_fill(~tril(len(q)), -torch.inf) if mask else s).softmax(-1)


def counts_of(ids, V):
    table = torch.zeros(V, V, dtype=torch.float64)
    for a, b in zip(ids[:-1].tolist(), ids[1:].tolist(), strict=True):
        table[a, b] += 1
    return table


def rotated(x, angles):
    a, b = x.chunk(2, -1)
    return torch.cat((a * angles.cos() - b * angles.sin(), a * angles.sin() + b * angles.cos()), -1)


def angles_of(T, hs, base):
    return torch.arange(T)[:, None] * base ** (-torch.arange(0, hs, 2) / hs)


def normed(x, dim=-1, eps=1e-5):
    return (x - x.mean(dim, keepdim=True)) / (x.var(dim, keepdim=True, unbiased=False) + eps).sqrt()


def adamw(w, g, m, v, t, lr, b1, b2, eps, wd, hats=True, decay=True, sign=1):
    m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g * g
    a, b = (m / (1 - b1**t), v / (1 - b2**t)) if hats else (m, v)
    return w * (1 - lr * wd * decay) - sign * lr * a / (b.sqrt() + eps), m, v


def merged(word, pair, token, keep=0):
    out, i = [], 0
    while i < len(word):
        if tuple(word[i : i + 2]) == tuple(pair):
            out += [token] * (1 + keep)
            i += 2
        else:
            out.append(word[i])
            i += 1
    return out


def pairs_of(words, weight=lambda n: n):
    found = Counter()
    for word, n in words:
        for pair in pairwise(word):
            found[pair] += weight(n)
    return dict(found)


def cosine(step, steps, lr, warm, low, last=1):
    if step < warm:
        return lr * (step + 1) / warm
    done = (step - warm) / max(1, steps - last - warm)
    return lr * (low + (1 - low) * 0.5 * (1 + math.cos(math.pi * done)))


ANSWERS = {
    "bits-per-byte": [
        lambda nats, n: nats / n * math.log(2),
        lambda nats, n: nats / math.log2(math.e) / n,
        lambda nats, n: -nats / math.log(2) / n,
        lambda nats, n: 8 * nats / math.log(2) / n,
        lambda nats, n: round(nats / math.log(2) / n),
    ],
    "count-pairs": [
        lambda words: pairs_of(words, lambda n: n * n),
        lambda words: {p[::-1]: n for p, n in pairs_of(words).items()},
        lambda words: {p: n + 1 for p, n in pairs_of(words).items()},
        lambda words: pairs_of([(w[1:], n) for w, n in words]),
        lambda words: sorted(pairs_of(words)),
    ],
    "merge-pair": [
        lambda word, pair, token: merged(word, pair[::-1], token),
        lambda word, pair, token: merged(word, pair, token, keep=1),
        lambda word, pair, token: list(word),
        lambda word, pair, token: merged(word, pair, token)[::-1],
        lambda word, pair, token: [*merged(word, pair, token), token],
    ],
    "inputs-and-targets": [
        lambda tokens, starts, T: tuple(
            torch.stack(
                [torch.from_numpy(tokens.astype("int64"))[s + d : s + d + T] for s in starts]
            )
            for d in (1, 0)
        ),
        lambda tokens, starts, T: tuple(
            torch.stack(
                [torch.from_numpy(tokens.astype("int64"))[s + d : s + d + T] for s in starts]
            ).T
            for d in (0, 1)
        ),
        lambda tokens, starts, T: tuple(
            torch.stack([torch.from_numpy(tokens.astype("int64"))[d : d + T] for s in starts])
            for d in (0, 1)
        ),
        lambda tokens, starts, T: tuple(
            torch.stack(
                [torch.from_numpy(tokens.astype("float32"))[s + d : s + d + T] for s in starts]
            )
            for d in (0, 1)
        ),
        lambda tokens, starts, T: tuple(
            torch.stack(
                [torch.from_numpy(tokens.astype("int64"))[s + d : s + d + T] for s in starts[::-1]]
            )
            for d in (0, 1)
        ),
    ],
    "samples-of-a-process": [
        lambda step, size, rank, n: list(range(rank * size // n, (rank + 1) * size // n)),
        lambda step, size, rank, n: [
            i + 1
            for i in range(step * size + rank * (size // n), step * size + (rank + 1) * (size // n))
        ],
        lambda step, size, rank, n: list(
            range(step * size + rank * (size // n), step * size + (rank + 1) * (size // n))
        )[::-1],
        lambda step, size, rank, n: list(
            range(
                (step + 1) * size + rank * (size // n), (step + 1) * size + (rank + 1) * (size // n)
            )
        ),
        lambda step, size, rank, n: step * size + rank * (size // n),
    ],
    "cross-entropy": [
        lambda z, t: F.cross_entropy(z, t).exp(),
        lambda z, t: -F.cross_entropy(z, t),
        lambda z, t: F.cross_entropy(z, t, reduction="none"),
        lambda z, t: F.cross_entropy(z, t.flip(0)),
        lambda z, t: -z[torch.arange(len(t)), t].mean(),
    ],
    "entropy": [
        lambda c: math.exp(-sum(p * math.log(p) for p in (c / c.sum()).tolist() if p)),
        lambda c: -sum(math.log(p) for p in (c / c.sum()).tolist() if p),
        lambda c: -sum(p * math.log(p) for p in (c / c.sum()).tolist() if p) / len(c),
        lambda c: -sum(p * math.log10(p) for p in (c / c.sum()).tolist() if p),
        lambda c: 1 - sum(p * p for p in (c / c.sum()).tolist()),
    ],
    "bigram-probabilities": [
        lambda ids, V, s: counts_of(ids, V) + s,
        lambda ids, V, s: (counts_of(ids, V) + s).softmax(1),
        lambda ids, V, s: (
            (counts_of(ids, V) + s) / (counts_of(ids, V) + s).sum(1, keepdim=True)
        ).log(),
        lambda ids, V, s: (
            (counts_of(ids.flip(0), V) + s) / (counts_of(ids.flip(0), V) + s).sum(1, keepdim=True)
        ),
        lambda ids, V, s: (
            (counts_of(ids, V) + 2 * s) / (counts_of(ids, V) + 2 * s).sum(1, keepdim=True)
        ),
    ],
    "average-the-past": [
        lambda x: x.cumsum(1) / (torch.arange(x.size(1)) + 2)[:, None],
        lambda x: x.cumsum(1) / (torch.arange(x.size(1)) + 1)[:, None] * -1,
        lambda x: x.cumsum(2) / (torch.arange(x.size(2)) + 1),
        lambda x: x.cummax(1).values,
        lambda x: (x.cumsum(1) / (torch.arange(x.size(1)) + 1)[:, None])[:, -1],
    ],
    "causal-mask": [
        lambda T: tril(T).T.flip(0),
        lambda T: torch.eye(T, dtype=torch.bool),
        lambda T: tril(T).flip(0),
        lambda T: tril(T)[None],
        lambda T: tril(T + 1)[1:, :-1],
    ],
    "attention-weights": [
        lambda q, k: softmax_of(q, k, q.size(-1) ** 0.25),
        lambda q, k: softmax_of(q, k, -math.sqrt(q.size(-1))),
        lambda q, k: softmax_of(q, k, math.sqrt(len(q))),
        lambda q, k: softmax_of(q, k, math.sqrt(q.size(-1))).T,
        lambda q, k: softmax_of(q, k, math.sqrt(q.size(-1))).log(),
    ],
    "split-heads": [
        lambda x, n: x.view(*x.shape[:2], n, -1).permute(0, 2, 3, 1),
        lambda x, n: x.view(*x.shape[:2], n, -1).transpose(1, 2)[0],
        lambda x, n: x.view(*x.shape[:2], n, -1).transpose(1, 2).flip(1),
        lambda x, n: x.view(*x.shape[:2], -1, n).permute(0, 3, 1, 2),
        lambda x, n: x.view(*x.shape[:2], n, -1).transpose(1, 2).flip(2),
    ],
    "rope": [
        lambda x, base: rotated(x, 2 * angles_of(*x.shape, base)),
        lambda x, base: rotated(x, angles_of(*x.shape, base).flip(1)),
        lambda x, base: rotated(x, angles_of(*x.shape, base).flip(0)),
        lambda x, base: rotated(x, angles_of(*x.shape, base) / (2 * math.pi)),
        lambda x, base: rotated(x, angles_of(*x.shape, base)).roll(1, 0),
    ],
    "layer-norm": [
        lambda x, g, b: normed(x) * g - b,
        lambda x, g, b: normed(x, eps=1e-1) * g + b,
        lambda x, g, b: normed(x) + g + b,
        lambda x, g, b: normed(x) * b + g,
        lambda x, g, b: F.normalize(x - x.mean(-1, keepdim=True), dim=-1) * g + b,
    ],
    "block": [
        lambda x, n1, a, n2, m: x + a(n1(x)),
        lambda x, n1, a, n2, m: x - a(n1(x)) - m(n2(x - a(n1(x)))),
        lambda x, n1, a, n2, m: a(n1(x)) + m(n2(x + a(n1(x)))),
        lambda x, n1, a, n2, m: x + a(n2(x)) + m(n1(x + a(n2(x)))),
        lambda x, n1, a, n2, m: 2 * x + a(n1(x)) + m(n2(x + a(n1(x)))),
    ],
    "clip-by-norm": [
        lambda gs, n: [g * n for g in gs],
        lambda gs, n: [g / sum(h.pow(2).sum() for h in gs).sqrt() * n for g in gs],
        lambda gs, n: [g.clamp(-n, n) for g in gs],
        lambda gs, n: [g * min(1.0, n / sum(h.abs().sum() for h in gs)) for g in gs],
        lambda gs, n: [g * min(1.0, n / sum(h.pow(2).sum() for h in gs)) for g in gs],
    ],
    "adamw-step": [
        lambda *a: adamw(*a, hats=False),
        lambda *a: adamw(*a, decay=False),
        lambda *a: adamw(*a, sign=-1),
        lambda *a: adamw(*a)[::-1],
        lambda *a: adamw(*a)[0],
    ],
    "top-k": [
        lambda z, k: z.softmax(-1).topk(k).values,
        lambda z, k: z.softmax(-1) * (z >= z.topk(k).values[:, -1:]),
        lambda z, k: (-z).softmax(-1),
        lambda z, k: z.masked_fill(z < z.topk(k).values[:, -1:], 0).softmax(-1),
        lambda z, k: z.masked_fill(z > z.topk(k).values[:, -1:], -torch.inf).softmax(-1),
    ],
    "window-mask": [
        lambda T, w: tril(T).triu(-w + 2),
        lambda T, w: ~tril(T).triu(1 - w),
        lambda T, w: tril(T).triu(1 - w).T,
        lambda T, w: tril(T).triu(1 - w).float(),
        lambda T, w: tril(T).triu(1 - 2 * w),
    ],
    "learning-rate": [
        lambda s, n, lr, w, low: cosine(s, n, lr, w, low, last=0),
        lambda s, n, lr, w, low: cosine(s + 1, n, lr, w, low),
        lambda s, n, lr, w, low: lr - cosine(s, n, lr, w, low),
        lambda s, n, lr, w, low: cosine(s, n, 1.0, w, low),
        lambda s, n, lr, w, low: cosine(max(s, w), n, lr, w, low),
    ],
}
