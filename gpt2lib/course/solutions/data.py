"""Solutions of notebook 02."""

import torch


def my_inputs_and_targets(tokens, starts, block_size):
    """Return idx and targets, int64 tensors (B, T).

    tokens: a NumPy array of uint16. starts: a list of B ints. block_size: an int, T.
    """
    ids = torch.from_numpy(tokens.astype("int64"))
    idx = torch.stack([ids[s : s + block_size] for s in starts])
    targets = torch.stack([ids[s + 1 : s + 1 + block_size] for s in starts])
    return idx, targets


def my_feistel(number, half, mix):
    """Return an int of 2·half bits. number, half: ints. mix(round_, right) returns an int."""
    mask = (1 << half) - 1
    left, right = number >> half, number & mask
    for round_ in range(8):
        left, right = right, left ^ (mix(round_, right) & mask)
    return (left << half) | right


def my_walk(position, n, permute):
    """Return an int below n. position, n: ints. permute: a function from int to int."""
    number = permute(position)
    while number >= n:
        number = permute(number)
    return number


def my_samples(step, batch_size, rank, processes):
    """Return a list of sample numbers. All four arguments are ints."""
    share = batch_size // processes
    first = step * batch_size + rank * share
    return list(range(first, first + share))


def my_document_ids(idx, eot):
    """Return an int64 tensor (B, T). idx: an int64 tensor (B, T). eot: an int."""
    return (idx == eot).long().cumsum(dim=1)


def my_draw(i, shares):
    """Return two ints: the source, 0 or 1, and the number in it. i: an int. shares: two ints."""
    a, total = shares[0], sum(shares)
    before, after = i * a // total, (i + 1) * a // total
    return (0, before) if after > before else (1, i - before)
