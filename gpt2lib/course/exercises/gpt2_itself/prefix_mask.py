"""Notebook 12: Where a copying head should look."""

from __future__ import annotations

from typing import Any

from gpt2lib.course.exercise import Case, Exercise, Function, Misconception, Seen, case, lazy

torch: Any = lazy("torch")


def _wrong_prefix(
    *, shift: int = 1, causal: bool = True, first: bool = False, turned: bool = False
) -> Function:
    """Return the mask with one thing changed."""

    def mask(idx: Any) -> Any:
        same = idx[:, :, None] == idx.roll(shift, dims=1)[:, None, :]
        if shift == 1 and not first:
            same[:, :, 0] = False
        same = same.tril() if causal else same
        return same.transpose(1, 2) if turned else same

    return mask


def _newest_only(idx: Any) -> Any:
    marked = _wrong_prefix()(idx)
    later = marked.flip(-1).cumsum(-1).flip(-1)  # how many from here on
    return marked & (later == 1)


def _not_itself(idx: Any) -> Any:
    return _wrong_prefix()(idx).tril(-1)


def _behind_itself(seen: Seen) -> str:
    (row, t, j) = seen.index[:3]
    return (
        f"in row {row}, query {t} marks key {j}, which is an earlier copy of the token itself (or "
        "its own position): a copying head wants what came after it, one key further"
    )


def _prefix_cases() -> list[Case]:
    return [
        case(torch.tensor([[3, 1, 4, 3, 1, 4, 3, 1], [5, 5, 2, 5, 2, 2, 5, 5]])),
        case(torch.tensor([[2, 7, 1, 8, 2, 8, 1, 2]])),
    ]


EXERCISE = Exercise(
    id="prefix-mask",
    notebook="12",
    title="Where a copying head should look",
    signature="my_prefix_mask(idx)",
    reference="gpt2lib.course.induction:prefix_mask",
    cases=_prefix_cases,
    hints=[
        "At query t the token idx[t] was just read. Where did it stand before, and what came "
        "right after it?",
        "Key j is marked if idx[j - 1] == idx[t], and 1 <= j <= t.",
        "before = idx.roll(1, dims=1), then idx[:, :, None] == before[:, None, :], with key 0 "
        "and everything above the diagonal set to False.",
    ],
    misconceptions=[
        Misconception(
            "the-copy-itself",
            _behind_itself,
            wrong=_wrong_prefix(shift=0),
        ),
        Misconception(
            "one-before",
            "you mark the key before the earlier copy; a copying head wants the one after it",
            wrong=_wrong_prefix(shift=-1),
        ),
        Misconception(
            "sees-the-future",
            "keys after the query are marked, and no head can look there: j is at most t",
            wrong=_wrong_prefix(causal=False),
        ),
        Misconception(
            "wraps-around",
            "key 0 is marked: roll puts the last token before the first, and nothing is there",
            wrong=_wrong_prefix(first=True),
        ),
        Misconception(
            "transposed",
            "queries and keys are exchanged: row t belongs to query t",
            wrong=_wrong_prefix(turned=True),
        ),
        Misconception(
            "newest-only",
            "only the newest copy counts here; a head may look behind any of them",
            wrong=_newest_only,
        ),
        Misconception(
            "not-itself",
            "the query's own position is left out; where a token comes twice in a row, it is "
            "the one after the first, and counts",
            wrong=_not_itself,
        ),
    ],
)
