"""Attention that holds tables of n_query by n_key weights a head, as it uses memory.

Shapes: B batch, T time, nh heads, nkv key/value heads, hs head size.
"""

from __future__ import annotations

from typing import NamedTuple

from gpt2lib.estimate.layers import FULL, Layers, Stack
from gpt2lib.estimate.ledger import Held

INT64, BOOL = 8, 1


class Places(NamedTuple):
    """How many queries meet how many keys, and whether a mask is written out for them.

    Attributes:
        queries, keys: how many.
        heads, kv_heads: nh and nkv, or those of them that are computed together.
        mask: how many masks are written out: 0 where the kernel knows the causal one by name.
    """

    queries: int
    keys: int
    heads: int
    kv_heads: int
    mask: int = 0


class Qkv(NamedTuple):
    """Queries, keys and values; where they are views of one tensor, it stands three times."""

    q: Held
    k: Held
    v: Held


def write_mask(net: Layers, places: Places, width: int) -> Held:
    """Write out what may be seen, as numbers to add; a window is found by distances in int64."""
    table = places.queries * places.keys * places.mask
    if net.documents:  # found once for all layers
        return net.hold(table, width)
    distances = [net.hold(table, INT64) for _ in range(2)]
    answers = [net.hold(table, BOOL) for _ in range(3)]
    del distances, answers[1:]
    return net.hold(table, width)


class Tables:
    """Attention as the formula reads, with its tables of n_query by n_key a head.

    Args:
        net: the layers.
        kernel: eager, in the width of the products, or math, in float32.
        places: how many queries meet how many keys.
    """

    def __init__(self, net: Layers, kernel: str, places: Places) -> None:
        self.net, self.places, self.eager = net, places, kernel == "eager"
        self.width = net.width if self.eager else FULL
        size = net.batch * net.config.head_size
        self.q_count = size * places.heads * places.queries
        self.kv_count = size * places.kv_heads * places.keys
        self.table = net.batch * places.heads * places.queries * places.keys
        self.shared = places.heads != places.kv_heads
        # A batch of strided heads is copied before a product; one row of them is not.
        self.copies = net.batch > 1 and places.heads > 1

    def hold(self, count: int) -> Held:
        """Make a tensor in the width of the tables."""
        return self.net.hold(count, self.width)

    def __call__(self, qkv: Qkv, mask: Held | None = None) -> Held:
        """Answer the queries."""
        net, places = self.net, self.places
        raised = self._raise(qkv)
        if mask is None and not self.eager:
            mask = write_mask(net, places._replace(mask=max(1, places.mask)), self.width)
        (q, k, v), soon, late = self._operands(raised)
        scores = self.hold(self.table)
        soon.clear()
        bias = self._bias() if self.eager else None
        masked = self.hold(self.table)
        del scores, bias
        weights = self.hold(self.table)
        if not self.eager:
            del masked
        self._save_softmax((q, k), weights)
        weights = self._drop(weights)
        self._save_sum(weights, v)
        y = self.hold(self.q_count)
        if self.width > net.width:
            lowered = net.hold(self.table, net.width)  # PyTorch returns the table as well
            y = net.hold(self.q_count, net.width)
            del lowered
        late.clear()
        return y

    def _bias(self) -> Held:
        """Write out what is added to the scores."""
        places = self.places
        one = places._replace(mask=max(1, places.mask))
        allowed = write_mask(self.net, one, BOOL) if places.mask else self._causal()
        bias, forbidden = self.hold(allowed.count), self.net.hold(allowed.count, BOOL)
        del forbidden
        return bias

    def _causal(self) -> Held:
        """Write out the causal mask as True and False."""
        table = self.places.queries * self.places.keys
        answers = [self.net.hold(table, BOOL) for _ in range(2)]
        del answers[0]
        return self.net.hold(table, BOOL)

    def _raise(self, qkv: Qkv) -> Qkv:
        """Bring queries, keys and values into the width of the tables."""
        if self.width == self.net.width:
            return qkv
        counts = self.q_count, self.kv_count, self.kv_count
        return Qkv(*(self.hold(count) for count in counts))

    def _operands(self, qkv: Qkv) -> tuple[list[Held], list[Held], list[Held]]:
        """Return what the products read, and what else lives until the scores, or the end."""
        if self.eager:
            scaled = self.hold(self.q_count)
            if self.shared:  # the heads of a group are put below one another first
                read, soon, late = [scaled], [], [self.hold(self.q_count)]
            else:
                read = [self.hold(self.q_count) if self.copies else scaled]
                soon, late = [scaled], []
            read += [self.hold(self.kv_count) if self.copies else x for x in qkv[1:]]
            return read, soon, late
        scaled = self.hold(self.q_count)
        if self.shared:  # keys and values are written out for every head
            each = [self.hold(self._every) for _ in range(3)]  # keys, values, scaled keys
            k, v, soon, late = each[2], each[1], [], [scaled, each[0]]
        else:
            soon, late = [self.hold(self.kv_count)], [scaled]
            k = self.hold(self.kv_count) if self.copies else soon[0]
            v = self.hold(self.kv_count) if self.copies else qkv.v
        return [self.hold(self.q_count) if self.copies else scaled, k, v], soon, late

    def _save_softmax(self, products: tuple[Held, Held], weights: Held) -> None:
        """Put the backward pass of scores and softmax on the tape."""

        def scores(grads: Stack, saved: tuple[Held, Held] = products) -> None:
            v = grads.pop()
            g = grads.pop()
            made = [self.hold(self.q_count), self.hold(self._every)]
            del g
            grads += [*self._lower(made), v]

        def softmax(grads: Stack, saved: Held = weights) -> None:
            grads.insert(-1, self.hold(self.table))
            del grads[-3]

        self.net.tape.append(scores)
        self.net.tape.append(softmax)

    @property
    def _every(self) -> int:
        """Numbers in the keys that a product reads."""
        if self.eager or not self.shared:
            return self.kv_count
        return self.kv_count // self.places.kv_heads * self.places.heads

    def _lower(self, made: list[Held]) -> list[Held]:
        """Scale the gradients of queries and keys, sum over the heads of a group, and cast."""
        q = self.hold(made[0].count)
        made[0] = self.net.hold(q.count, self.net.width)
        made[1] = self.net.hold(self.kv_count, self.net.width)
        return made

    def _drop(self, weights: Held) -> Held:
        """Drop some weights, by a product with noise."""
        net = self.net
        if not net.config.dropout:
            return weights
        noise = net.hold(self.table, self.width if net.device == "cpu" else 1)

        def back(grads: Stack, saved: Held = noise) -> None:
            grads.insert(-1, self.hold(self.table))
            del grads[-3]

        net.tape.append(back)
        return self.hold(self.table)

    def _save_sum(self, weights: Held, v: Held) -> None:
        """Put the backward pass of the weighted sum on the tape."""

        def back(grads: Stack, saved: tuple[Held, Held] = (weights, v)) -> None:
            g = grads.pop()
            if self.width > self.net.width:
                g = self.hold(g.count)
            made = self.hold(self._every)
            grads += [self.hold(self.table), made]
            if made.count > self.kv_count:
                grads[-1] = self.net.hold(self.kv_count, self.net.width)
            del g

        self.net.tape.append(back)
