"""Notebook 07: One matrix for both ends."""

from typing import Any

from gpt2lib.course.exercise import Exercise, Misconception, case, lazy

torch: Any = lazy("torch")


def _pair() -> tuple[Any, Any]:
    generator = torch.Generator().manual_seed(0)
    head = torch.nn.Linear(4, 7, bias=False)
    embedding = torch.nn.Embedding(7, 4)
    for part in (head, embedding):
        part.weight.data.normal_(generator=generator)
    return head, embedding


def _copied(my_tie: Any) -> bool:
    head, embedding = _pair()
    wanted = embedding.weight.detach().clone()
    my_tie(head, embedding)
    apart = head.weight.data_ptr() != embedding.weight.data_ptr()
    return apart and bool(torch.equal(head.weight, wanted))


def _two_parameters(my_tie: Any) -> bool:
    head, embedding = _pair()
    my_tie(head, embedding)
    shared = head.weight.data_ptr() == embedding.weight.data_ptr()
    return shared and head.weight is not embedding.weight


def _other_way(my_tie: Any) -> bool:
    head, embedding = _pair()
    wanted = head.weight.detach().clone()
    my_tie(head, embedding)
    return embedding.weight is head.weight and bool(torch.equal(head.weight, wanted))


def _still_apart(my_tie: Any) -> str | None:
    """Say what is seen where both parts still have the Parameter that they had."""
    head, embedding = _pair()
    before = head.weight, embedding.weight
    numbers = [weight.detach().clone() for weight in before]
    my_tie(head, embedding)
    if head.weight is not before[0] or embedding.weight is not before[1]:
        return None
    if torch.equal(embedding.weight, numbers[0]):
        return (
            "the embedding's numbers were overwritten with the head's, and there are still two "
            "Parameters; the head must hold the embedding's Parameter"
        )
    if not all(torch.equal(weight, old) for weight, old in zip(before, numbers, strict=True)):
        return "there are still two Parameters, with other numbers; assign to head.weight"
    return (
        "both parts still have their own weight, with the numbers that they had: nothing was "
        "assigned to head.weight (an assignment to the name `head` changes nothing outside of "
        "your function)"
    )


def _transposed(my_tie: Any) -> bool:
    head, embedding = _pair()
    my_tie(head, embedding)
    return tuple(head.weight.shape) == (4, 7)


EXERCISE = Exercise(
    id="tie-weights",
    notebook="07",
    title="One matrix for both ends",
    signature="my_tie(head, embedding)",
    reference="gpt2lib.model.init:tie",
    inplace=True,
    cases=lambda: [case(*_pair())],
    hints=[
        "Both matrices have the shape (V, C) already; nothing has to be transposed.",
        "Numbers that are equal now will differ after one step. The head must hold the very "
        "Parameter object of the embedding.",
        "One assignment of one attribute of `head`.",
    ],
    misconceptions=[
        Misconception(
            "transposed",
            "the head's weight has become (C, V): nn.Linear keeps its matrix as (outputs, "
            "inputs), here (V, C), which is the embedding's shape already",
            test=_transposed,
        ),
        Misconception(
            "other-way-round",
            "they are tied, but the embedding took the head's matrix; a published file holds the "
            "embedding's, so the head must take that one",
            test=_other_way,
        ),
        Misconception(
            "two-parameters",
            "the numbers share their memory, but there are two Parameters: each gets the "
            "gradient of its own use alone, and the optimiser steps both. Assign the Parameter",
            test=_two_parameters,
        ),
        Misconception(
            "tied-by-copy",
            "the numbers are equal, but there are two of each: data_ptr() differs, and after one "
            "step they drift apart. Share the Parameter instead of copying its numbers",
            test=_copied,
        ),
        Misconception("nothing-happened", test=_still_apart),
    ],
)
