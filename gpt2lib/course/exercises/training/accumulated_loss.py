"""Notebook 16: The loss of a batch that comes in pieces."""

from typing import Any

from gpt2lib.course.exercise import Exercise, Function, Misconception, case, lazy

torch: Any = lazy("torch")
Pieces = list[tuple[Any, Any]]
"""Micro-batches: logits and targets of each."""


def _pieces(*sizes: tuple[int, int]) -> Pieces:
    """Return (logits, targets) of micro-batches: uneven in size, with targets to leave out."""
    numbers = torch.Generator().manual_seed(0)
    pieces: Pieces = []
    for size, ignored in sizes:
        targets = torch.randint(0, 5, (1, size), generator=numbers)
        targets[:, :ignored] = -1
        pieces.append((2 * torch.randn(1, size, 5, generator=numbers), targets))
    return pieces


def _big_batch(next_token_loss: Any) -> Function:
    def batch_loss(pieces: Pieces) -> float:
        logits = torch.cat([logits for logits, _ in pieces], dim=1)  # one batch, no pieces
        targets = torch.cat([targets for _, targets in pieces], dim=1)
        loss, count = next_token_loss(logits, targets)
        return float(loss / count)

    return batch_loss


def _each(pieces: Pieces) -> list[tuple[float, int, int]]:
    """Return the summed loss, the number of scored targets and of all targets, a piece each."""
    entropy = torch.nn.functional.cross_entropy
    found = []
    for logits, targets in pieces:
        loss = entropy(logits[0], targets[0], ignore_index=-1, reduction="sum")
        found.append((float(loss), int((targets >= 0).sum()), targets.numel()))
    return found


EXERCISE = Exercise(
    id="accumulated-loss",
    notebook="16",
    title="The loss of a batch that comes in pieces",
    signature="my_batch_loss(pieces)",
    reference="gpt2lib.model.loss:next_token_loss",
    adapt=_big_batch,
    cases=lambda: [
        case(_pieces((6, 0), (6, 3))),
        case(_pieces((8, 1), (2, 0), (5, 4))),
        case(_pieces((4, 3), (3, 0), (7, 2))),
    ],
    hints=[
        "next_token_loss(logits, targets) returns a sum and a count for one piece.",
        "Sums can be added, and so can counts; means cannot.",
        "Divide once, at the end: all the loss by all the counted targets.",
    ],
    misconceptions=[
        Misconception(
            "mean-of-means",
            "this is the mean of the pieces' means: a piece with few targets then counts as "
            "much as one with many. Add sums and counts, and divide once",
            wrong=lambda pieces: sum(s / c for s, c, _ in _each(pieces)) / len(pieces),
        ),
        Misconception(
            "counts-ignored-targets",
            "you divide by all positions; targets of -1 are not scored and must not be counted",
            wrong=lambda pieces: (
                sum(s for s, _, _ in _each(pieces)) / sum(n for _, _, n in _each(pieces))
            ),
        ),
        Misconception(
            "a-sum",
            "this is the summed loss; divide it by the number of targets that were scored",
            wrong=lambda pieces: sum(s for s, _, _ in _each(pieces)),
        ),
        Misconception(
            "divided-twice",
            "you divide by the number of pieces as well; the sum over the counts is the mean",
            wrong=lambda pieces: (
                sum(s for s, _, _ in _each(pieces))
                / sum(c for _, c, _ in _each(pieces))
                / len(pieces)
            ),
        ),
        Misconception(
            "last-piece-only",
            "this is the loss of the last piece alone: add the pieces up in the loop",
            wrong=lambda pieces: _each(pieces)[-1][0] / _each(pieces)[-1][1],
        ),
    ],
)
