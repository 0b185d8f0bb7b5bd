"""Notebook 09: The largest micro-batch that fits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from gpt2lib.course.exercise import Exercise, Function, Misconception, case, lazy
from gpt2lib.course.exercises.memory.shared import small_config

config: Any = lazy("gpt2lib.config")
update: Any = lazy("gpt2lib.estimate.update")


def _search(
    sizes: Callable[[int], list[int]],
    margin: bool = True,
    until_too_much: bool = False,
    otherwise: int = 0,
) -> Function:
    """Return the search over some sizes: the first that fits, or the last before one does not."""

    def micro_batch(estimate: Any, available: int) -> int:
        limit, found = (1 - update.MARGIN * margin) * available, otherwise
        for size in sizes(estimate.share):
            fits = estimate.peak(size) <= limit
            if until_too_much and not fits:
                return found
            if fits:
                found = size
                if not until_too_much:
                    return found
        return found

    return micro_batch


def _per_sequence(estimate: Any, available: int) -> int:
    """Divide what is free by what one sequence takes, weights and all."""
    most = int((1 - update.MARGIN) * available / estimate.peak(1))
    return max((size for size in _divisors(estimate.share) if size <= most), default=0)


def _divisors(share: int) -> list[int]:
    return list(update.divisors(share))


def _upwards(share: int) -> list[int]:
    return _divisors(share)[::-1]


def _powers(share: int) -> list[int]:
    return [size for size in _divisors(share) if size & (size - 1) == 0]


def _fit_cases() -> list[Any]:
    def of(share: int, **changes: Any) -> Any:
        shape = small_config(**{"vocab_size": 65, "block_size": 16, "n_embd": 16, **changes})
        run = config.TrainConfig(model=shape, batch_size=share, device="cpu", precision="fp32")
        return update.UpdateMemory(run, share)

    whole = 1 - update.MARGIN
    wide = of(2, n_embd=256, n_layer=4, block_size=4)  # one micro-batch: no gradients wait
    return [
        case(of(12), int(of(12).peak(6) / whole) + 1),
        case(of(12), int(of(12).peak(4) * 1.05)),  # 4 would fit without the margin
        case(of(10), int(of(10).peak(9) / whole) + 1),
        case(wide, int(wide.peak(2) / whole) + 1),
        case(of(8), of(8).peak(1) // 2),  # nothing fits
        case(of(6), 100 * of(6).peak(6)),  # all at once
    ]


def _leaves_a_rest(my_micro_batch: Function) -> str | None:
    """Look for a micro-batch that does not divide the share."""
    for each in _fit_cases():
        share, size = each.args[0].share, my_micro_batch(*each.args)
        if size and share % size:
            return (
                f"of {share} sequences you take {size} at a time, which does not divide them: the "
                f"last micro-batch of an update would be smaller; take a divisor"
            )
    return None


EXERCISE = Exercise(
    id="largest-micro-batch",
    notebook="09",
    title="The largest micro-batch that fits",
    signature="my_micro_batch(update, available)",
    reference="gpt2lib.estimate.update:UpdateMemory.largest",
    cases=_fit_cases,
    hints=[
        "Try the divisors of update.share, the largest first.",
        "update.peak(size) are the bytes at the peak with `size` sequences at once.",
        "Return the first size whose peak is at most (1 - MARGIN) * available, and 0 after the "
        "loop.",
    ],
    misconceptions=[
        Misconception("not-a-divisor", test=_leaves_a_rest),
        Misconception(
            "no-margin",
            "you fill the memory to the last byte; Python, the allocator's gaps and others need "
            "some as well: leave the share MARGIN free",
            wrong=_search(_divisors, margin=False),
        ),
        Misconception(
            "smallest-first",
            "you begin with the smallest size and take the first that fits: that is always 1. "
            "Begin with the largest",
            wrong=_search(_upwards),
        ),
        Misconception(
            "up-to-the-first-that-does-not",
            "you count upwards and stop at the first size that is too much. With the whole share "
            "at once no gradients of an earlier micro-batch are there, so it may fit where a "
            "smaller size does not: begin with the largest",
            wrong=_search(_upwards, until_too_much=True),
        ),
        Misconception(
            "never-all-at-once",
            "where all sequences fit at once you still cut them up: the share itself divides the "
            "share; range(1, share) ends before it",
            wrong=_search(lambda share: _divisors(share)[1:] or [share]),
        ),
        Misconception(
            "powers-of-two",
            "only powers of two are tried: of 12 sequences 6 and 3 may fit as well",
            wrong=_search(_powers),
        ),
        Misconception(
            "weights-in-every-sequence",
            "you divide what is free by the peak of one sequence, but weights and moments are "
            "there once, however many sequences there are: ask for the peak of each size",
            wrong=_per_sequence,
        ),
        Misconception(
            "at-least-one",
            "where nothing fits you return 1, and the run would die of it later; return 0",
            wrong=_search(_divisors, otherwise=1),
        ),
    ],
)
