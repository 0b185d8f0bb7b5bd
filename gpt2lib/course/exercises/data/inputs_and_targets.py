"""Notebook 02: What goes in, and what should come out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gpt2lib.course.exercise import Exercise, Function, Misconception, case, lazy

np: Any = lazy("numpy")
torch: Any = lazy("torch")


class _Row:
    """Ids in memory, which `batch` reads as it reads a token file."""

    marks = None

    def __init__(self, tokens: Any) -> None:
        self.tokens = tokens

    def __len__(self) -> int:
        return len(self.tokens)

    def window_ends(self, starts: Any, block_size: int) -> Any:
        return np.full(len(starts), len(self))


def _of_a_row(batch: Function) -> Function:
    return lambda tokens, starts, block_size: batch(_Row(tokens), starts, block_size)


def _cut(
    first: int = 0, then: int = 1, shorter: int = 0, wrapped: bool = False, kind: str = "int64"
) -> Function:
    """Return the function that cuts inputs from `first` and targets from `then` on."""

    def cut(tokens: Any, starts: Sequence[int], block_size: int) -> Any:
        T = block_size - shorter
        ids = torch.from_numpy(tokens.astype(kind))
        idx = torch.stack([ids[s + first : s + first + T] for s in starts])  # (B, T)
        if wrapped:
            return idx, idx.roll(-1, dims=1)
        return idx, torch.stack([ids[s + then : s + then + T] for s in starts])

    return cut


def _row(n: int, seed: int = 0) -> Any:
    """Return n ids, all different, in two bytes each."""
    return np.random.default_rng(seed).permutation(500)[:n].astype("uint16")


EXERCISE = Exercise(
    id="inputs-and-targets",
    notebook="02",
    title="What goes in, and what should come out",
    signature="my_inputs_and_targets(tokens, starts, block_size)",
    reference="gpt2lib.data.loader:batch",
    adapt=_of_a_row,
    strict_type=True,  # embeddings take int64
    cases=lambda: [case(_row(12), [3, 6, 1], 4), case(_row(30, 1), [10, 2], 6)],
    hints=[
        "A window of block_size inputs needs block_size + 1 tokens.",
        "The target at position t is the token after the input at position t: the same window, "
        "moved by one.",
        "tokens[s : s + block_size] and tokens[s + 1 : s + 1 + block_size], for each s of starts.",
        "torch.from_numpy(tokens.astype('int64')) has the type that embeddings take; torch.stack "
        "makes (B, T) of rows.",
    ],
    misconceptions=[
        Misconception(
            "targets-are-inputs",
            "each target is the input at its own position, so the model has only to copy what it "
            "sees; the target is the token after it",
            wrong=_cut(then=0),
        ),
        Misconception(
            "wraps-around",
            "the last target of each row is the row's first token: roll moves it around. It must "
            "be the token after the window",
            wrong=_cut(wrapped=True),
        ),
        Misconception(
            "the-token-before",
            "the target is the token before the input, which the model has already seen; take the "
            "one after it",
            wrong=_cut(then=-1),
        ),
        Misconception(
            "two-ahead",
            "each target is two tokens ahead: the shift is made twice",
            wrong=_cut(then=2),
        ),
        Misconception(
            "one-too-short",
            "your rows have block_size - 1 positions: you shift within block_size tokens. Read one "
            "token more",
            wrong=_cut(shorter=1),
        ),
        Misconception(
            "two-bytes-each",
            "the values are right, but still of the small type of the file; embeddings take "
            "int64 (torch.long)",
            wrong=_cut(kind="uint16"),
        ),
    ],
)
