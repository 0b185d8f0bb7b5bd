"""Notebook 12: Silence one head."""

from __future__ import annotations

from typing import Any

from gpt2lib.course.exercise import Exercise, Function, Misconception, case, lazy
from gpt2lib.course.exercises.gpt2_itself.shared import draw

torch: Any = lazy("torch")


def _channels(z: Any, head: int, n_head: int) -> slice:
    hs = z.size(-1) // n_head
    return slice(head * hs, (head + 1) * hs)


def _zeroed(choose: Function) -> Function:
    """Return an ablation that sets other entries to 0."""

    def ablate(z: Any, head: int, n_head: int) -> Any:
        changed = z.clone()
        changed[choose(z, head, n_head)] = 0
        return changed

    return ablate


def _only(z: Any, head: int, n_head: int) -> Any:
    kept = torch.zeros_like(z)
    kept[..., _channels(z, head, n_head)] = z[..., _channels(z, head, n_head)]
    return kept


def _removed(z: Any, head: int, n_head: int) -> Any:
    where = _channels(z, head, n_head)
    return torch.cat((z[..., : where.start], z[..., where.stop :]), dim=-1)


def _one_head(without_heads: Function) -> Function:
    return lambda z, head, n_head: without_heads(z, [head], n_head)


EXERCISE = Exercise(
    id="without-head",
    notebook="12",
    title="Silence one head",
    signature="my_without_head(z, head, n_head)",
    reference="gpt2lib.course.changing:without_heads",
    adapt=_one_head,
    cases=lambda: [case(draw(2, 4, 12), 1, 3), case(draw(1, 6, 8, seed=1), 3, 4)],
    hints=[
        "c_proj reads the heads side by side: the first hs channels are head 0's.",
        "hs is C / n_head; head h has the channels from h·hs on, hs of them.",
        "Copy first, z.clone(), then set [..., h * hs : (h + 1) * hs] to 0.",
    ],
    misconceptions=[
        Misconception(
            "every-nth-channel",
            "every n_head-th channel is 0, a little of each head; the channels of one head "
            "stand together",
            wrong=_zeroed(lambda z, head, n_head: (..., slice(head, None, n_head))),
        ),
        Misconception(
            "one-channel",
            "one channel is 0; a head has C / n_head of them",
            wrong=_zeroed(lambda z, head, n_head: (..., head)),
        ),
        Misconception(
            "a-position",
            "a position is 0, for all heads; the heads lie along the last dimension",
            wrong=_zeroed(lambda z, head, n_head: (slice(None), head)),
        ),
        Misconception(
            "keeps-only-it",
            "the other way round: all heads but this one are 0",
            wrong=_only,
        ),
        Misconception(
            "counts-from-one",
            "this is the head before it: heads are counted from 0",
            wrong=_zeroed(lambda z, head, n_head: (..., _channels(z, (head - 1) % n_head, n_head))),
        ),
        Misconception(
            "cut-out",
            "the channels are gone, and c_proj can no longer read what is left: set them to 0",
            wrong=_removed,
        ),
    ],
)
