"""The order of the training data, as a pure function of the seed and one integer.

Sample number 0 is the first window that training sees, sample 1 the second, and so on without
end. Where sample `i` starts depends on `(seed, i)` and the size of the file, on nothing else: not
on the batch size, the number of processes, or what was read before. So a run that is resumed,
or moved to more GPUs, only has to know how many samples it has seen.

How it works. The file is cut into `n` windows of `block_size` tokens that lie end to end; an epoch
visits each window once. Sample `i` belongs to epoch `e = i // n`, with position `p = i % n` in it.
Two things change with the epoch:

* the *shift*: all cuts move right by a random number of tokens, so that the model does not always
  see the same sentence at the same position of its context;
* the *permutation*: position `p` is sent to window `w`. Nothing is shuffled in memory: a Feistel
  network computes `w` from `p` directly, whatever the number of windows.

A Feistel network takes a number of `2b` bits as two halves and repeats

    left, right = right, left XOR f(right, key)

Each round can be undone (from the new pair we know `right`, hence `f`, hence `left`), so no two
inputs meet in the same output, whatever `f` is: the network is a permutation of `0 .. 4**b - 1`.
We need one of `0 .. n - 1`: where the result is `n` or more, send it through the network again
until it is small enough (*cycle walking*). That keeps it a permutation, and as `4**b` is at most
`4 n` it takes at most four passes on average.

The random bits come from a hash written out below, so the order is the same with every version
of numpy and torch.

Reference: Luby and Rackoff 1988 (Feistel networks as random permutations); Black and Rogaway
2002 (cycle walking); Steele, Lea and Flood 2014 (SplitMix64).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fractions import Fraction

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gpt2lib.utils.errors import UserError

Words = NDArray[np.uint64]

SHARES = 1 << 30
"""Into how many parts the weights of a mixture divide the samples."""
ROUNDS = 8  # four are enough in theory for large halves; ours may have one bit each


def sample_windows(
    n_tokens: int, block_size: int, seed: int, indices: ArrayLike, *, name: str = "the data"
) -> NDArray[np.int64]:
    """Return where the windows of the given samples start in the token file.

    Args:
        n_tokens: tokens in the file.
        block_size: T, tokens the model sees; a window reads T + 1, the last one only as a target.
        seed: fixes the order.
        indices: global sample numbers, counted from 0 over all epochs; any shape.
        name: what to call the data in messages.

    Returns:
        Starts in tokens, the shape of `indices`; `start + block_size < n_tokens` for each.

    Raises:
        UserError: if the file is too short for one window.
    """
    n = windows_per_epoch(n_tokens, block_size, name=name)
    window, key = _drawn(n, seed, indices)
    slack = n_tokens - 1 - n * block_size  # the largest shift that stays inside the file
    shift = _mix(key) % np.uint64(slack + 1)
    start = shift + window * np.uint64(block_size)
    return start.astype(np.int64).reshape(np.shape(indices))


def shuffled(n: int, seed: int, indices: ArrayLike) -> NDArray[np.int64]:
    """Return which of `n` windows the given samples are: each once in an epoch, in a new order."""
    window, _ = _drawn(n, seed, indices)
    return window.astype(np.int64).reshape(np.shape(indices))


def _drawn(n: int, seed: int, indices: ArrayLike) -> tuple[Words, Words]:
    """Return the window of each sample, and the key of its epoch."""
    samples = np.asarray(indices)
    if samples.size and (samples.dtype.kind not in "iu" or samples.min() < 0):
        raise ValueError("sample indices must be integers from 0")
    epoch, position = np.divmod(samples.astype(np.uint64).ravel(), np.uint64(n))
    key = _mix(_mix(_word(seed)) ^ epoch)  # one key for each epoch
    return _permute(position, n, key), key


def whole_shares(weights: Sequence[float]) -> list[int]:
    """Turn weights into whole numbers, each at least 1, that add up to `SHARES`.

    A weight so stands for itself to within 1 in `SHARES`; what rounding down leaves over goes to
    the largest remainders.

    Args:
        weights: above 0; only their ratios matter.
    """
    exact = [Fraction(weight) for weight in weights]
    total = sum(exact)
    spare = SHARES - len(exact)  # one each is given out beforehand
    parts = [1 + spare * weight / total for weight in exact]
    shares = [int(part) for part in parts]
    by_remainder = sorted(range(len(parts)), key=lambda k: shares[k] - parts[k])
    for k in by_remainder[: SHARES - sum(shares)]:
        shares[k] += 1
    return shares


def interleave(
    shares: Sequence[int], indices: ArrayLike
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Say which source each sample of a mixture is drawn from, and which of its samples it is.

    The samples of a source lie as evenly as whole numbers allow. Of `n` samples, the first source
    has `floor(n a / total)`, so sample `i` is one of its own where that grows from `n = i` to
    `n = i + 1`, and the value at `n = i` is the sample's number within the source. All others
    are numbered anew and shared out among the sources that are left, in the same way. No state,
    nothing to shuffle: sample `i` needs as many divisions as there are sources.

    So of any first n samples a source has its share of n to within one sample a source, and of
    every `total` samples exactly its share.

    Args:
        shares: whole numbers above 0, one for each source, at most `SHARES` together.
        indices: sample numbers, from 0; any shape.

    Returns:
        The source and the number within it, both the shape of `indices`.

    Reference: Bresenham 1965 (the same counting draws a straight line on a grid).
    """
    samples = np.asarray(indices)
    if samples.size and (samples.dtype.kind not in "iu" or samples.min() < 0):
        raise ValueError("sample indices must be integers from 0")
    left = samples.astype(np.int64)  # numbers among the samples that no source has taken yet
    source, number = np.full(left.shape, -1), np.zeros_like(left)
    for k, share in enumerate(shares):
        total = sum(shares[k:])
        before, after = (_taken(n, share, total) for n in (left, left + 1))
        mine = (source < 0) & (after > before)
        source[mine], number[mine] = k, before[mine]
        left = left - before
    return source, number


def _taken(n: NDArray[np.int64], share: int, total: int) -> NDArray[np.int64]:
    """Return floor(n · share / total), without leaving 64 bits."""
    periods, rest = np.divmod(n, total)
    return periods * share + rest * share // total  # type: ignore[no-any-return]


def windows_per_epoch(n_tokens: int, block_size: int, *, name: str = "the data") -> int:
    """Return how many samples make one pass over the file.

    It is one less than fits (if more than one fits), so that the shift of an epoch can be
    anything up to a whole block: over the epochs every token is seen at every position.

    Raises:
        UserError: if the file is too short for one window.
    """
    fits = (n_tokens - 1) // block_size
    if fits < 1:
        raise UserError(
            f"block_size {block_size} needs at least {block_size + 1} tokens; {name} has "
            f"{n_tokens}: take a smaller block_size or more text"
        )
    return max(1, fits - 1)


def _permute(position: Words, n: int, key: Words) -> Words:
    """Send each position to a window: for one key, a permutation of 0 .. n - 1.

    Args:
        position: numbers below n.
        n: windows in the epoch.
        key: the key of the epoch of each position; the same shape.
    """
    half = max(1, ((n - 1).bit_length() + 1) // 2)  # bits in each half: 4**half >= n

    def mix(round_: int, right: Words) -> Words:
        return _mix(_mix(key ^ _word(round_)) ^ right)

    return cycle_walk(position, n, lambda number: feistel(number, half, mix))


def cycle_walk(position: Words, n: int, permute: Callable[[Words], Words]) -> Words:
    """Make a permutation of the numbers below n out of one of more numbers.

    Args:
        position: numbers below n.
        n: how many there are.
        permute: a permutation of 0 .. m - 1, where m is at least n; it takes and returns as many
            numbers as there are positions.
    """
    out = permute(position)
    while (again := out >= n).any():
        out = np.where(again, permute(out), out)
    return out


def feistel(number: Words, half: int, mix: Callable[[int, Words], Words]) -> Words:
    """Permute the numbers of 2 * half bits.

    Args:
        number: what to permute.
        half: bits in each half.
        mix: takes the number of the round and the right half, and returns any 64 bits; of these
            the last `half` are taken.
    """
    bits = np.uint64(half)
    mask = np.uint64((1 << half) - 1)
    left, right = number >> bits, number & mask
    for round_ in range(ROUNDS):
        left, right = right, left ^ (mix(round_, right) & mask)
    return (left << bits) | right


def _mix(word: Words) -> Words:
    """Hash 64 bits to 64 bits (SplitMix64); numpy's uint64 arrays wrap around, as intended."""
    word = np.atleast_1d(word) + np.uint64(0x9E3779B97F4A7C15)
    word = (word ^ (word >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    word = (word ^ (word >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return word ^ (word >> np.uint64(31))


def _word(number: int) -> Words:
    """Return an integer as an array of one 64-bit word; scalars would warn when they wrap."""
    return np.array([number & 0xFFFF_FFFF_FFFF_FFFF], dtype=np.uint64)


def eval_starts(
    n_tokens: int | Sequence[int], block_size: int, limit: int | None = None
) -> NDArray[np.int64]:
    """Return where the windows of an evaluation start: end to end, the whole file.

    Windows that do not overlap score every token but the first exactly once. The last one may
    be shorter than the others; `batch` pads it.

    Args:
        n_tokens: tokens in the file, or in each of several that are read one behind the other;
            each of these has windows of its own.
        block_size: T.
        limit: how many windows to take at most, evenly spread over the file; None takes all.
    """
    files = [n_tokens] if isinstance(n_tokens, int) else list(n_tokens)
    ends = np.cumsum(files)
    each = [np.arange(end - n, end - 1, block_size) for end, n in zip(ends, files, strict=True)]
    return evenly(np.concatenate(each), limit)


def evenly(starts: NDArray[np.int64], limit: int | None) -> NDArray[np.int64]:
    """Return at most `limit` windows, evenly spread over all; None takes all."""
    if limit is not None and limit < len(starts):
        starts = starts[np.arange(limit) * len(starts) // limit]
    return starts
