"""Notebook 08: The gradient of a batch that comes in pieces."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from gpt2lib.course.exercise import Exercise, Function, Misconception, case, lazy
from gpt2lib.course.exercises.one_step.shared import small_gpt

torch: Any = lazy("torch")
config: Any = lazy("gpt2lib.config")
model: Any = lazy("gpt2lib.model.gpt")
watching: Any = lazy("gpt2lib.course.watching")
Pieces = list[tuple[Any, Any]]
"""Micro-batches: idx and targets of each."""


def _in_pieces(next_token_loss: Any) -> Function:
    def gradients(a_model: Any, pieces: Pieces) -> list[Any]:
        parameters = list(a_model.parameters())
        total = [torch.zeros_like(p) for p in parameters]
        for idx, targets in pieces:
            loss, _ = next_token_loss(a_model(idx), targets)
            parts = torch.autograd.grad(loss / _scored(pieces), parameters)
            total = [t + p for t, p in zip(total, parts, strict=True)]
        return total

    return gradients


def _gradients(weigh: Callable[[Any, int, Pieces], float], last_only: bool = False) -> Function:
    """Return the accumulation in which each piece's summed loss is multiplied by a weight."""

    def gradients(a_model: Any, pieces: Pieces) -> list[Any]:
        parameters = list(a_model.parameters())
        total = [torch.zeros_like(p) for p in parameters]
        for idx, targets in pieces[-1:] if last_only else pieces:
            loss, count = a_model(idx, targets)
            parts = torch.autograd.grad(loss * weigh(targets, int(count), pieces), parameters)
            total = [t + p for t, p in zip(total, parts, strict=True)]
        return total

    return gradients


def _scored(pieces: Pieces) -> int:
    return sum(int((targets >= 0).sum()) for _, targets in pieces)


def _calls(my_gradients: Any) -> list[tuple[int, int]]:
    a_model, pieces = small_gpt(), _pieces((1, 0), (1, 1), (1, 0), (1, 2))
    calls = watching.forward_calls(a_model, lambda: my_gradients(a_model, pieces))
    return list(calls)


def _all_in_one(my_gradients: Any) -> str | None:
    most = max(rows for rows, _ in _calls(my_gradients))
    if most == 1:
        return None
    return (
        f"the model was called with {most} rows at once where no piece has more than 1: pieces are "
        "there because the whole batch does not fit. Call it with one piece after the other"
    )


def _one_backward(my_gradients: Any) -> str | None:
    waiting = [kept for _, kept in _calls(my_gradients)]
    if not waiting[1] < waiting[2] < waiting[3]:
        return None
    return (
        f"when the last piece begins, {waiting[3]} tensors of earlier pieces still wait for a "
        f"backward pass, so the memory is that of the whole batch: go backward piece by piece"
    )


def _keeps_old_gradients(my_gradients: Any) -> bool:
    a_model, pieces = small_gpt(), _pieces((2, 1), (1, 0))
    first = my_gradients(a_model, pieces)
    first = [g.clone() for g in first]
    second = my_gradients(a_model, pieces)
    return not all(torch.allclose(a, b) for a, b in zip(first, second, strict=True))


def _pieces(*sizes: tuple[int, int]) -> Pieces:
    """Return idx and targets of micro-batches: rows of each, and how many targets are ignored."""
    numbers = torch.Generator().manual_seed(0)
    pieces: Pieces = []
    for rows, ignored in sizes:
        targets = torch.randint(0, 11, (rows, 4), generator=numbers)
        targets[0, 4 - ignored :] = -1
        pieces.append((torch.randint(0, 11, (rows, 4), generator=numbers), targets))
    return pieces


EXERCISE = Exercise(
    id="accumulated-gradient",
    notebook="08",
    title="The gradient of a batch that comes in pieces",
    signature="my_gradient(model, pieces)",
    reference="gpt2lib.model.loss:next_token_loss",
    adapt=_in_pieces,
    shows="gpt2lib.training.loop:Trainer.update",
    rtol=1e-4,
    atol=1e-6,
    cases=lambda: [
        case(small_gpt(), _pieces((2, 0), (2, 3))),
        case(small_gpt(), _pieces((1, 1), (3, 0), (2, 2))),
    ],
    hints=[
        "Gradients of sums can be added. model(idx, targets) returns a sum and a count.",
        "Count the targets of the whole batch before the first backward, those of -1 left out.",
        "Empty the gradients once, at the beginning: model.zero_grad(). Then each piece goes "
        "backward with its sum divided by the count of all.",
        "(loss / n_tokens).backward() in a loop, then [p.grad for p in model.parameters()]",
    ],
    misconceptions=[
        Misconception(
            "mean-of-means",
            "each piece counts the same, however few tokens it scores: that is the mean of the "
            "pieces' means. Divide each sum by the tokens of the whole batch",
            wrong=_gradients(lambda targets, count, pieces: 1 / count / len(pieces)),
        ),
        Misconception(
            "sum-of-means",
            "you add up the means of the pieces, so the gradient grows with the number of pieces. "
            "Divide each sum by the tokens of the whole batch",
            wrong=_gradients(lambda targets, count, pieces: 1 / count),
        ),
        Misconception(
            "divides-by-the-pieces",
            "you divide the sums by the number of pieces; what counts is the number of tokens "
            "that are scored, over all pieces",
            wrong=_gradients(lambda targets, count, pieces: 1 / len(pieces)),
        ),
        Misconception(
            "never-divides",
            "this is the gradient of the summed loss: with twice the batch it would be twice as "
            "long. Divide by the number of scored tokens",
            wrong=_gradients(lambda targets, count, pieces: 1.0),
        ),
        Misconception(
            "counts-ignored-targets",
            "you divide by all positions; a target of -1 is not scored and must not be counted",
            wrong=_gradients(lambda targets, count, pieces: 1 / sum(t.numel() for _, t in pieces)),
        ),
        Misconception(
            "last-piece-only",
            "only the last piece is left: empty the gradients once before the loop, not in it",
            wrong=_gradients(lambda targets, count, pieces: 1 / _scored(pieces), last_only=True),
        ),
        Misconception(
            "keeps-old-gradients",
            "the second call gives something else than the first: the gradients of the first are "
            "still there. Empty them once, before the loop",
            test=_keeps_old_gradients,
        ),
        Misconception("all-in-one-batch", test=_all_in_one, when_right=True),
        Misconception("one-backward-at-the-end", test=_one_backward, when_right=True),
    ],
)
