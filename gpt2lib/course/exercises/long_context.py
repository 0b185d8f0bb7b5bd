"""Exercises of notebook 13."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from gpt2lib.course.exercise import Case, Exercise, Misconception, Seen, case, lazy

torch: Any = lazy("torch")
config: Any = lazy("gpt2lib.config")
masks: Any = lazy("gpt2lib.model.masks")
model: Any = lazy("gpt2lib.model.gpt")
watching: Any = lazy("gpt2lib.course.watching")

Function = Callable[..., Any]


def _draw(*shapes: tuple[int, ...], seed: int = 0) -> list[Any]:
    """Return a float tensor of each shape, the same ones every time."""
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=generator) for shape in shapes]


def _distance(T: int) -> Any:
    """Return how far each query (row) stands behind each key (column), (T, T)."""
    places = torch.arange(T)
    return places[:, None] - places[None, :]


def _grouped(eager: Function) -> Function:
    """The library's attention, for one text without a batch."""
    return lambda q, k, v: eager(q[None], k[None], v[None], masks.Causal())[0]


def _wrong_grouped(
    *,
    head_for: Function | None = None,
    pool: bool = False,
    masked: bool = True,
    scaled: bool = True,
) -> Function:
    """Return grouped attention with one thing changed."""

    def attention(q: Any, k: Any, v: Any) -> Any:
        nh, T, hs = q.shape
        group = nh // k.size(0)
        if pool:
            k, v = (part.mean(0, keepdim=True).expand(nh, -1, -1) for part in (k, v))
        else:
            used = [head_for(h, group, k.size(0)) if head_for else h // group for h in range(nh)]
            k, v = k[used], v[used]  # (nh, T, hs)
        scores = q @ k.transpose(-2, -1) / (math.sqrt(hs) if scaled else 1)
        if masked:
            scores = scores.masked_fill(_distance(T) < 0, -torch.inf)
        return scores.softmax(-1) @ v

    return attention


def _grouped_cases() -> list[Case]:
    return [
        case(*_draw((4, 5, 3), (2, 5, 3), (2, 5, 3))),
        case(*_draw((6, 4, 2), (2, 4, 2), (2, 4, 2), seed=1)),
        case(*_draw((8, 4, 2), (4, 4, 2), (4, 4, 2), seed=2)),
    ]


def _pool(share_heads: Function) -> Function:
    """Convert a model of one layer whose keys are made by `weight`, and read them again."""

    def pool(weight: Any, n_kv_head: int, head_size: int) -> Any:
        C = weight.size(1)
        shape = config.GPTConfig(
            vocab_size=2, block_size=1, n_layer=1, n_head=C // head_size, n_embd=C
        )
        made = model.GPT(shape)
        with torch.no_grad():
            made.transformer.h[0].attn.c_attn.weight[C : 2 * C] = weight
        shared = share_heads(made, n_kv_head).transformer.h[0].attn.c_attn.weight
        return shared[C : C + n_kv_head * head_size].detach()

    return pool


def _by_head(weight: Any, head_size: int) -> Any:
    return weight.view(-1, head_size, weight.size(1))  # (nh, hs, C)


def _dense_window(SlidingWindow: Any) -> Function:
    return lambda T, window: masks.dense(masks.Causal() & SlidingWindow(window), T, T)


def _dense_global(GlobalTokens: Any) -> Function:
    def table(T: int, window: int, places: Any) -> Any:
        near = masks.SlidingWindow(window) | GlobalTokens(tuple(places))
        return masks.dense(masks.Causal() & near, T, T)

    return table


def _wrong_global(combine: Function) -> Function:
    """Return the table that `combine` makes of its parts.

    It is given causal, window, queries that are global, and keys that are global.
    """

    def table(T: int, window: int, places: Any) -> Any:
        distance = _distance(T)
        chosen = torch.tensor([t in places for t in range(T)])
        query, key = chosen[:, None].expand(T, T), chosen[None, :].expand(T, T)
        return combine(distance >= 0, distance.abs() < window, query, key)

    return table


def _reach(layer_mask: Function) -> Function:
    """Follow the masks of the layers from the last place down, and count the places reached."""

    def field(windows: Any, dilation: int) -> int:
        T = sum(windows) * dilation + 2  # more than can be reached
        shape = config.GPTConfig(
            n_layer=len(windows), block_size=T, window=tuple(windows), dilation=dilation
        )
        seen = torch.zeros(T, dtype=torch.bool)
        seen[-1] = True
        for layer in reversed(range(len(windows))):
            seen = masks.dense(layer_mask(shape, layer), T, T)[seen].any(0)
        return int(T - seen.float().argmax())  # from the first place reached to the last

    return field


def _chunked(chunked: Function) -> Function:
    def attention(q: Any, k: Any, v: Any, window: int) -> Any:
        mask = masks.Causal() & masks.SlidingWindow(window)
        return chunked(q[None, None], k[None, None], v[None, None], mask)[0, 0]

    return attention


def _wrong_blocks(
    *,
    back: int = 1,
    slide: bool = True,
    wider: int = 0,
    causal: bool = True,
    whole: bool = False,
    pad: bool = False,
) -> Function:
    """Return blockwise attention with one thing changed."""

    def attention(q: Any, k: Any, v: Any, window: int) -> Any:
        T, hs = q.shape
        ys = []
        for start in range(0, T - T % window if whole else T, window):
            end = min(start + window, T)
            first = max(0, start - back * window)
            keys, values, distance = k[first:end], v[first:end], _distance(T)[start:end, first:end]
            if pad and start == 0:  # a block of zeros before the first one
                zeros = torch.zeros(window, hs)
                keys, values = torch.cat((zeros, keys)), torch.cat((zeros, values))
                before = torch.arange(end)[:, None] + torch.arange(window, 0, -1)[None, :]
                distance = torch.cat((before, distance), dim=1)
            allowed = (distance < window + wider) if slide else (distance == distance)
            if causal:
                allowed = allowed & (distance >= 0)
            scores = (q[start:end] @ keys.T / math.sqrt(hs)).masked_fill(~allowed, -torch.inf)
            ys.append(scores.softmax(-1) @ values)
        return torch.cat(ys) if ys else q[:0]

    return attention


def _dense_table(my_chunked: Function) -> str | None:
    T, window = 256, 4
    q, k, v = _draw((T, 2), (T, 2), (T, 2), seed=3)
    with watching.Tables(math.prod) as tables:
        my_chunked(q, k, v, window)
    if tables.largest < T * T:
        return None
    return (
        f"for {T} positions and a window of {window} a tensor of {tables.largest:,} numbers was "
        f"made: a table of every position by every other, which is what the blocks are to avoid. "
        "Make scores and mask of one block at a time"
    )


def _sees(seen: Seen, why: str) -> str:
    i, j = seen.index
    return f"place {i} {'can' if bool(seen.got[i, j]) else 'cannot'} see place {j}: {why}"


def _says(why: str) -> Callable[[Seen], str]:
    return lambda seen: _sees(seen, why)


EXERCISES = [
    Exercise(
        id="shared-heads",
        notebook="13",
        title="Query heads in groups",
        signature="my_gqa(q, k, v)",
        reference="gpt2lib.model.attention:eager",
        adapt=_grouped,
        cases=_grouped_cases,
        hints=[
            "Each key/value head serves nh // nkv query heads. Which one does query head h ask?",
            "Heads of a group are neighbours: query head h uses key/value head h // group.",
            "For each h: scores = q[h] @ k[h // group].T / √hs, hide the future, softmax, times "
            "v[h // group]. torch.stack the results.",
        ],
        misconceptions=[
            Misconception(
                "interleaved",
                "query head h took key/value head h % nkv, so the heads of a group lie apart. "
                "Groups are neighbours: h // group (k.repeat_interleave, not k.repeat)",
                wrong=_wrong_grouped(head_for=lambda h, group, nkv: h % nkv),
            ),
            Misconception(
                "divides-by-the-heads",
                "query head h took key/value head h // nkv; a group has nh // nkv query heads, so "
                "divide by that: h // (nh // nkv)",
                wrong=_wrong_grouped(head_for=lambda h, group, nkv: h // nkv),
            ),
            Misconception(
                "one-head-for-all",
                "all query heads asked key/value head 0; that is multi-query attention, and the "
                "other key/value heads are never used",
                wrong=_wrong_grouped(head_for=lambda h, group, nkv: 0),
            ),
            Misconception(
                "averages-heads",
                "you averaged the key/value heads while attending. The mean is for converting a "
                "trained model, once; here each group keeps its own keys and values",
                wrong=_wrong_grouped(pool=True),
            ),
            Misconception(
                "backwards",
                "the groups are in the wrong order: the first heads share key/value head 0, not "
                "the last one",
                wrong=_wrong_grouped(head_for=lambda h, group, nkv: nkv - 1 - h // group),
            ),
            Misconception(
                "no-mask",
                "place 0 changes when a later place does: sharing heads does not replace the "
                "causal mask",
                wrong=_wrong_grouped(masked=False),
            ),
            Misconception(
                "no-scale",
                "the scores are not divided by √hs; sharing keys does not change their size",
                wrong=_wrong_grouped(scaled=False),
            ),
        ],
    ),
    Exercise(
        id="pool-heads",
        notebook="13",
        title="Many key heads become few",
        signature="my_pool_heads(weight, n_kv_head, head_size)",
        reference="gpt2lib.model.surgery:share_heads",
        adapt=_pool,
        cases=lambda: [case(*_draw((8, 8)), 2, 2), case(*_draw((18, 18), seed=1), 2, 3)],
        hints=[
            "The rows of the weight are the channels of the keys: head 0 owns the first hs rows, "
            "head 1 the next hs.",
            "Cut the rows three ways: (n_kv_head, heads in a group, head_size, C). Which of the "
            "four dimensions is averaged?",
            "weight.view(n_kv_head, -1, head_size, weight.size(1)).mean(1).flatten(0, 1)",
        ],
        misconceptions=[
            Misconception(
                "mixes-channels",
                "you averaged neighbouring rows, which are channels of one head. Channel i of a "
                "head is averaged with channel i of the other heads: view as (n_kv_head, group, "
                "head_size, C) and take the mean over the group",
                wrong=lambda weight, n_kv_head, head_size: weight.view(
                    n_kv_head * head_size, -1, weight.size(1)
                ).mean(1),
            ),
            Misconception(
                "every-nth-head",
                "you pooled every n_kv_head-th head. A group is a run of neighbours, since these "
                "are the query heads that will share the result",
                wrong=lambda weight, n_kv_head, head_size: (
                    _by_head(weight, head_size).unflatten(0, (-1, n_kv_head)).mean(0).flatten(0, 1)
                ),
            ),
            Misconception(
                "sums",
                "these are sums: keys that are as many times longer make scores that are as many "
                "times larger. Take the mean",
                wrong=lambda weight, n_kv_head, head_size: (
                    _by_head(weight, head_size).unflatten(0, (n_kv_head, -1)).sum(1).flatten(0, 1)
                ),
            ),
            Misconception(
                "first-head",
                "each group kept its first head and threw the others away; that is the method "
                "'first', and here the mean is asked for",
                wrong=lambda weight, n_kv_head, head_size: (
                    _by_head(weight, head_size).unflatten(0, (n_kv_head, -1))[:, 0].flatten(0, 1)
                ),
            ),
            Misconception(
                "group-for-number",
                "n_kv_head is how many heads are left, not how many make a group",
                wrong=lambda weight, n_kv_head, head_size: (
                    _by_head(weight, head_size).unflatten(0, (-1, n_kv_head)).mean(1).flatten(0, 1)
                ),
            ),
            Misconception(
                "pools-the-inputs",
                "you averaged the columns, which are the channels that the layer reads. Heads lie "
                "in the rows",
                wrong=lambda weight, n_kv_head, head_size: (
                    weight.view(weight.size(0), n_kv_head, -1, head_size).mean(2).flatten(1, 2)
                ),
            ),
        ],
    ),
    Exercise(
        id="window-mask",
        notebook="13",
        title="A window that slides",
        signature="my_window_mask(T, window)",
        reference="gpt2lib.model.masks:SlidingWindow",
        adapt=_dense_window,
        cases=lambda: [case(1, 1), case(6, 3), case(7, 2), case(5, 9)],
        hints=[
            "A query at place i sees `window` keys: itself, and the window - 1 before it.",
            "Write the distance i - j as a table: places[:, None] - places[None, :].",
            "(distance >= 0) & (distance < window)",
        ],
        misconceptions=[
            Misconception(
                "one-too-many",
                _says(
                    "a query sees window + 1 keys. The window counts the query itself, so the "
                    "distance must be below window, not up to it"
                ),
                wrong=lambda T, window: (_distance(T) >= 0) & (_distance(T) <= window),
            ),
            Misconception(
                "two-sided",
                _says(
                    "that is ahead of it. Longformer's window has two sides, a model that writes "
                    "has only the left one"
                ),
                wrong=lambda T, window: _distance(T).abs() < window,
            ),
            Misconception(
                "forgets-itself",
                _says("the window begins with the query itself, at distance 0"),
                wrong=lambda T, window: (_distance(T) >= 1) & (_distance(T) <= window),
            ),
            Misconception(
                "window-unused",
                _says("its distance is the whole window or more; this is the causal mask"),
                wrong=lambda T, window: _distance(T) >= 0,
            ),
            Misconception(
                "looks-ahead",
                _says(
                    "the window lies on the wrong side. Rows are queries, and i - j is not "
                    "negative for what lies behind"
                ),
                wrong=lambda T, window: (_distance(T) <= 0) & (_distance(T) > -window),
            ),
            Misconception(
                "blocks-for-windows",
                _says(
                    "you cut the text into blocks of `window` tokens. A window slides: each query "
                    "has its own"
                ),
                wrong=lambda T, window: (
                    (_distance(T) >= 0)
                    & (torch.arange(T)[:, None] // window == torch.arange(T)[None, :] // window)
                ),
            ),
            Misconception(
                "float-mask",
                "these are numbers; a mask answers yes or no, so return booleans",
                wrong=lambda T, window: ((_distance(T) >= 0) & (_distance(T) < window)).float(),
            ),
        ],
    ),
    Exercise(
        id="global-mask",
        notebook="13",
        title="Global tokens without a leak",
        signature="my_global_mask(T, window, places)",
        reference="gpt2lib.model.masks:GlobalTokens",
        adapt=_dense_global,
        cases=lambda: [case(7, 2, (3,)), case(8, 3, (1, 5)), case(5, 2, ())],
        hints=[
            "Three tables: causal, the window, and `global`: True where the query or the key is "
            "one of the places.",
            "A pair is allowed if it is near or global, and in any case not ahead. Mind where the "
            "brackets go.",
            "causal & (near | is_global[:, None] | is_global[None, :])",
        ],
        misconceptions=[
            Misconception(
                "leaks-the-future",
                _says(
                    "it is in its future. `causal & near | global` reads as `(causal & near) | "
                    "global`, and lets a global token through whatever its place"
                ),
                wrong=_wrong_global(lambda causal, near, query, key: (causal & near) | query | key),
            ),
            Misconception(
                "global-looks-ahead",
                _says(
                    "a global token that sees the whole text hands it on to everyone after it, "
                    "the answers included"
                ),
                wrong=_wrong_global(
                    lambda causal, near, query, key: (causal & (near | key)) | query
                ),
            ),
            Misconception(
                "seen-before-it-was-read",
                _says("a global token is seen by those after it, not by those before it"),
                wrong=_wrong_global(
                    lambda causal, near, query, key: (causal & (near | query)) | key
                ),
            ),
            Misconception(
                "only-looked-at",
                _says(
                    "a global token also looks at all places before it, beyond the window: that "
                    "is how it collects what it hands on"
                ),
                wrong=_wrong_global(lambda causal, near, query, key: causal & (near | key)),
            ),
            Misconception(
                "only-looks",
                _says(
                    "everyone after a global token sees it, however far away: otherwise what it "
                    "has collected reaches nobody"
                ),
                wrong=_wrong_global(lambda causal, near, query, key: causal & (near | query)),
            ),
            Misconception(
                "no-window",
                _says("you left out the window: ordinary places see their neighbours, too"),
                wrong=_wrong_global(lambda causal, near, query, key: causal & (query | key)),
            ),
        ],
    ),
    Exercise(
        id="receptive-field",
        notebook="13",
        title="How far a stack of windows sees",
        signature="my_receptive_field(windows, dilation)",
        reference="gpt2lib.model.masks:layer_mask",
        adapt=_reach,
        cases=lambda: [
            case((3,), 1),
            case((3, 3, 3), 1),
            case((2, 4, 8), 2),
            case((4, 5), 3),
        ],
        hints=[
            "One layer with window w reaches w - 1 places back. With dilation d it reaches "
            "(w - 1) · d.",
            "The next layer looks from there, so distances add up. And the place itself counts.",
            "sum((w - 1) * dilation for w in windows) + 1",
        ],
        misconceptions=[
            Misconception(
                "adds-windows",
                lambda seen: (
                    f"{seen.got} is the sum of the windows, but neighbouring windows overlap in "
                    f"the place that they start from: a layer adds w - 1, not w"
                ),
                wrong=lambda windows, dilation: sum(windows) * dilation,
            ),
            Misconception(
                "forgets-the-place-itself",
                lambda seen: (
                    f"{seen.got} is how far back the stack reaches; with the place itself these "
                    f"are {seen.expected} places"
                ),
                wrong=lambda windows, dilation: sum(w - 1 for w in windows) * dilation,
            ),
            Misconception(
                "multiplies-layers",
                "you multiplied the windows. Distances add up from layer to layer",
                wrong=lambda windows, dilation: math.prod(windows) * dilation,
            ),
            Misconception(
                "widest-layer-only",
                "that is what one layer reaches. The layer above looks at places that have looked "
                "further back themselves",
                wrong=lambda windows, dilation: (max(windows) - 1) * dilation + 1,
            ),
            Misconception(
                "forgets-dilation",
                "dilation is not used: the keys of a window lie that far apart, so each layer "
                "reaches that many times as far",
                wrong=lambda windows, dilation: sum(w - 1 for w in windows) + 1,
            ),
            Misconception(
                "two-sided",
                "you counted both sides. That is Longformer's encoder; nothing reaches a place "
                "from its future here",
                wrong=lambda windows, dilation: 2 * sum(w - 1 for w in windows) * dilation + 1,
            ),
        ],
    ),
    Exercise(
        id="window-blocks",
        notebook="13",
        title="A window at the cost of a window",
        signature="my_chunked(q, k, v, window)",
        reference="gpt2lib.model.kernels.window:chunked",
        adapt=_chunked,
        cases=lambda: [
            case(*_draw((8, 3), (8, 3), (8, 3)), 4),
            case(*_draw((7, 2), (7, 2), (7, 2), seed=1), 3),
            case(*_draw((3, 2), (3, 2), (3, 2), seed=2), 5),
        ],
        hints=[
            "Cut the queries into blocks of `window`. The block from start to end needs the keys "
            "from max(0, start - window) to end, and no others.",
            "Inside a block not every key is allowed: use the distance of the true places, "
            "0 <= i - j < window.",
            "for start in range(0, T, window): slice q[start : start + window], slice k and v from "
            "max(0, start - window), mask, softmax, and torch.cat the outputs.",
        ],
        misconceptions=[
            Misconception(
                "own-block-only",
                "the first query of each later block sees itself only: it needs the keys of the "
                "block before, too",
                wrong=_wrong_blocks(back=0),
            ),
            Misconception(
                "window-not-sliding",
                "inside two blocks the last queries see up to twice the window. Two blocks of keys "
                "hold all that a query may see, and more: hide distances of `window` and above",
                wrong=_wrong_blocks(slide=False),
            ),
            Misconception(
                "future-of-the-block",
                "queries see keys that come later in their own block: the causal mask holds inside "
                "a block as well",
                wrong=_wrong_blocks(causal=False),
            ),
            Misconception(
                "drops-the-rest",
                lambda seen: (
                    f"the last {len(seen.expected) - len(seen.got)} places are missing: T need not "
                    f"be a multiple of the window, and the last block may be shorter"
                ),
                wrong=_wrong_blocks(whole=True),
            ),
            Misconception(
                "attends-to-padding",
                "the first block has nothing before it. Zeros put there as keys get weight, since "
                "a score of 0 is not a score of −∞: hide them, or leave them out",
                wrong=_wrong_blocks(pad=True),
            ),
            Misconception(
                "one-too-many",
                "a query sees window + 1 keys: the window counts the query itself, so hide "
                "distances of `window` and above, 0 <= i - j < window",
                wrong=_wrong_blocks(wider=1),
            ),
            Misconception("dense-table", test=_dense_table, when_right=True),
        ],
    ),
]
