"""Exercises of notebook 11."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from gpt2lib.course.exercise import Case, Exercise, Misconception, Seen, case, lazy

torch: Any = lazy("torch")
masks: Any = lazy("gpt2lib.model.masks")
config: Any = lazy("gpt2lib.config")

Function = Callable[..., Any]


def _draw(*shape: int, seed: int = 0) -> Any:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


# temperature-probabilities


def _temperature(probabilities: Function) -> Function:
    return lambda logits, temperature: probabilities(logits, temperature)


def _temperature_cases() -> list[Case]:
    return [case(torch.tensor([[2.0, 1.0, 0.0]]), 0.5), case(3 * _draw(4, 6), 2.0)]


# top-k


def _top_k(probabilities: Function) -> Function:
    return lambda logits, k: probabilities(logits, top_k=k)


def _kept(logits: Any, k: int, largest: bool = True) -> Any:
    """Return True for the k likeliest of each row."""
    best = logits.topk(k, largest=largest).indices
    return torch.zeros_like(logits, dtype=torch.bool).scatter(-1, best, True)


def _top_k_of_all(logits: Any, k: int) -> Any:
    threshold = logits.flatten().topk(k).values[-1]
    return logits.masked_fill(logits < threshold, -torch.inf).softmax(-1)


def _top_k_cases() -> list[Case]:
    return [case(_draw(3, 7), 3), case(_draw(2, 5, seed=1), 5)]


def _keeps_ties(top_k: Function) -> bool:
    return bool((top_k(torch.tensor([[1.0, 3.0, 1.0, 1.0]]), 2) > 0).sum() > 2)


# top-p


def _top_p(probabilities: Function) -> Function:
    return lambda logits, p: probabilities(logits, top_p=p)


def _wrong_top_p(
    *, crossing: bool = True, again: bool = True, undone: bool = True, largest: bool = True
) -> Function:
    """Return top-p with one thing changed."""

    def top_p(logits: Any, p: float) -> Any:
        ordered, order = logits.softmax(-1).sort(descending=largest)
        reached = ordered.cumsum(-1)
        dropped = (reached - ordered >= p) if crossing else (reached > p)
        ordered = ordered.masked_fill(dropped, 0.0)
        if again:
            ordered = ordered / ordered.sum(-1, keepdim=True)
        return torch.zeros_like(ordered).scatter(-1, order, ordered) if undone else ordered

    return top_p


def _zero_logits(logits: Any, p: float) -> Any:
    dropped = _wrong_top_p()(logits, p) == 0
    return logits.masked_fill(dropped, 0.0).softmax(-1)


def _as_a_threshold(logits: Any, p: float) -> Any:
    chances = logits.softmax(-1)
    chances = chances.masked_fill(chances < p, 0.0)
    return chances / chances.sum(-1, keepdim=True)


def _top_p_cases() -> list[Case]:
    unordered = torch.tensor([[0.1, 0.4, 0.2, 0.3], [0.3, 0.1, 0.35, 0.25]]).log()
    return [case(unordered, 0.6), case(_draw(3, 8), 0.9)]


# repetition-penalty


def _wrong_penalty(formula: Function, flip: bool = False) -> Function:
    def penalise(logits: Any, seen: Any, penalty: float) -> Any:
        return torch.where(~seen if flip else seen, formula(logits, penalty), logits)

    return penalise


def _divided(logits: Any, penalty: float) -> Any:
    return torch.where(logits > 0, logits / penalty, logits * penalty)


def _negative_rises(seen: Seen) -> str:
    place = seen.index
    before = float(seen.case.args[0][place])
    return (
        f"a logit of {before:.2f} became {float(seen.got[place]):.2f}, which is higher: a negative "
        f"logit divided by the penalty makes the token likelier; multiply it"
    )


def _penalty_cases() -> list[Case]:
    seen = torch.tensor([[True, False, True, False], [False, True, True, True]])
    logits = torch.tensor([[2.0, 1.0, -2.0, -1.0], [0.5, -3.0, 4.0, 0.0]])
    return [case(logits, seen, 2.0), case(_draw(2, 4), seen, 1.3)]


# cached-step


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
    new = [_draw(2, 3, 1, 4, seed=i) for i in range(3)]
    past = [_draw(2, 3, 5, 4, seed=i) for i in (3, 4)]
    first = [_draw(1, 2, 1, 4, seed=i) for i in (5, 6, 7)]
    return [case(*new, *past), case(*first, *(torch.zeros(1, 2, 0, 4),) * 2)]


# cache-bytes


def _wrong_bytes(
    *,
    both: int = 2,
    heads: str = "kv_heads",
    layers: bool = True,
    window: Function = min,
    rows: bool = True,
) -> Function:
    def cache_bytes(shape: Any, tokens: int, batch: int, bytes_per_number: int) -> int:
        kept = sum(tokens if w is None else window(w, tokens) for w in shape.windows)
        if not layers:
            kept //= shape.n_layer
        width = getattr(shape, heads) * shape.head_size
        return int(both * kept * width * (batch if rows else 1) * bytes_per_number)

    return cache_bytes


def _bytes_cases() -> list[Case]:
    small = config.GPTConfig(n_layer=4, n_head=4, n_embd=64, block_size=64)
    shared = small.replace(n_kv_head=1)
    return [
        case(small, 10, 1, 4),
        case(shared, 64, 3, 2),
        case(shared.replace(window=(8, 16)), 12, 2, 2),
        case(small.replace(window=8), 64, 1, 2),
    ]


# int8-rows


def _int8_cases() -> list[Case]:
    skewed = _draw(3, 5, seed=4)
    skewed[1, 2] = -9.0  # the farthest from 0 is negative
    return [case(skewed), case(_draw(4, 4, seed=5) * torch.tensor([[1.0], [10.0], [0.1], [3.0]]))]


def _wrong_int8(scale: Function, rounded: bool = True) -> Function:
    def wrong(weight: Any) -> Any:
        s = scale(weight)
        q = weight / s
        q = (q.round() if rounded else q.trunc()).long()
        return (q + 128).remainder(256).sub(128).to(torch.int8), s  # what does not fit wraps around

    return wrong


def _row_of_zeros(my_quantize: Function) -> str | None:
    q, scale = my_quantize(torch.tensor([[1.0, -2.0], [0.0, 0.0]]))
    zero = float(scale[1])
    if zero > 0 and not q[1].any():
        return None
    return (
        f"the scale of a row of zeros is {zero:g}: dividing by it gives 0/0, and what an int8 "
        "makes of nan is left to chance. Keep scales above 0: .clamp(min=1e-30)"
    )


def _row_scale(weight: Any, steps: int = 127) -> Any:
    return weight.abs().amax(1, keepdim=True) / steps


EXERCISES = [
    Exercise(
        id="temperature-probabilities",
        notebook="11",
        title="Sharper and flatter",
        signature="my_temperature_probabilities(logits, temperature)",
        reference="gpt2lib.generation.sampling:next_token_probabilities",
        adapt=_temperature,
        cases=_temperature_cases,
        hints=[
            "The temperature acts on the logits, before the softmax.",
            "A small temperature must pull the logits apart: divide by it.",
            "torch.softmax(logits / temperature, dim=-1)",
        ],
        misconceptions=[
            Misconception(
                "multiplies",
                "a low temperature must sharpen, and yours flattens: divide the logits by it",
                wrong=lambda logits, temperature: (logits * temperature).softmax(-1),
            ),
            Misconception(
                "after-the-softmax",
                "the probabilities were divided, so they no longer sum to 1, and their ratios are "
                "as before: divide the logits, before the softmax",
                wrong=lambda logits, temperature: logits.softmax(-1) / temperature,
            ),
            Misconception(
                "without-temperature",
                "the temperature changes nothing in your result: probabilities that are divided "
                "and then brought back to a sum of 1 are what they were",
                wrong=lambda logits, temperature: logits.softmax(-1),
            ),
            Misconception(
                "over-the-batch",
                "each row is a text of its own and must sum to 1: softmax over the last dimension",
                wrong=lambda logits, temperature: (logits / temperature).softmax(0),
            ),
            Misconception(
                "no-softmax",
                "these are still logits; probabilities come out of a softmax",
                wrong=lambda logits, temperature: logits / temperature,
            ),
        ],
    ),
    Exercise(
        id="top-k",
        notebook="11",
        title="Only the k likeliest",
        signature="my_top_k(logits, k)",
        reference="gpt2lib.generation.sampling:next_token_probabilities",
        adapt=_top_k,
        cases=_top_k_cases,
        hints=[
            "What has the logit -inf gets the probability 0.",
            "logits.topk(k) returns the values and where they are; scatter puts them back there.",
            "torch.full_like(logits, -torch.inf).scatter(-1, best.indices, best.values), and then "
            "the softmax.",
        ],
        misconceptions=[
            Misconception(
                "zero-logits",
                "a dropped token has the logit 0, and exp(0) is 1, not 0: set it to -inf",
                wrong=lambda logits, k: logits.masked_fill(~_kept(logits, k), 0.0).softmax(-1),
            ),
            Misconception(
                "not-renormalised",
                "what is left must sum to 1 again: drop before the softmax, or divide by the sum",
                wrong=lambda logits, k: logits.softmax(-1).masked_fill(~_kept(logits, k), 0.0),
            ),
            Misconception(
                "least-likely",
                "you keep the k least likely tokens",
                wrong=lambda logits, k: logits.masked_fill(
                    ~_kept(logits, k, largest=False), -torch.inf
                ).softmax(-1),
            ),
            Misconception(
                "one-threshold-for-all",
                "the rows share one threshold here; each text has its own k likeliest tokens",
                wrong=_top_k_of_all,
            ),
            Misconception(
                "ties-stay",
                "with equal logits more than k tokens stay: choose by index, not by a threshold",
                test=_keeps_ties,
            ),
        ],
    ),
    Exercise(
        id="top-p",
        notebook="11",
        title="The smallest set that reaches p",
        signature="my_top_p(logits, p)",
        reference="gpt2lib.generation.sampling:next_token_probabilities",
        adapt=_top_p,
        cases=_top_p_cases,
        hints=[
            "Sort the probabilities of a row, likeliest first, and add them up.",
            "A token stays if what was reached before it is still below p.",
            "sort returns (ordered, order). ordered.cumsum(-1) - ordered is what was reached "
            "before; scatter(-1, order, ...) brings the answer back to the tokens' own places.",
        ],
        misconceptions=[
            Misconception(
                "drops-the-crossing-token",
                "the token that crosses p belongs to the set; without it p is not reached",
                wrong=_wrong_top_p(crossing=False),
            ),
            Misconception(
                "not-renormalised",
                "what is left must sum to 1 again: divide by its sum",
                wrong=_wrong_top_p(again=False),
            ),
            Misconception(
                "zero-logits",
                "a dropped token has the logit 0, and exp(0) is 1, not 0: set it to -inf before "
                "the second softmax, or set its probability to 0",
                wrong=_zero_logits,
            ),
            Misconception(
                "stays-sorted",
                "the probabilities are those of the sorted tokens: entry 0 must belong to token 0, "
                "so undo the order",
                wrong=_wrong_top_p(undone=False),
            ),
            Misconception(
                "least-likely-first",
                "the set begins with the least likely tokens: sort with descending=True",
                wrong=_wrong_top_p(largest=False),
            ),
            Misconception(
                "as-a-threshold",
                "p is not the least probability of a token, but what the kept ones sum up to",
                wrong=_as_a_threshold,
            ),
        ],
    ),
    Exercise(
        id="repetition-penalty",
        notebook="11",
        title="Less of the same",
        signature="my_repetition_penalty(logits, seen, penalty)",
        reference="gpt2lib.generation.sampling:penalise",
        cases=_penalty_cases,
        hints=[
            "Try the numbers: which is lower, -2 / 2 or -2 * 2?",
            "torch.where(condition, a, b) takes a where the condition holds.",
            "torch.where(logits > 0, logits / penalty, logits * penalty), but only where seen.",
        ],
        misconceptions=[
            Misconception(
                "divides-negative-logits",
                _negative_rises,
                wrong=_wrong_penalty(lambda logits, penalty: logits / penalty),
            ),
            Misconception(
                "multiplies-all",
                "a positive logit times the penalty makes the token likelier: divide it",
                wrong=_wrong_penalty(lambda logits, penalty: logits * penalty),
            ),
            Misconception(
                "subtracts",
                "this subtracts the penalty; the paper divides by it",
                wrong=_wrong_penalty(lambda logits, penalty: logits - penalty),
            ),
            Misconception(
                "everything",
                "every token is penalised, also those that did not occur",
                wrong=lambda logits, seen, penalty: _divided(logits, penalty),
            ),
            Misconception(
                "the-unseen",
                "the tokens that did not occur are penalised, and those that did are not",
                wrong=_wrong_penalty(_divided, flip=True),
            ),
        ],
    ),
    Exercise(
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
    ),
    Exercise(
        id="cache-bytes",
        notebook="11",
        title="What a cache weighs",
        signature="my_cache_bytes(config, tokens, batch, bytes_per_number)",
        reference="gpt2lib.estimate:kv_cache_bytes",
        cases=_bytes_cases,
        hints=[
            "Count the numbers first: keys and values, in every layer, for each token of a row.",
            "A token has config.kv_heads * config.head_size numbers in its key.",
            "config.windows is a tuple with one entry a layer; None is no window. A layer with a "
            "window of w holds min(w, tokens) tokens.",
        ],
        misconceptions=[
            Misconception(
                "only-keys",
                "half of it: keys and values are both kept",
                wrong=_wrong_bytes(both=1),
            ),
            Misconception(
                "all-heads",
                "with shared heads there are fewer keys than queries: config.kv_heads, not n_head",
                wrong=_wrong_bytes(heads="n_head"),
            ),
            Misconception(
                "one-layer",
                "every layer has keys and values of its own",
                wrong=_wrong_bytes(layers=False),
            ),
            Misconception(
                "no-window",
                "a layer with a window holds no more tokens than the window shows",
                wrong=_wrong_bytes(window=lambda w, tokens: tokens),
            ),
            Misconception(
                "window-always-full",
                "a window wider than the text holds the text only: min(w, tokens)",
                wrong=_wrong_bytes(window=lambda w, tokens: w),
            ),
            Misconception(
                "one-row",
                "each row of the batch has its own keys and values",
                wrong=_wrong_bytes(rows=False),
            ),
        ],
    ),
    Exercise(
        id="int8-rows",
        notebook="11",
        title="A matrix in 8 bits",
        signature="my_quantize(weight)",
        reference="gpt2lib.generation.quantization:quantize",
        adapt=lambda quantize: lambda weight: quantize(weight, torch.float32),
        cases=_int8_cases,
        strict_type=True,  # one byte a weight is the lesson
        hints=[
            "The weight of a row that is farthest from 0 shall become 127 or -127.",
            "weight.abs().amax(dim=1, keepdim=True) has shape (N, 1): one number a row, ready to "
            "be divided by.",
            "A row of zeros has no largest weight: .clamp(min=1e-30) keeps its scale above 0.",
            "scale = (weight.abs().amax(1, keepdim=True) / 127).clamp(min=1e-30); "
            "q = (weight / scale).round().to(torch.int8)",
        ],
        misconceptions=[
            Misconception(
                "one-scale-for-all",
                "all rows share one scale, so small rows have few steps left: take each row's own "
                "largest weight",
                wrong=_wrong_int8(
                    lambda w: (w.abs().max() / 127).expand(len(w), 1).clone(),
                ),
            ),
            Misconception(
                "a-scale-a-column",
                "these are the scales of the columns; a row is what one output is made from, and "
                "only a scale of the row can be multiplied in after the product",
                wrong=_wrong_int8(lambda w: w.abs().amax(0, keepdim=True) / 127),
            ),
            Misconception(
                "cuts-off",
                "the digits after the point are cut off, which doubles the error: round first, "
                "then convert to int8",
                wrong=_wrong_int8(_row_scale, rounded=False),
            ),
            Misconception(
                "forgets-the-sign",
                "the largest weight is not the one farthest from 0: -9 needs room, too, so take "
                "abs() first",
                wrong=_wrong_int8(lambda w: w.amax(1, keepdim=True) / 127),
            ),
            Misconception(
                "128-steps",
                "8 bits reach from -128 to 127: with 128 steps the largest weight becomes 128 and "
                "wraps around to -128; divide by 127",
                wrong=_wrong_int8(lambda w: _row_scale(w, 128)),
            ),
            Misconception("row-of-zeros", test=_row_of_zeros, when_right=True),
        ],
    ),
]
