"""Notebook 02: Where documents begin."""

from __future__ import annotations

from typing import Any

from gpt2lib.course.exercise import Exercise, Misconception, case, lazy

torch: Any = lazy("torch")


def _two_rows() -> Any:
    return torch.tensor([[9, 4, 4, 9, 2, 9, 9, 3], [5, 1, 9, 6, 6, 2, 9, 8]])


EXERCISE = Exercise(
    id="document-ids",
    notebook="02",
    title="Where documents begin",
    signature="my_document_ids(idx, eot)",
    reference="gpt2lib.data.loader:document_ids",
    cases=lambda: [case(_two_rows(), 9), case(_two_rows(), 2), case(_two_rows()[1:], 6)],
    hints=[
        "idx == eot is True where a new document begins. Count as you go along the row.",
        "cumsum adds up along a dimension, and True counts as 1.",
        "(idx == eot).cumsum(dim=1)",
    ],
    misconceptions=[
        Misconception(
            "eot-ends-the-document",
            "the end-of-text token is counted to the document before it. As an input it is what "
            "the next one's first token is predicted from, so it belongs to the next",
            wrong=lambda idx, eot: (idx == eot).cumsum(1) - (idx == eot).long(),
        ),
        Misconception(
            "starts-at-one",
            "a row that begins in the middle of a document begins with number 0; yours begins "
            "with 1",
            wrong=lambda idx, eot: (idx == eot).cumsum(1) + 1,
        ),
        Misconception(
            "crosses-rows",
            "the count goes on from one row into the next; each row begins at 0 again",
            wrong=lambda idx, eot: (idx == eot).flatten().cumsum(0).view_as(idx),
        ),
        Misconception(
            "along-the-batch",
            "you count down the rows (dim 0, the batch); documents follow one another along a row "
            "(dim 1, time)",
            wrong=lambda idx, eot: (idx == eot).cumsum(0),
        ),
        Misconception(
            "borders-only",
            "you mark the positions where a document begins, and give all others the same number; "
            "add the marks up along the row",
            wrong=lambda idx, eot: (idx == eot).long(),
        ),
        Misconception(
            "counts-from-the-end",
            "the numbers fall along the row: you count the borders still to come, and must count "
            "those that are past",
            wrong=lambda idx, eot: (idx == eot).long().flip(1).cumsum(1).flip(1),
        ),
    ],
)
