"""Notebook 11: One query, all the keys."""

from __future__ import annotations

from typing import Any

from gpt2lib.course.exercise import Case, Exercise, Function, Misconception, case, lazy
from gpt2lib.course.exercises.sampling.shared import draw

torch: Any = lazy("torch")
masks: Any = lazy("gpt2lib.model.masks")


def _cached(attend: Function) -> Function:
    """Append, then let the one query look at all the keys."""

    def step(q: Any, k: Any, v: Any, past_k: Any, past_v: Any) -> Any:
        k, v = torch.cat((past_k, k), dim=-2), torch.cat((past_v, v), dim=-2)
        return attend(q, k, v, masks.Causal()), k, v

    return step


def _wrong_step(
    *,
    scale: bool = True,
    seen: slice = slice(None),
    order: int = 1,
    softmax_dim: int = -1,
    append_v: bool = True,
) -> Function:
    def step(q: Any, k: Any, v: Any, past_k: Any, past_v: Any) -> Any:
        keys = torch.cat((past_k, k)[::order], dim=-2)
        values = torch.cat((past_v, v)[::order], dim=-2)
        scores = q @ keys[..., seen, :].transpose(-2, -1)
        if scale:
            scores = scores / q.size(-1) ** 0.5
        y = scores.softmax(softmax_dim) @ values[..., seen, :]
        return y, keys, values if append_v else past_v

    return step


def _step_cases() -> list[Case]:
    new = [draw(2, 3, 1, 4, seed=i) for i in range(3)]
    past = [draw(2, 3, 5, 4, seed=i) for i in (3, 4)]
    first = [draw(1, 2, 1, 4, seed=i) for i in (5, 6, 7)]
    return [case(*new, *past), case(*first, *(torch.zeros(1, 2, 0, 4),) * 2)]


EXERCISE = Exercise(
    id="cached-step",
    notebook="11",
    title="One query, all the keys",
    signature="my_cached_step(q, k, v, past_k, past_v)",
    reference="gpt2lib.model.attention:attend",
    shows="gpt2lib.model.cache:LayerCache.extend",
    adapt=_cached,
    cases=_step_cases,
    hints=[
        "First put the new key behind the old ones, and the new value behind the old values.",
        "The query is the last place, so it may look at everything: no mask is needed.",
        "k = torch.cat((past_k, k), dim=-2), v alike; "
        "weights = (q @ k.transpose(-2, -1) / q.size(-1) ** 0.5).softmax(-1)",
    ],
    misconceptions=[
        Misconception(
            "without-itself",
            "the new token must see itself, too: attend after the new key was added",
            wrong=_wrong_step(seen=slice(None, -1)),
        ),
        Misconception(
            "only-the-first-key",
            "the query sees only the first key: is_causal=True believes that one query stands "
            "at place 0; it stands at the end, and needs no mask",
            wrong=_wrong_step(seen=slice(0, 1)),
        ),
        Misconception(
            "forgets-the-scale",
            "the scores are too large: divide them by the root of the head size",
            wrong=_wrong_step(scale=False),
        ),
        Misconception(
            "new-in-front",
            "the new key stands in front of the old ones; the cache is in the order of the "
            "text, so put it behind them",
            wrong=_wrong_step(order=-1),
        ),
        Misconception(
            "softmax-over-queries",
            "with one query, a softmax over the queries is 1 everywhere: over the keys",
            wrong=_wrong_step(softmax_dim=-2),
        ),
        Misconception(
            "value-not-kept",
            "the new value is not in the cache that you return; the next token needs it",
            wrong=_wrong_step(append_v=False),
        ),
    ],
)
