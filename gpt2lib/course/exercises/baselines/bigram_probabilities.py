"""Notebook 03: What follows what, by counting."""

from typing import Any

from gpt2lib.course.exercise import Exercise, Misconception, case, lazy
from gpt2lib.course.exercises.baselines.shared import rows

torch: Any = lazy("torch")


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


EXERCISE = Exercise(
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
            wrong=lambda ids, v, k: rows(_table(ids, v).T + k),
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
            wrong=lambda ids, v, k: rows(_table(ids, v)),
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
            wrong=lambda ids, v, k: rows(_table(ids, v).clamp(max=1) + k),
        ),
        Misconception(
            "smoothed-afterwards",
            "the smoothing was added to the probabilities, and the rows no longer sum to 1; "
            "add it to the counts",
            wrong=lambda ids, v, k: rows(_table(ids, v)).nan_to_num() + k,
        ),
        Misconception(
            "one-too-far",
            "these pairs are two places apart: ids[:-1] and ids[1:] are neighbours",
            wrong=lambda ids, v, k: rows(_table(ids, v, distance=2) + k),
        ),
    ],
)
