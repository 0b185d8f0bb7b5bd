"""Exercises of notebook 04."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from gpt2lib.course.exercise import Case, Exercise, Misconception, Seen, case, lazy

torch: Any = lazy("torch")
attention: Any = lazy("gpt2lib.model.attention")
masks: Any = lazy("gpt2lib.model.masks")
config: Any = lazy("gpt2lib.config")

Function = Callable[..., Any]


def _draw(*shapes: tuple[int, ...], seed: int = 0) -> list[Any]:
    """Return a float tensor of each shape, the same ones every time."""
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=generator) for shape in shapes]


def _table(T: int) -> Any:
    return torch.ones(T, T, dtype=torch.bool).tril()


def _average(eager: Function) -> Function:
    """With queries of zero all scores are equal, and attention is the plain average."""

    def average(x: Any) -> Any:
        heads = x[:, None]  # (B, 1, T, C)
        return eager(torch.zeros_like(heads), heads, heads, masks.Causal())[:, 0]

    return average


def _weights(eager: Function) -> Function:
    """With the unit vectors as values, the output is the table of weights."""

    def weights(q: Any, k: Any) -> Any:
        values = torch.eye(k.size(-2))
        return eager(q[None, None], k[None, None], values[None, None], masks.Causal())[0, 0]

    return weights


def _wrong_weights(
    *,
    scale: Function = lambda hs: hs**0.5,
    dim: int = -1,
    late: bool = False,
    allowed: Function = _table,
    fill: float = -float("inf"),
) -> Function:
    """Return the weights with one thing changed."""

    def weights(q: Any, k: Any) -> Any:
        scores = q @ k.T / scale(q.size(-1))
        mask = allowed(q.size(0))
        if late:
            return scores.softmax(dim).masked_fill(~mask, 0.0)
        return scores.masked_fill(~mask, fill).softmax(dim)

    return weights


def _scaled_late(q: Any, k: Any) -> Any:
    return _wrong_weights(scale=lambda hs: 1)(q, k) / q.size(-1) ** 0.5


class _Watch:
    """What turns nothing, and keeps the queries as the layer split them."""

    def __init__(self) -> None:
        self.seen: list[Any] = []  # queries come first, then keys

    def __call__(self, part: Any) -> Any:
        self.seen.append(part)
        return part


def _layer(kind: Any, C: int, n_head: int) -> Any:
    return kind(config.GPTConfig(n_embd=C, n_head=n_head))


def _split(kind: Any) -> Function:
    """Run the layer with a c_attn that changes nothing, and see how it splits its queries."""

    def split(x: Any, n_head: int) -> Any:
        C, watch = x.size(-1), _Watch()
        weights = {"c_attn.weight": torch.eye(C).repeat(3, 1), "c_attn.bias": torch.zeros(3 * C)}
        torch.func.functional_call(_layer(kind, C, n_head), weights, (x, watch))
        return watch.seen[0]

    return split


def _whole(kind: Any) -> Function:
    """Run the layer with the weights that are given."""

    def self_attention(
        x: Any, W_attn: Any, b_attn: Any, W_proj: Any, b_proj: Any, n_head: int
    ) -> Any:
        names = ("c_attn.weight", "c_attn.bias", "c_proj.weight", "c_proj.bias")
        weights = dict(zip(names, (W_attn, b_attn, W_proj, b_proj), strict=True))
        layer = _layer(kind, x.size(-1), n_head)
        return torch.func.functional_call(layer, weights, (x, _Watch()))

    return self_attention


def _wrong_layer(
    *,
    order: Sequence[int] = (0, 1, 2),
    project: bool = True,
    join: bool = True,
    scaled_by: Function = lambda C, n_head: C // n_head,
    one_head: bool = False,
    masked: bool = True,
) -> Function:
    """Return the layer with one thing changed."""

    def layer(x: Any, W_attn: Any, b_attn: Any, W_proj: Any, b_proj: Any, n_head: int) -> Any:
        B, T, C = x.shape
        heads = 1 if one_head else n_head
        parts = (x @ W_attn.T + b_attn).split(C, dim=-1)
        q, k, v = (
            parts[i].view(B, T, heads, C // heads).transpose(1, 2) for i in order
        )  # 3 × (B, nh, T, hs)
        scores = q @ k.transpose(-2, -1) / scaled_by(C, heads) ** 0.5
        if masked:
            scores = scores.masked_fill(~_table(T), -torch.inf)
        y = scores.softmax(-1) @ v  # (B, nh, T, hs)
        y = (y.transpose(1, 2) if join else y).reshape(B, T, C)
        return y @ W_proj.T + b_proj if project else y

    return layer


def _layer_cases() -> list[Case]:
    made = []
    for B, T, C, n_head in ((2, 5, 12, 3), (1, 4, 8, 2)):
        x, *weights = _draw((B, T, C), (3 * C, C), (3 * C,), (C, C), (C,), seed=C)
        made.append(case(x, *(w / C**0.5 for w in weights), n_head))
    return made


def _sees(seen: Seen, what: str) -> str:
    """Name the first position that sees a later one."""
    ahead = torch.as_tensor(seen.got).ne(0).triu(1).nonzero()
    if not len(ahead):
        return f"something is seen that should not be, {what}"
    i, j = ahead[0].tolist()
    return f"position {i} can see position {j}, {what}"


EXERCISES = [
    Exercise(
        id="average-the-past",
        notebook="04",
        title="Every place becomes the average of its past",
        signature="my_average_past(x)",
        reference="gpt2lib.model.attention:eager",
        adapt=_average,
        cases=lambda: [case(*_draw((2, 5, 3))), case(*_draw((1, 8, 2), seed=1))],
        hints=[
            "x is (B, T, C). Place t takes the mean of x[:, 0], ..., x[:, t], itself included.",
            "Loop over t, take x[:, : t + 1].mean(dim=1), and stack the results along dim=1.",
            "Without a loop: x.cumsum(dim=1) divided by 1, 2, ..., T, shaped (T, 1).",
        ],
        misconceptions=[
            Misconception(
                "forgets-to-divide",
                "these are sums: place t has t + 1 terms, so divide by t + 1",
                wrong=lambda x: x.cumsum(1),
            ),
            Misconception(
                "divides-by-T",
                "you divided every place by T, but place t has only t + 1 terms: place 0 must stay "
                "as it is",
                wrong=lambda x: x.cumsum(1) / x.size(1),
            ),
            Misconception(
                "averages-everything",
                "every place gets the average of all places, the later ones too: place t may use "
                "x[:, : t + 1] only",
                wrong=lambda x: x.mean(1, keepdim=True).expand_as(x),
            ),
            Misconception(
                "without-itself",
                "place t must count itself: the slice x[:, :t] ends before t, x[:, : t + 1] does "
                "not",
                wrong=lambda x: torch.cat(
                    [torch.zeros_like(x[:, :1])]
                    + [x[:, :t].mean(1, keepdim=True) for t in range(1, x.size(1))],
                    dim=1,
                ),
            ),
            Misconception(
                "mean-of-nothing",
                "position 0 is nan: the slice x[:, :t] is empty for t = 0, and a mean over nothing "
                "is 0/0. Position t counts itself: x[:, : t + 1]",
                wrong=lambda x: torch.stack([x[:, :t].mean(1) for t in range(x.size(1))], dim=1),
            ),
            Misconception(
                "averages-the-batch",
                "you averaged over dim=0, the batch, and mixed texts that have nothing to do with "
                "each other; time is dim=1",
                wrong=lambda x: (
                    x.cumsum(0) / torch.arange(1, x.size(0) + 1, device=x.device)[:, None, None]
                ),
            ),
            Misconception(
                "averages-the-future",
                "place t gets the average of x[:, t:], what comes after it; the past is "
                "x[:, : t + 1]",
                wrong=lambda x: torch.stack([x[:, t:].mean(1) for t in range(x.size(1))], dim=1),
            ),
        ],
    ),
    Exercise(
        id="causal-mask",
        notebook="04",
        title="Who may see whom",
        signature="my_causal_mask(T)",
        reference="gpt2lib.model.masks:Causal",
        adapt=lambda kind: lambda T: masks.dense(kind(), T, T),
        cases=lambda: [case(1), case(4), case(7)],
        hints=[
            "Row i is the query, column j the key. Which j may i see?",
            "j <= i, and i may see itself. torch.tril keeps the lower triangle of a matrix.",
            "torch.ones(T, T, dtype=torch.bool).tril()",
        ],
        misconceptions=[
            Misconception(
                "sees-the-future",
                lambda seen: _sees(
                    seen, "which comes after it: the mask is transposed (triu in place of tril)"
                ),
                wrong=lambda T: torch.ones(T, T, dtype=torch.bool).triu(),
            ),
            Misconception(
                "blind-to-itself",
                "a place must see itself: the diagonal belongs to the mask (j <= i, not j < i)",
                wrong=lambda T: torch.ones(T, T, dtype=torch.bool).tril(-1),
            ),
            Misconception(
                "true-where-forbidden",
                "your True marks what is hidden; here True means that the query may look. Both "
                "conventions are in use, so it pays to check: invert it with ~",
                wrong=lambda T: torch.ones(T, T, dtype=torch.bool).triu(1),
            ),
            Misconception(
                "float-mask",
                "the pattern is right, but it is made of numbers: PyTorch adds a float mask to the "
                "scores instead of hiding anything. Return booleans",
                wrong=lambda T: torch.ones(T, T).tril(),
            ),
            Misconception(
                "hides-nothing",
                lambda seen: _sees(seen, "and everyone sees everyone: nothing is hidden"),
                wrong=lambda T: torch.ones(T, T, dtype=torch.bool),
            ),
        ],
    ),
    Exercise(
        id="attention-weights",
        notebook="04",
        title="From queries and keys to weights",
        signature="my_attention_weights(q, k)",
        reference="gpt2lib.model.attention:eager",
        adapt=_weights,
        cases=lambda: [case(*_draw((5, 8), (5, 8))), case(*_draw((3, 4), (3, 4), seed=1))],
        hints=[
            "scores = q @ k.T is (T, T): row i holds the scores of query i with every key.",
            "Divide by the square root of hs, which is q.size(-1), before anything else.",
            "Fill the forbidden scores with -torch.inf, then take the softmax over the keys: "
            "scores.masked_fill(~mask, -torch.inf).softmax(dim=-1)",
        ],
        misconceptions=[
            Misconception(
                "mask-after-softmax",
                lambda seen: (
                    f"row {seen.index[0]} sums to {float(seen.got[seen.index[0]].sum()):.2f}, not "
                    "to 1: the mask is applied after the softmax, when the hidden keys have taken "
                    "their share already"
                ),
                wrong=_wrong_weights(late=True),
            ),
            Misconception(
                "no-scale",
                "the scores are not divided by the square root of hs: the softmax is sharper than "
                "it should be",
                wrong=_wrong_weights(scale=lambda hs: 1),
            ),
            Misconception(
                "scaled-by-hs",
                "you divided by hs; a sum of hs products has standard deviation √hs, so divide by "
                "its square root",
                wrong=_wrong_weights(scale=lambda hs: hs),
            ),
            Misconception(
                "scaled-after-the-softmax",
                lambda seen: (
                    f"row {seen.index[0]} sums to {float(seen.got[seen.index[0]].sum()):.2f}, not "
                    "to 1: you divide the weights by √hs, after the softmax; what is divided are "
                    "the scores, before it"
                ),
                wrong=_scaled_late,
            ),
            Misconception(
                "keys-ask-queries",
                "this is k @ q.T, whose row i holds the scores of key i with every query; a row "
                "belongs to a query: q @ k.T",
                wrong=lambda q, k: _wrong_weights()(k, q),
            ),
            Misconception(
                "softmax-over-queries",
                "the columns sum to 1, not the rows: each query shares out its attention over the "
                "keys, which lie along dim=-1",
                wrong=_wrong_weights(dim=0),
            ),
            Misconception(
                "zero-for-minus-infinity",
                "the hidden scores were set to 0, and exp(0) is 1: they still get a weight. Only "
                "minus infinity gives 0",
                wrong=_wrong_weights(fill=0.0),
            ),
            Misconception(
                "sees-the-future",
                lambda seen: _sees(
                    seen, "which comes after it: the mask is transposed, it looks ahead only"
                ),
                wrong=_wrong_weights(allowed=lambda T: torch.ones(T, T, dtype=torch.bool).triu()),
            ),
            Misconception(
                "no-mask",
                lambda seen: _sees(seen, "which comes after it: there is no mask"),
                wrong=_wrong_weights(allowed=lambda T: torch.ones(T, T, dtype=torch.bool)),
            ),
            Misconception(
                "blind-to-itself",
                "place 0 has nothing left to see, and a softmax over nothing is nan: the diagonal "
                "must stay visible",
                wrong=_wrong_weights(allowed=lambda T: torch.ones(T, T, dtype=torch.bool).tril(-1)),
            ),
        ],
    ),
    Exercise(
        id="split-heads",
        notebook="04",
        title="Channels become heads",
        signature="my_split_heads(x, n_head)",
        reference="gpt2lib.model.attention:CausalSelfAttention",
        adapt=_split,
        shows="gpt2lib.model.attention:CausalSelfAttention.forward",
        cases=lambda: [case(*_draw((2, 4, 6)), 3), case(*_draw((1, 6, 8), seed=1), 2)],
        hints=[
            "Head 0 owns the first hs channels of every place, head 1 the next hs, and so on.",
            "x.view(B, T, n_head, hs) cuts the channels and moves nothing. Which two dimensions "
            "must change places?",
            "x.view(B, T, n_head, C // n_head).transpose(1, 2)",
        ],
        misconceptions=[
            Misconception(
                "view-without-transpose",
                "the shape is right and the numbers are not: view(B, n_head, T, hs) cuts time into "
                "pieces, so a head gets some places whole. Cut the channels first, with "
                "view(B, T, n_head, hs), then swap",
                wrong=lambda x, n_head: x.reshape(x.size(0), n_head, x.size(1), -1),
            ),
            Misconception(
                "forgot-to-swap",
                "this is (B, T, nh, hs): well cut, but attention works on the last two dimensions, "
                "which must be time and head size: transpose(1, 2)",
                wrong=lambda x, n_head: x.reshape(x.size(0), x.size(1), n_head, -1),
            ),
            Misconception(
                "interleaved",
                "head 0 got every n_head-th channel; GPT-2's heads are slices of neighbours: view "
                "as (B, T, n_head, hs), not (B, T, hs, n_head)",
                wrong=lambda x, n_head: x.reshape(x.size(0), x.size(1), -1, n_head).permute(
                    0, 3, 1, 2
                ),
            ),
            Misconception(
                "time-last",
                "this is (B, nh, hs, T): one transposition too many; time comes before head size",
                wrong=lambda x, n_head: x.reshape(x.size(0), x.size(1), n_head, -1).permute(
                    0, 2, 3, 1
                ),
            ),
        ],
    ),
    Exercise(
        id="self-attention",
        notebook="04",
        title="The whole layer",
        signature="my_self_attention(x, W_attn, b_attn, W_proj, b_proj, n_head)",
        reference="gpt2lib.model.attention:CausalSelfAttention",
        adapt=_whole,
        cases=_layer_cases,
        hints=[
            "x @ W_attn.T + b_attn is (B, T, 3·C). Cut it into q, k and v along the last "
            "dimension, in this order.",
            "Split each into heads, attend, and bring the heads side by side again: "
            "y.transpose(1, 2).reshape(B, T, C).",
            "At the end y @ W_proj.T + b_proj. The scale is √hs with hs = C / n_head, not √C.",
        ],
        misconceptions=[
            Misconception(
                "split-order",
                "queries and keys are swapped: c_attn gives q, k, v in this order",
                wrong=_wrong_layer(order=(1, 0, 2)),
            ),
            Misconception(
                "values-first",
                "the three parts come as q, k, v; you took the values first",
                wrong=_wrong_layer(order=(1, 2, 0)),
            ),
            Misconception(
                "forgot-c-proj",
                "the heads lie side by side but were never mixed: apply W_proj and b_proj",
                wrong=_wrong_layer(project=False),
            ),
            Misconception(
                "joined-without-swap",
                "the heads were joined while time was still behind them: transpose(1, 2) before "
                "reshape(B, T, C), or the places are shuffled",
                wrong=_wrong_layer(join=False),
            ),
            Misconception(
                "scaled-by-the-width",
                "you divided by √C; a score is a sum over one head's hs = C / n_head channels, so "
                "divide by √hs",
                wrong=_wrong_layer(scaled_by=lambda C, n_head: C),
            ),
            Misconception(
                "one-big-head",
                "n_head is not used: all channels make one table of weights, where each head must "
                "have its own",
                wrong=_wrong_layer(one_head=True),
            ),
            Misconception(
                "no-mask",
                "the past changes when the future does: there is no causal mask",
                wrong=_wrong_layer(masked=False),
            ),
        ],
    ),
]
