"""Answers to the exercises of notebook 03."""

import itertools
import math

import torch
from torch.nn import functional as F

from wrong_answers import fails, right, wrong


@wrong("cross-entropy", "overflows", says="for logits of 1000")
def exponentials_by_hand(logits, targets):
    e = torch.exp(logits)
    p = e / e.sum(dim=-1, keepdim=True)
    return -torch.log(p[range(len(targets)), targets]).mean()


@wrong("cross-entropy", "overflows", says="it gives inf")
def softmax_then_log(logits, targets):
    return F.nll_loss(torch.log(torch.softmax(logits, dim=-1)), targets)


@wrong("cross-entropy", "log-of-the-mean", says="take it of each")
def one_logarithm(logits, targets):
    p = F.softmax(logits, dim=1).gather(1, targets[:, None])
    return -torch.log(p.mean())


@wrong("cross-entropy", "softmax-over-places", says="dim 0")
def the_wrong_dimension(logits, targets):
    return F.nll_loss(F.log_softmax(logits, dim=0), targets)


@wrong("cross-entropy", "softmax-twice", says="wants logits")
def softmax_before_cross_entropy(logits, targets):
    p = torch.softmax(logits, dim=1)
    return F.cross_entropy(p, targets)


@wrong("cross-entropy", "positive-sign", says="minus")
def no_minus(logits, targets):
    scores = F.log_softmax(logits, dim=-1)
    return sum(scores[i, t] for i, t in enumerate(targets)) / len(targets)


@wrong("cross-entropy", "sum-not-mean", says="number of scored tokens")
def all_of_it(logits, targets):
    return F.cross_entropy(logits, targets, reduction="sum")


@wrong("cross-entropy", "bits", says="nats")
def base_two(logits, targets):
    return F.cross_entropy(logits, targets) / math.log(2)


@wrong("cross-entropy", None, says="expected")
def scores_themselves(logits, targets):
    return -logits[torch.arange(len(targets)), targets].mean()


@right("cross-entropy")
def through_logsumexp(logits, targets):
    right_ones = logits.gather(1, targets[:, None])[:, 0]
    return (logits.logsumexp(dim=1) - right_ones).mean()


@wrong("entropy", "nan-at-zero", says="leave out")
def forgets_the_zeros(counts):
    p = counts / counts.sum()
    return -(p * torch.log(p)).sum().item()


@wrong("entropy", "raw-counts", says="divide by their sum")
def no_shares(counts):
    return -sum(c * math.log(c) for c in counts.tolist() if c)


@wrong("entropy", "unweighted", says="weight each")
def mean_of_logarithms(counts):
    total = int(counts.sum())
    surprises = [-math.log(c / total) for c in counts.tolist() if c > 0]
    return sum(surprises) / len(surprises)


@wrong("entropy", "blind-guess", says="ln V")
def uniform(counts):
    return math.log(counts.numel())


@wrong("entropy", "bits", says="natural logarithm")
def shannons_bits(counts):
    p = [c / int(counts.sum()) for c in counts.tolist()]
    return -sum(q * math.log2(q) for q in p if q)


@wrong("entropy", "negative", says="never negative")
def wrong_sign(counts):
    p = [c / int(counts.sum()) for c in counts.tolist()]
    return sum(q * math.log(q) for q in p if q)


@fails("entropy", says="ValueError: math domain error")
def logarithm_of_zero(counts):
    p = [c / int(counts.sum()) for c in counts.tolist()]
    return -sum(q * math.log(q) for q in p)


@right("entropy")
def log_total_minus_mean_log(counts):
    c = [n for n in counts.tolist() if n]
    return math.log(sum(c)) - sum(n * math.log(n) for n in c) / sum(c)


def pairs(ids, vocab_size):
    """Count the pairs as most learners do."""
    table = torch.zeros((vocab_size, vocab_size), dtype=torch.float64)
    for a, b in itertools.pairwise(ids):
        table[a, b] += 1
    return table


@wrong("bigram-probabilities", "transposed", says="changed places")
def next_by_present(ids, vocab_size, smoothing):
    table = torch.full((vocab_size, vocab_size), smoothing, dtype=torch.float64)
    for i in range(1, len(ids)):
        table[ids[i], ids[i - 1]] += 1
    return table / table.sum(1, keepdim=True)


@wrong("bigram-probabilities", "columns-sum-to-one", says="it is the row")
def normalised_down(ids, vocab_size, smoothing):
    table = pairs(ids, vocab_size) + smoothing
    return table / table.sum(0)


@wrong("bigram-probabilities", "joint", says="each row by its own sum")
def shares_of_all_pairs(ids, vocab_size, smoothing):
    table = pairs(ids, vocab_size) + smoothing
    return table / (len(ids) - 1 + smoothing * vocab_size**2)


@wrong("bigram-probabilities", "sums-meet-columns", says="keepdim")
def forgets_keepdim(ids, vocab_size, smoothing):
    table = smoothing + pairs(ids, vocab_size)
    return table / table.sum(dim=-1)


@wrong("bigram-probabilities", "no-smoothing", says="not used")
def raw_shares(ids, vocab_size, smoothing):
    table = pairs(ids, vocab_size)
    return table / table.sum(1)[:, None]


@wrong("bigram-probabilities", "sum-without-all-smoothing", says="grows by V times")
def adds_it_once_below(ids, vocab_size, smoothing):
    table = pairs(ids, vocab_size)
    return (table + smoothing) / (table.sum(1)[:, None] + smoothing)


@wrong("bigram-probabilities", "smoothed-afterwards", says="no longer sum to 1")
def smooths_the_shares(ids, vocab_size, smoothing):
    table = pairs(ids, vocab_size)
    return table / table.sum(1).clamp(min=1)[:, None] + smoothing


@wrong("bigram-probabilities", "one-too-far", says="two places apart")
def skips_one(ids, vocab_size, smoothing):
    table = torch.full((vocab_size, vocab_size), smoothing, dtype=torch.float64)
    for i in range(len(ids) - 2):
        table[ids[i], ids[i + 2]] += 1
    return table / table.sum(1)[:, None]


@wrong("bigram-probabilities", None, says="expected")
def adds_twice_the_smoothing(ids, vocab_size, smoothing):
    table = pairs(ids, vocab_size) + 2 * smoothing
    return table / table.sum(1)[:, None]


@right("bigram-probabilities")
def row_by_row(ids, vocab_size, smoothing):
    rows = []
    for token in range(vocab_size):
        after = [int(b) for a, b in itertools.pairwise(ids) if a == token]
        row = torch.tensor([after.count(j) + smoothing for j in range(vocab_size)]).double()
        rows.append(row / row.sum())
    return torch.stack(rows)


@wrong("table-loss", "looks-back", says="[next, present]")
def index_the_wrong_way(probabilities, ids):
    terms = [probabilities[b, a].log() for a, b in itertools.pairwise(ids)]
    return -float(sum(terms)) / len(terms)


@wrong("table-loss", "predicts-itself", says="one place further on")
def forgets_the_shift(probabilities, ids):
    return -float(sum(probabilities[i, i].log() for i in ids)) / len(ids)


@wrong("table-loss", "divides-by-n", says="N − 1")
def one_too_many(probabilities, ids):
    total = 0.0
    for i in range(1, len(ids)):
        total -= math.log(probabilities[ids[i - 1], ids[i]])
    return total / len(ids)


@wrong("table-loss", "log-of-the-mean", says="of each")
def mean_before_logarithm(probabilities, ids):
    given = [float(probabilities[a, b]) for a, b in itertools.pairwise(ids)]
    return -math.log(sum(given) / len(given))


@wrong("table-loss", "perplexity", says="exp(loss)")
def exponential_too(probabilities, ids):
    given = probabilities[ids[:-1], ids[1:]]
    return math.exp(-given.log().mean())


@wrong("table-loss", "sum-not-mean", says="longer text")
def the_whole_text(probabilities, ids):
    return -sum(math.log(probabilities[a, b]) for a, b in itertools.pairwise(ids))


@wrong("table-loss", "bits", says="nats")
def in_bits(probabilities, ids):
    given = probabilities[ids[:-1], ids[1:]]
    return float(-torch.log2(given).sum() / len(given))


@fails("table-loss", says="IndexError")
def walks_off_the_end(probabilities, ids):
    return sum(-math.log(probabilities[ids[i], ids[i + 1]]) for i in range(len(ids)))


@right("table-loss")
def one_at_a_time(probabilities, ids):
    total = 0.0
    for a, b in zip(ids[:-1].tolist(), ids[1:].tolist(), strict=True):
        total += -math.log(float(probabilities[a, b]))
    return total / (len(ids) - 1)


@wrong("cross-entropy", "overflows", says="something bounds what one token can cost")
def clamped(logits, targets):
    p = torch.softmax(logits, dim=-1)[range(len(targets)), targets]
    return -p.clamp(min=1e-9).log().mean()


@wrong("cross-entropy", "overflows", says="inf/inf is nan")
def sums_of_exponentials(logits, targets):
    e = logits.exp()
    return -(e / e.sum(1, keepdim=True))[range(len(targets)), targets].log().mean()


@wrong("cross-entropy", "overflows", says="it should be 500")
def large_scores_cut(logits, targets):
    return F.cross_entropy(logits.clamp(-500, 500), targets)


@wrong("bigram-probabilities", "repeated-pairs-once", says="overwrite each other")
def all_pairs_at_once(ids, vocab_size, smoothing):
    counts = torch.zeros(vocab_size, vocab_size, dtype=torch.float64)
    counts[ids[:-1], ids[1:]] += 1
    counts += smoothing
    return counts / counts.sum(dim=1, keepdim=True)


@wrong("table-loss", "underflows", says="2,001 tokens")
def product_then_logarithm(probabilities, ids):
    chance = 1.0
    for first, second in itertools.pairwise(ids.tolist()):
        chance = chance * probabilities[first, second]
    return -torch.log(chance).item() / (len(ids) - 1)
