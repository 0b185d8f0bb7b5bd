"""Exercises of notebook 03."""

import math
from collections.abc import Callable
from typing import Any

from gpt2lib.course.exercise import Exercise, Misconception, Seen, case, lazy

torch: Any = lazy("torch")

Function = Callable[..., Any]

BITS = "this is in bits; the course counts in nats, so take the natural logarithm (.log())"


def _mean_loss(next_token_loss: Any) -> Function:
    def cross_entropy(logits: Any, targets: Any) -> Any:
        loss, count = next_token_loss(logits[None], targets[None])
        return loss / count

    return cross_entropy


def _scores() -> list[Any]:
    numbers = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(6, 5, generator=numbers)  # (N, V)
    targets = torch.tensor([4, 0, 2, 2, 1, 3])
    square = 2 * torch.randn(3, 3, generator=numbers)
    return [case(logits, targets), case(square, torch.tensor([2, 0, 1]))]


def _given(logits: Any, targets: Any) -> Any:
    """Return the probability that each target has got, (N,)."""
    return logits.softmax(-1)[torch.arange(len(targets)), targets]


def _overflows(my_cross_entropy: Function) -> str | None:
    wanted, loss = 500.0, _one_large_score(my_cross_entropy, 1000.0)
    way_out = "use torch.log_softmax or torch.logsumexp"
    if abs(loss - wanted) < 0.1:
        return None
    found = f"right for small scores, but for logits of 1000 it gives {loss:.6g}: "
    if math.isnan(loss):
        return f"{found}exp(1000) is infinite in float32, and inf/inf is nan; {way_out}"
    if math.isinf(loss):
        return f"{found}a probability became 0 before its logarithm was taken; {way_out}"
    if loss < wanted and abs(_one_large_score(my_cross_entropy, 2000.0) - loss) < 0.1:
        return (
            f"{found}it should be {wanted:g}. With 2000 it gives the same, so something bounds "
            f"what one token can cost (a clamp, a small number added to the probability); {way_out}"
        )
    return f"{found}it should be {wanted:g}; {way_out}"


def _one_large_score(my_cross_entropy: Function, size: float) -> float:
    """Return the loss of two targets: one so far below the likeliest token, one that is it."""
    logits = torch.tensor([[size, 0.0, -size]] * 2)
    return float(my_cross_entropy(logits, torch.tensor([1, 0])))


def _underflows(my_table_loss: Function) -> str | None:
    table, n = torch.full((4, 4), 0.25, dtype=torch.float64), 2001
    loss = float(my_table_loss(table, torch.zeros(n, dtype=torch.long)))
    if abs(loss - math.log(4)) < 1e-6 or math.isfinite(loss):
        return None
    return (
        f"for a text of {n:,} tokens, each with probability 0.25, it gives {loss}: the product of "
        "so many probabilities is smaller than any number that float64 holds. Take the logarithm "
        "of each, then add"
    )


def _log_of_mean(logits: Any, targets: Any) -> Any:
    return -_given(logits, targets).mean().log()


def _over_the_places(logits: Any, targets: Any) -> Any:
    return -logits.log_softmax(0)[torch.arange(len(targets)), targets].mean()


def _softmax_twice(logits: Any, targets: Any) -> Any:
    return torch.nn.functional.cross_entropy(logits.softmax(-1), targets)


def _counts() -> list[Any]:
    return [
        case(torch.tensor([2, 2, 4])),
        case(torch.tensor([7, 0, 1, 0, 3])),
        case(torch.tensor([5, 5, 5, 5, 5])),
    ]


def _shares(counts: Any) -> Any:
    shares = counts.double() / counts.sum()
    return shares[shares > 0]


def _nan_at_zero(counts: Any) -> float:
    shares = counts.double() / counts.sum()
    return float(-(shares * shares.log()).sum())


def _raw_counts(counts: Any) -> float:
    raw = counts.double()[counts > 0]
    return float(-(raw * raw.log()).sum())


def _unweighted(counts: Any) -> float:
    return float(-_shares(counts).log().mean())


def _texts() -> list[Any]:
    numbers = torch.Generator().manual_seed(1)
    text = torch.randint(0, 4, (40,), generator=numbers)
    return [case(torch.tensor([0, 1, 0, 1, 2, 0, 1]), 3, 0.5), case(text, 5, 1.0)]


def _table(ids: Any, vocab_size: int, distance: int = 1) -> Any:
    """Return how often j follows i, `distance` places on, in loops."""
    counts = torch.zeros(vocab_size, vocab_size, dtype=torch.float64)
    for first, second in zip(ids[:-distance].tolist(), ids[distance:].tolist(), strict=True):
        counts[first, second] += 1
    return counts


def _rows(counts: Any) -> Any:
    return counts / counts.sum(dim=1, keepdim=True)


def _columns(ids: Any, vocab_size: int, smoothing: float) -> Any:
    counts = _table(ids, vocab_size) + smoothing
    return counts / counts.sum(dim=0, keepdim=True)


def _joint(ids: Any, vocab_size: int, smoothing: float) -> Any:
    counts = _table(ids, vocab_size) + smoothing
    return counts / counts.sum()


def _broadcast(ids: Any, vocab_size: int, smoothing: float) -> Any:
    counts = _table(ids, vocab_size) + smoothing
    return counts / counts.sum(dim=1)


def _too_small_sum(ids: Any, vocab_size: int, smoothing: float) -> Any:
    counts = _table(ids, vocab_size)
    return (counts + smoothing) / (counts.sum(dim=1, keepdim=True) + smoothing)


def _bets() -> list[Any]:
    numbers = torch.Generator().manual_seed(2)
    table = torch.rand(4, 4, generator=numbers, dtype=torch.float64)
    ids = torch.randint(0, 4, (12,), generator=numbers)
    return [case(_rows(table), ids), case(_rows(table.T), torch.tensor([3, 0, 0, 2, 1]))]


def _bet(table: Any, ids: Any) -> Any:
    return table[ids[:-1], ids[1:]]


def _sum_not_mean(seen: Seen) -> str:
    return (
        f"{seen.got:.4g} is the loss of the whole text: a longer text would look worse. Divide by "
        "the number of scored tokens"
    )


EXERCISES = [
    Exercise(
        id="cross-entropy",
        notebook="03",
        title="From scores to a loss",
        signature="my_cross_entropy(logits, targets)",
        reference="gpt2lib.model.loss:next_token_loss",
        adapt=_mean_loss,
        cases=_scores,
        hints=[
            "The loss of a place is minus the logarithm of the probability that its target got.",
            "ln softmax(z)[t] = z[t] − ln Σ exp(z): no probability is needed, and nothing "
            "overflows if you let PyTorch do the last part (torch.logsumexp, or log_softmax).",
            "logits[torch.arange(N), targets] picks one score a row.",
        ],
        misconceptions=[
            Misconception(
                "log-of-the-mean",
                "you averaged the probabilities and took the logarithm once; take it of each, then "
                "average: one impossible token must cost much",
                wrong=_log_of_mean,
            ),
            Misconception(
                "softmax-over-places",
                "the softmax runs over the places (dim 0); each place shares out its own "
                "probability over the vocabulary (dim -1)",
                wrong=_over_the_places,
            ),
            Misconception(
                "softmax-twice",
                "the scores went through a softmax twice: F.cross_entropy wants logits, it takes "
                "the softmax itself",
                wrong=_softmax_twice,
            ),
            Misconception(
                "positive-sign",
                "a loss must fall when the model improves: the logarithm of a probability is "
                "negative, so put a minus before it",
                wrong=lambda logits, targets: _given(logits, targets).log().mean(),
            ),
            Misconception(
                "sum-not-mean",
                _sum_not_mean,
                wrong=lambda logits, targets: -_given(logits, targets).log().sum(),
            ),
            Misconception(
                "bits",
                BITS,
                wrong=lambda logits, targets: -_given(logits, targets).log2().mean(),
            ),
            Misconception("overflows", test=_overflows, when_right=True),
        ],
    ),
    Exercise(
        id="entropy",
        notebook="03",
        title="The surprise of knowing how often each token comes",
        signature="my_entropy(counts)",
        reference="gpt2lib.course.baselines:entropy",
        cases=_counts,
        hints=[
            "Shares first: counts / counts.sum().",
            "A token of share p costs −ln p, and comes with probability p: add up −p·ln p.",
            "0·ln 0 is nan for a computer, but tends to 0: leave out the zeros.",
        ],
        misconceptions=[
            Misconception(
                "nan-at-zero",
                "a token that never comes makes this nan: 0·ln 0 is 0 in the limit, so leave out "
                "the tokens with count 0",
                wrong=_nan_at_zero,
            ),
            Misconception(
                "raw-counts",
                "these are counts, not shares: divide by their sum before you take the logarithm",
                wrong=_raw_counts,
            ),
            Misconception(
                "unweighted",
                "this averages over the vocabulary, so a rare token counts as much as a common "
                "one; weight each −ln p by p",
                wrong=_unweighted,
            ),
            Misconception(
                "blind-guess",
                "this is ln V, the loss of a blind guess: it does not look at the counts",
                wrong=lambda counts: math.log(len(counts)),
            ),
            Misconception(
                "bits",
                BITS,
                wrong=lambda counts: float(-(_shares(counts) * _shares(counts).log2()).sum()),
            ),
            Misconception(
                "negative",
                "an entropy is never negative: put a minus before the sum",
                wrong=lambda counts: float((_shares(counts) * _shares(counts).log()).sum()),
            ),
        ],
    ),
    Exercise(
        id="bigram-probabilities",
        notebook="03",
        title="What follows what, by counting",
        signature="my_bigram_probabilities(ids, vocab_size, smoothing)",
        reference="gpt2lib.course.baselines:bigram_probabilities",
        cases=_texts,
        hints=[
            "The pairs are zip(ids[:-1], ids[1:]): row = the token, column = the one after it.",
            "Add the smoothing to every cell of the table, then divide each row by its own sum.",
            "counts / counts.sum(dim=1, keepdim=True); without keepdim the sums meet the columns.",
            "Count in float64: torch.zeros(V, V, dtype=torch.float64).",
        ],
        misconceptions=[
            Misconception(
                "transposed",
                "rows and columns have changed places: row i is about what comes after token i",
                wrong=lambda ids, v, k: _rows(_table(ids, v).T + k),
            ),
            Misconception(
                "columns-sum-to-one",
                "the columns sum to 1; it is the row, the bets after one token, that must",
                wrong=_columns,
            ),
            Misconception(
                "joint",
                "the whole table sums to 1: that is the probability of a pair, not of the next "
                "token when the present one is known; divide each row by its own sum",
                wrong=_joint,
            ),
            Misconception(
                "sums-meet-columns",
                "counts.sum(dim=1) has shape (V,), so column j was divided by the sum of row j; "
                "keepdim=True makes it (V, 1)",
                wrong=_broadcast,
            ),
            Misconception(
                "no-smoothing",
                "the smoothing is not used: a pair never seen gets 0, and a row never seen 0/0",
                wrong=lambda ids, v, k: _rows(_table(ids, v)),
            ),
            Misconception(
                "sum-without-all-smoothing",
                "each of the V cells of a row got the smoothing, so its sum grows by V times it; "
                "sum the row after adding",
                wrong=_too_small_sum,
            ),
            Misconception(
                "repeated-pairs-once",
                "a pair that comes several times is counted once: `counts[i, j] += 1` with tensors "
                "of indices reads all old values first, so repeated ones overwrite each other. "
                "Count in a loop, or with counts.index_put_(…, accumulate=True)",
                wrong=lambda ids, v, k: _rows(_table(ids, v).clamp(max=1) + k),
            ),
            Misconception(
                "smoothed-afterwards",
                "the smoothing was added to the probabilities, and the rows no longer sum to 1; "
                "add it to the counts",
                wrong=lambda ids, v, k: _rows(_table(ids, v)).nan_to_num() + k,
            ),
            Misconception(
                "one-too-far",
                "these pairs are two places apart: ids[:-1] and ids[1:] are neighbours",
                wrong=lambda ids, v, k: _rows(_table(ids, v, distance=2) + k),
            ),
        ],
    ),
    Exercise(
        id="table-loss",
        notebook="03",
        title="The loss of a text under a table of bets",
        signature="my_table_loss(probabilities, ids)",
        reference="gpt2lib.course.baselines:table_loss",
        cases=_bets,
        hints=[
            "The first token has none before it: N tokens have N − 1 bets.",
            "probabilities[ids[:-1], ids[1:]] picks what each token had got, all at once.",
            "The mean of minus the logarithms.",
        ],
        misconceptions=[
            Misconception(
                "looks-back",
                "you looked up [next, present]: the row is the token that is known, the column "
                "the one to guess",
                wrong=lambda table, ids: float(-table[ids[1:], ids[:-1]].log().mean()),
            ),
            Misconception(
                "predicts-itself",
                "each token was scored after itself ([i, i]): targets are one place further on, "
                "ids[1:]",
                wrong=lambda table, ids: float(-table[ids, ids].log().mean()),
            ),
            Misconception(
                "divides-by-n",
                "N tokens hold N − 1 pairs: the first is never guessed, so divide by N − 1",
                wrong=lambda table, ids: float(-_bet(table, ids).log().sum() / len(ids)),
            ),
            Misconception(
                "log-of-the-mean",
                "you averaged the probabilities and took the logarithm once; take it of each, "
                "then average",
                wrong=lambda table, ids: float(-_bet(table, ids).mean().log()),
            ),
            Misconception(
                "perplexity",
                "this is the perplexity, exp(loss); the loss is the mean itself",
                wrong=lambda table, ids: float((-_bet(table, ids).log().mean()).exp()),
            ),
            Misconception(
                "sum-not-mean",
                _sum_not_mean,
                wrong=lambda table, ids: float(-_bet(table, ids).log().sum()),
            ),
            Misconception(
                "bits",
                BITS,
                wrong=lambda table, ids: float(-_bet(table, ids).log2().mean()),
            ),
            Misconception("underflows", test=_underflows, when_right=True),
        ],
    ),
]
