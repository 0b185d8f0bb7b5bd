"""Solutions of notebook 03."""

import torch


def my_cross_entropy(logits, targets):
    """Return the mean of −ln softmax(logits)[target], a tensor without dimensions.

    logits: a float tensor (N, V). targets: an int64 tensor (N,).
    """
    of_targets = logits[torch.arange(len(targets)), targets]  # (N,)
    return (logits.logsumexp(dim=-1) - of_targets).mean()


def my_entropy(counts):
    """Return a float, in nats. counts: an int64 tensor (V,)."""
    shares = counts.double() / counts.sum()
    shares = shares[shares > 0]
    return -(shares * shares.log()).sum().item()


def my_bigram_probabilities(ids, vocab_size, smoothing):
    """Return a float64 tensor (V, V): row i holds the probabilities of what follows token i.

    ids: an int64 tensor (N,). vocab_size: an int, V. smoothing: a float.
    """
    counts = torch.full((vocab_size, vocab_size), smoothing, dtype=torch.float64)
    for i, j in zip(ids[:-1].tolist(), ids[1:].tolist(), strict=True):
        counts[i, j] += 1
    return counts / counts.sum(dim=1, keepdim=True)


def my_table_loss(probabilities, ids):
    """Return a float, in nats.

    probabilities: a float64 tensor (V, V), row = present token. ids: an int64 tensor (N,).
    """
    return -probabilities[ids[:-1], ids[1:]].log().mean().item()
