"""Notebook 03: From scores to a loss."""

import math
from typing import Any

from gpt2lib.course.exercise import Exercise, Function, Misconception, case, lazy
from gpt2lib.course.exercises.baselines.shared import BITS, sum_not_mean

torch: Any = lazy("torch")


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


def _log_of_mean(logits: Any, targets: Any) -> Any:
    return -_given(logits, targets).mean().log()


def _over_the_places(logits: Any, targets: Any) -> Any:
    return -logits.log_softmax(0)[torch.arange(len(targets)), targets].mean()


def _softmax_twice(logits: Any, targets: Any) -> Any:
    return torch.nn.functional.cross_entropy(logits.softmax(-1), targets)


EXERCISE = Exercise(
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
            sum_not_mean,
            wrong=lambda logits, targets: -_given(logits, targets).log().sum(),
        ),
        Misconception(
            "bits",
            BITS,
            wrong=lambda logits, targets: -_given(logits, targets).log2().mean(),
        ),
        Misconception("overflows", test=_overflows, when_right=True),
    ],
)
