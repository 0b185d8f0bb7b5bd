"""Answers to the exercises of notebook 02."""

import math
import random

import numpy as np
import torch

from wrong_answers import fails, right, wrong


@wrong("inputs-and-targets", "targets-are-inputs", says="copy")
def same_twice(tokens, starts, block_size):
    idx = torch.tensor(np.array([tokens[s : s + block_size] for s in starts]).astype(int))
    return idx, idx.clone()


@wrong("inputs-and-targets", "wraps-around", says="first token")
def np_roll(tokens, starts, block_size):
    rows = np.array([tokens[s : s + block_size] for s in starts]).astype(np.int64)
    return torch.from_numpy(rows), torch.from_numpy(np.roll(rows, -1, axis=1))


@wrong("inputs-and-targets", "the-token-before", says="already seen")
def shifted_left(tokens, starts, block_size):
    ids = torch.tensor(tokens.tolist())
    x = torch.stack([ids[s : s + block_size] for s in starts])
    y = torch.stack([ids[s - 1 : s - 1 + block_size] for s in starts])
    return x, y


@wrong("inputs-and-targets", "two-ahead", says="twice")
def shifted_in_both_places(tokens, starts, block_size):
    ids = torch.tensor(tokens.tolist())
    later = ids[1:]
    x = torch.stack([ids[s : s + block_size] for s in starts])
    y = torch.stack([later[s + 1 : s + 1 + block_size] for s in starts])
    return x, y


@wrong("inputs-and-targets", "one-too-short", says="one token more")
def shift_inside(tokens, starts, block_size):
    rows = torch.stack([torch.tensor(tokens[s : s + block_size].tolist()) for s in starts])
    return rows[:, :-1], rows[:, 1:]


@wrong("inputs-and-targets", "two-bytes-each", says="int64")
def not_converted(tokens, starts, block_size):
    x = np.stack([tokens[s : s + block_size] for s in starts])
    y = np.stack([tokens[s + 1 : s + block_size + 1] for s in starts])
    return torch.from_numpy(x), torch.from_numpy(y)


@wrong("inputs-and-targets", None, says="expected")
def ignores_the_starts(tokens, starts, block_size):
    ids = torch.tensor(tokens.tolist())
    n = len(starts)
    return ids[:block_size].repeat(n, 1), ids[1 : block_size + 1].repeat(n, 1)


@fails("inputs-and-targets", says="in line 3 of")
def list_as_index(tokens, starts, block_size):
    ids = tokens[starts : starts + block_size]
    return ids[:-1], ids[1:]


@right("inputs-and-targets")
def by_index(tokens, starts, block_size):
    where = torch.tensor(starts)[:, None] + torch.arange(block_size + 1)
    rows = torch.from_numpy(tokens.astype(np.int64))[where]
    return rows[:, :-1], rows[:, 1:]


@wrong("feistel", "left-half-lost", says="overwritten")
def overwrites(number, half, mix):
    size = 2**half
    a, b = divmod(number, size)
    for i in range(8):
        a, b = b, mix(i, b) % size
    return a * size + b


@wrong("feistel", "mixes-the-wrong-half", says="cannot be found again")
def mixes_left(number, half, mix):
    size = 2**half
    a, b = divmod(number, size)
    for i in range(8):
        a, b = b, a ^ mix(i, a) % size
    return a * size + b


@wrong("feistel", "never-swaps", says="change places")
def in_place(number, half, mix):
    size = 2**half
    a, b = divmod(number, size)
    for i in range(8):
        a ^= mix(i, b) % size
    return a * size + b


@wrong("feistel", "no-mask", says="& mask")
def all_64_bits(number, half, mix):
    a, b = number >> half, number & (2**half - 1)
    for i in range(8):
        old = b
        b = a ^ mix(i, b)
        a = old
    return a << half | b


@wrong("feistel", "adds", says="exclusive or")
def sums(number, half, mix):
    size = 2**half
    a, b = divmod(number, size)
    for i in range(8):
        a, b = b, (a + mix(i, b)) % size
    return a * size + b


@wrong("feistel", "one-round-only", says="eight")
def forgot_the_loop(number, half, mix):
    size = 2**half
    a, b = divmod(number, size)
    return b * size + (a ^ mix(0, b) % size)


@wrong("feistel", "halves-swapped-in-the-end", says="other way round")
def joined_wrongly(number, half, mix):
    size = 2**half
    a, b = divmod(number, size)
    for i in range(8):
        a, b = b, a ^ mix(i, b) % size
    return b * size + a


@wrong("feistel", None, says="expected")
def counts_rounds_from_one(number, half, mix):
    size = 2**half
    a, b = divmod(number, size)
    for i in range(1, 9):
        a, b = b, a ^ mix(i, b) % size
    return a * size + b


@fails("feistel", says="in line 3 of")
def slices_a_number(number, half, mix):
    left, right = number[:half], number[half:]
    return left, right


@right("feistel")
def by_division(number, half, mix):
    size = 2**half
    a, b = divmod(number, size)
    for i in range(8):
        a, b = b, a ^ mix(i, b) % size
    return a * size + b


@wrong("cycle-walking", "modulo", says="comes twice")
def remainder(position, n, permute):
    q = permute(position)
    return q - n if q >= n else q


@wrong("cycle-walking", "once-only", says="no such window")
def no_walk(position, n, permute):
    out = permute(position)
    return out


@wrong("cycle-walking", "off-by-one", says=">= n")
def lets_n_pass(position, n, permute):
    position = permute(position)
    while not position <= n:
        position = permute(position)
    return position


@wrong("cycle-walking", "clips", says="the last window")
def clipped(position, n, permute):
    out = permute(position)
    return out if out < n else n - 1


@wrong("cycle-walking", "asks-the-neighbour", says="next position")
def next_position(position, n, permute):
    out = permute(position)
    while out >= n:
        position += 1
        if position == n:
            position = 0
        out = permute(position)
    return out


@wrong("cycle-walking", "never-permutes", says="permute once before")
def asks_too_early(position, n, permute):
    while position >= n:
        position = permute(position)
    return position


@wrong("cycle-walking", None, says="expected")
def one_more_time(position, n, permute):
    out = permute(permute(position))
    while out >= n:
        out = permute(out)
    return out


@fails("cycle-walking", says="in line 3 of")
def takes_it_for_a_list(position, n, permute):
    return [p for p in permute if p < n][position]


@right("cycle-walking")
def recursively(position, n, permute):
    out = permute(position)
    return out if out < n else recursively(out, n, permute)


@wrong("samples-of-a-process", "everyone-reads-all", says="same work twice")
def whole_batch(step, batch_size, rank, processes):
    return [step * batch_size + i for i in range(batch_size)]


@wrong("samples-of-a-process", "batch-grows", says="over all processes")
def a_batch_each(step, batch_size, rank, processes):
    whole = batch_size * processes
    return [step * whole + rank * batch_size + i for i in range(batch_size)]


@wrong("samples-of-a-process", "strided", says="in turns")
def dealt_like_cards(step, batch_size, rank, processes):
    batch = range(step * batch_size, step * batch_size + batch_size)
    return [i for i in batch if i % processes == rank]


@wrong("samples-of-a-process", "forgets-the-step", says="every update")
def always_the_first(step, batch_size, rank, processes):
    n = batch_size // processes
    return [rank * n + i for i in range(n)]


@wrong("samples-of-a-process", "updates-overlap", says="one share after")
def steps_of_a_share(step, batch_size, rank, processes):
    n = batch_size // processes
    return [step * n + rank * n + i for i in range(n)]


@wrong("samples-of-a-process", None, says="expected")
def from_one(step, batch_size, rank, processes):
    n = batch_size // processes
    return [1 + step * batch_size + rank * n + i for i in range(n)]


@fails("samples-of-a-process", says="TypeError")
def float_division(step, batch_size, rank, processes):
    share = batch_size / processes
    return list(range(step * batch_size + rank * share, share))


@right("samples-of-a-process")
def cut_in_stretches(step, batch_size, rank, processes):
    batch = np.arange(step * batch_size, (step + 1) * batch_size)
    return np.split(batch, processes)[rank].tolist()


@wrong("document-ids", "eot-ends-the-document", says="belongs to the next")
def after_the_token(idx, eot):
    out = torch.zeros_like(idx)
    for b in range(idx.shape[0]):
        document = 0
        for t in range(idx.shape[1]):
            out[b, t] = document
            if idx[b, t] == eot:
                document += 1
    return out


@wrong("document-ids", "starts-at-one", says="number 0")
def from_one_on(idx, eot):
    return 1 + torch.cumsum(idx.eq(eot), 1)


@wrong("document-ids", "crosses-rows", says="each row begins at 0")
def one_counter(idx, eot):
    out, document = torch.zeros_like(idx), 0
    for b in range(idx.shape[0]):
        for t in range(idx.shape[1]):
            document += int(idx[b, t] == eot)
            out[b, t] = document
    return out


@wrong("document-ids", "along-the-batch", says="dim 1")
def wrong_dimension(idx, eot):
    return torch.cumsum((idx == eot).int(), dim=0)


@wrong("document-ids", "borders-only", says="add the marks up")
def marks(idx, eot):
    return torch.where(idx == eot, 1, 0)


@wrong("document-ids", "counts-from-the-end", says="still to come")
def borders_left(idx, eot):
    out = torch.zeros_like(idx)
    for t in range(idx.shape[1]):
        out[:, t] = (idx[:, t:] == eot).sum(1)
    return out


@wrong("document-ids", None, says="expected")
def the_first_border_only(idx, eot):
    return ((idx == eot).cumsum(1) > 0).long()


@fails("document-ids", says="in line 3 of")
def index_of(idx, eot):
    return idx.index(eot)


@right("document-ids")
def with_loops(idx, eot):
    out = torch.zeros_like(idx)
    for b in range(idx.shape[0]):
        document = 0
        for t in range(idx.shape[1]):
            document += int(idx[b, t] == eot)
            out[b, t] = document
    return out


@wrong("mixture-draw", "in-blocks", says="in one block")
def first_all_of_one(i, shares):
    a, b = shares
    rounds, position = divmod(i, a + b)
    if position < a:
        return 0, rounds * a + position
    return 1, rounds * b + position - a


@wrong("mixture-draw", "one-number-for-all", says="within the source")
def global_number(i, shares):
    a, b = shares
    before, after = i * a // (a + b), (i + 1) * a // (a + b)
    return (0 if after > before else 1), i


@wrong("mixture-draw", "each-rounded-by-itself", says="rounds to the same one twice")
def both_floors(i, shares):
    a, b = shares
    if (i + 1) * a // (a + b) > i * a // (a + b):
        return 0, i * a // (a + b)
    return 1, i * b // (a + b)


@wrong("mixture-draw", "counts-itself", says="window 0")
def after_this_one(i, shares):
    a, b = shares
    before, after = i * a // (a + b), (i + 1) * a // (a + b)
    return (0, after) if after > before else (1, i + 1 - after)


@wrong("mixture-draw", "sources-swapped", says="source 0")
def the_other_way_round(i, shares):
    a, b = shares
    before, after = i * a // (a + b), (i + 1) * a // (a + b)
    return (1, before) if after > before else (0, i - before)


@wrong("mixture-draw", None, says="expected")
def throws_a_die(i, shares):
    a, b = shares
    source = random.Random(i).random() >= a / (a + b)
    return int(source), i * shares[source] // (a + b)


@fails("mixture-draw", says="TypeError")
def adds_a_list(i, shares):
    return 0, i * shares[0] // shares


@right("mixture-draw")
def by_counting(i, shares):
    had = [0, 0]
    for n in range(1, i + 2):
        source = 0 if n * shares[0] // sum(shares) > had[0] else 1
        had[source] += 1
    return source, had[source] - 1


@wrong("mixture-draw", "in-floats", says="Whole numbers are exact")
def share_as_a_float(i, shares):
    share = shares[0] / (shares[0] + shares[1])
    before, after = math.floor(i * share), math.floor((i + 1) * share)
    return (0, before) if after > before else (1, i - before)


@wrong("feistel", "one-after-the-other", says="assign both at once")
def two_assignments(number, half, mix):
    ones = 2**half - 1
    left, right = number >> half, number & ones
    for i in range(8):
        left = right
        right = left ^ (mix(i, right) & ones)
    return (left << half) + right


@wrong("cycle-walking", "if-for-while", says="too large again")
def once_more(position, n, permute):
    out = permute(position)
    if out >= n:
        out = permute(out)
    return out
