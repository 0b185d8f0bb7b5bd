"""Attention as it uses memory: the kernel that the model picks, and what that kernel keeps.

    kernel   keeps for the backward pass
    flash    queries, keys, values, the output, and one float32 a query and head
    eager    queries, keys, values, and one table of T by T a head; three with dropout
    math     the same in float32: what PyTorch falls back to, on a CPU where there is dropout
    chunked  what flash or math keeps, for every block of queries and the keys in its reach

Shapes: B batch, T time, C channels, nh heads, nkv key/value heads, hs head size.
"""

from __future__ import annotations

from functools import partial
from itertools import groupby

from gpt2lib.config import GPTConfig
from gpt2lib.estimate.layers import FULL, Layers, Stack
from gpt2lib.estimate.ledger import Held
from gpt2lib.estimate.tables import Places, Qkv, Tables, write_mask

EAGER_UP_TO, SMALLEST_BLOCK = 512, 128
"""As in `attention` and in `local_attention`, which import torch; a test compares them."""


def kernel_of(
    config: GPTConfig, layer: int, width: int, device: str, documents: bool = False
) -> str:
    """Return which kernel a layer uses in training: flash, eager, math or chunked."""
    window, T = config.windows[layer], config.block_size
    if window is not None and 2 * window < T and not documents:
        return "flash" if device == "cuda" and not config.dropout else "chunked"
    if device == "cpu" and width < FULL and T <= EAGER_UP_TO:
        return "eager"
    return fused_kernel(config, width, device, masked=documents or window is not None)


def fused_kernel(config: GPTConfig, width: int, device: str, masked: bool) -> str:
    """Return what PyTorch's fused attention comes down to.

    On a CPU it has no kernel with dropout, and on a GPU none with shared heads in float32 or with
    a mask that is written out.
    """
    if device == "cpu":
        return "math" if config.dropout else "flash"
    shared = config.kv_heads != config.n_head
    return "math" if device == "mps" or (shared and (masked or width == FULL)) else "flash"


def attention(net: Layers, x: Held, layer: int) -> Held:
    """Map (B, T, C) to (B, T, C), up to but without the last product."""
    config, T = net.config, net.config.block_size
    widths = [config.n_embd, *2 * [config.kv_heads * config.head_size]]
    made = net.linear(x, sum(widths), config.bias)
    kernel = kernel_of(config, layer, net.width, net.device, net.documents)
    qkv = Qkv(made, made, made)
    net.tape.append(lambda grads: merge(net, grads, copies=kernel != "flash"))
    if config.position == "rope":
        q, k = (rotate(net, net.tokens * width) for width in widths[:2])
        net.tape.append(lambda grads: rotate_back(net, grads))
        qkv = Qkv(q, k, made)
        del q, k
    if kernel == "chunked":
        y = chunked(net, qkv, layer)
    else:
        mask = masks_of(config, layer) * (net.batch if net.documents else 1)
        mask = mask or int(net.documents) * net.batch
        y = attend(net, kernel, qkv, Places(T, T, config.n_head, config.kv_heads, mask))
    if kernel != "flash":
        y = net.hold(y.count, y.width)  # heads side by side again: a copy
        net.tape.append(lambda grads: copy(net, grads))
    return net.dropout(net.linear(y, config.n_embd, config.bias))


def masks_of(config: GPTConfig, layer: int) -> int:
    """Return how many tables a layer's mask is: none if causal, one, or one a head."""
    if config.windows[layer] is None:
        return 0
    return config.n_head if len(set(config.dilations[layer])) > 1 else 1


def copy(net: Layers, grads: Stack) -> None:
    """Bring a gradient into another order."""
    grads[-1] = net.hold(grads[-1].count, grads[-1].width)


def merge(net: Layers, grads: Stack, copies: bool) -> None:
    """Join the gradients of queries, keys and values; they may be brought into order before."""
    parts = [grads.pop() for _ in range(3)]
    if copies:
        for i, part in enumerate(parts):
            parts[i] = net.hold(part.count, part.width)
            del part
    grads.append(net.hold(sum(part.count for part in parts), net.width))


def rotate(net: Layers, count: int) -> Held:
    """Turn queries or keys, in float32: nothing is kept but the cosines, which are shared."""
    wide = [net.hold(count, FULL)] if net.width < FULL else []
    half = net.hold(count // 2, FULL)
    across = net.hold(count, FULL)
    del half
    terms = [net.hold(count, FULL) for _ in range(2)]
    turned = net.hold(count, FULL)
    del terms, across
    if wide:
        turned = net.hold(count, net.width)
    return turned


def rotate_back(net: Layers, grads: Stack) -> None:
    """Turn the gradients of queries and keys back; the three lie on the stack as q, k, v."""
    for i in (-2, -3):
        count = grads[i].count
        if net.width < FULL:
            grads[i] = net.hold(count, FULL)
        terms = [net.hold(count, FULL) for _ in range(2)]
        parts = [net.hold(count // 2, FULL), net.hold(count, FULL)]
        del terms[1], parts[0]
        grads[i] = net.hold(count, FULL)
        del terms, parts
        grads[i] = net.hold(count, net.width)


def attend(net: Layers, kernel: str, qkv: Qkv, places: Places) -> Held:
    """Answer queries, by a kernel that looks at all the keys."""
    return flash(net, qkv, places) if kernel == "flash" else Tables(net, kernel, places)(qkv)


def flash(net: Layers, qkv: Qkv, places: Places, mask: Held | None = None) -> Held:
    """Answer queries without ever holding a table of weights, unless a mask is written out."""
    hold, size = net.hold, net.batch * net.config.head_size
    if places.mask and mask is None:
        mask = write_mask(net, places, net.width)
    q_count, kv_count = (
        size * n for n in (places.heads * places.queries, places.kv_heads * places.keys)
    )
    y = hold(q_count, net.width)
    logsumexp = hold(net.batch * places.heads * places.queries, FULL)

    def back(grads: Stack, saved: tuple[object, ...] = (qkv, y, logsumexp, mask)) -> None:
        g = grads.pop()
        # On a GPU the gradient of the queries is summed in float32.
        summed = hold(q_count, FULL) if net.device == "cuda" else None
        grads += [hold(count, net.width) for count in (q_count, kv_count, kv_count)]
        del g, summed

    net.tape.append(back)
    return y


def chunked(net: Layers, qkv: Qkv, layer: int) -> Held:
    """Answer queries block by block; each reads a copy of its keys and of those just before it.

    Heads with a dilation above 1 are first copied apart, into as many interleaved sequences.
    Global tokens are few, and are left out.
    """
    config = net.config
    window, ways = config.windows[layer], config.dilations[layer]
    assert window is not None
    collected: list[list[Held]] = []
    net.tape.append(lambda grads: _gather(net, grads, collected))
    parts = []
    for heads, dilation in _runs(ways):
        length = -(-config.block_size // dilation)  # of one of the sequences
        places = Places(length, length, heads, max(1, heads * config.kv_heads // config.n_head))
        size = net.batch * length * dilation * config.head_size
        counts = [size * n for n in (heads, places.kv_heads, places.kv_heads)]
        woven = qkv if dilation == 1 else Qkv(*(net.hold(n, net.width) for n in counts))
        ys = [_in_blocks(net, woven, window, places, collected) for _ in range(dilation)]
        parts.append(ys[0] if dilation == 1 else net.hold(counts[0], net.width))
        del ys
    return parts[0] if len(parts) == 1 else net.hold(net.tokens * config.n_embd, net.width)


def _runs(dilations: tuple[int, ...]) -> list[tuple[int, int]]:
    """Return the runs of neighbouring heads that share a dilation: how many heads, and which."""
    return [(len(list(run)), dilation) for dilation, run in groupby(dilations)]


def _in_blocks(
    net: Layers, qkv: Qkv, window: int, whole: Places, collected: list[list[Held]]
) -> Held:
    """Answer a sequence block by block."""
    kernel = fused_kernel(net.config, net.width, net.device, masked=True)
    size = max(window // 2, SMALLEST_BLOCK)
    masks: dict[tuple[int, int], Held] = {}
    outputs = []
    for first in range(0, whole.queries, size):
        queries = min(size, whole.queries - first)
        keys = queries + min(window - 1, first)
        places = whole._replace(queries=queries, keys=keys, mask=1)
        kv_count = net.batch * places.kv_heads * keys * net.config.head_size
        joined = Qkv(qkv.q, *(net.hold(kv_count, net.width) for _ in range(2)))
        if (queries, keys) not in masks:
            masks[queries, keys] = write_mask(net, places, net.width)
        net.tape.append(lambda grads: _collect(net, grads, collected))
        mask = masks[queries, keys]
        if kernel == "flash":
            outputs.append(flash(net, joined, places, mask))
        else:
            outputs.append(Tables(net, kernel, places)(joined, mask))
        # The gradient of a block's output is a view of the whole one, which stays below it.
        net.tape.append(partial(_view, net, outputs[-1].count))
    return net.hold(sum(y.count for y in outputs), net.width)


def _view(net: Layers, count: int, grads: Stack) -> None:
    """Put a view of the gradient on the stack, which takes no memory."""
    grads.append(net.hold(count, 0))


def _collect(net: Layers, grads: Stack, collected: list[list[Held]]) -> None:
    """Put the gradients of a block's queries, keys and values aside, added to its neighbour's."""
    parts = [grads.pop() for _ in range(3)]  # values, keys, queries
    collected.append([parts.pop(), *(net.hold(part.count, net.width) for part in parts)])


def _gather(net: Layers, grads: Stack, collected: list[list[Held]]) -> None:
    """Join the gradients of the blocks: queries, then keys, then values."""
    grads.pop()
    counts = [net.tokens * net.config.n_embd]
    counts += [net.tokens * net.config.kv_heads * net.config.head_size] * 2
    for count in counts:
        grads.append(net.hold(count, net.width))
        for parts in collected:
            parts.pop(0)
    for i in (-1, -2):  # the last block's keys serve nobody after it, and are filled up with zeros
        spare = net.hold(grads[i].count, net.width)
        grads[i] = net.hold(grads[i].count, net.width)
        del spare
