"""The layers of the model as they use memory: what each makes, what it keeps, what it frees.

Forward, a layer makes its output and leaves on the tape what its backward pass will do. What
autograd saves is what that function refers to. The backward pass runs the tape from its end over
a stack of gradients: every entry takes its gradient from the top, and puts its own there.

    layer       keeps for the backward pass
    linear      its input, and under autocast the weight, both in 16 bits
    layer norm  its input, and the mean and deviation of every place in float32
    GELU        its input
    dropout     what it multiplied by: a number a place on a CPU, a byte a place on a GPU
    residual    nothing

Attention is in `kernels`. Shapes: N = B·T tokens in a micro-batch, C = d channels.
"""

from __future__ import annotations

from collections.abc import Callable

from gpt2lib.config import GPTConfig
from gpt2lib.estimate.ledger import Held, Ledger

FULL = 4
"""Bytes of a number in float32."""

Stack = list[Held]
Node = Callable[[Stack], None]


class Layers:
    """The layers that every model is made of.

    Args:
        config: the shape of the model.
        batch: B, sequences in a micro-batch.
        width: bytes of a number in the products: 4 in fp32, 2 under bf16 or fp16 autocast.
        device: cpu, cuda or mps.
        ledger: where the bytes are written down.
        documents: whether every row has a mask of its own, by its documents.
    """

    def __init__(
        self,
        config: GPTConfig,
        batch: int,
        width: int,
        device: str,
        ledger: Ledger,
        documents: bool = False,
    ) -> None:
        self.config, self.batch, self.width, self.device = config, batch, width, device
        self.documents = documents
        self.hold = ledger.hold
        self.ledger = ledger
        self.tokens = batch * config.block_size
        self.tape: list[Node] = []
        self.casts: list[Held] = []  # autocast's copies of weights, while it is on
        self.gradients: list[Held] = []
        self.has_gradients = False  # from an earlier micro-batch of this update

    def run_backward(self, grads: Stack) -> None:
        """Run the tape from its end; every entry is freed once it has run."""
        while self.tape:
            self.tape.pop()(grads)

    def accumulate(self, gradient: Held) -> None:
        """Keep the gradient of a parameter, or add it to the one there is."""
        if not self.has_gradients:
            self.gradients.append(gradient)

    def linear(self, x: Held, n_out: int, bias: bool) -> Held:
        """Map (N, n_in) to (N, n_out)."""
        lowered = self.width < FULL
        n_in, cast_back = x.count // self.tokens, lowered and x.width == FULL
        weight: Held | None = None
        if lowered:
            weight = self.hold(n_in * n_out, self.width, "casts of weights")
            self.casts += [weight, self.hold(n_out * bias, self.width, "casts of weights")]
        read = self.hold(x.count, self.width) if cast_back else x
        made: list[Held] = []

        def accumulate(grads: Stack) -> None:
            while made:
                last = made.pop()
                self.accumulate(self.hold(last.count, FULL, "gradients") if lowered else last)

        def to_full(grads: Stack) -> None:
            grads.append(self.hold(grads[-1].count, FULL))
            del grads[-2]

        def products(grads: Stack, read: Held = read, weight: Held | None = weight) -> None:
            g = grads.pop()
            made.append(self.hold(n_in * n_out, self.width, "gradients"))
            grads.append(self.hold(read.count, self.width))
            if bias:
                made.append(self.hold(n_out, self.width, "gradients"))
            del g

        self.tape.append(accumulate)
        if cast_back:
            self.tape.append(to_full)
        self.tape.append(products)
        return self.hold(self.tokens * n_out, self.width)

    def norm(self, x: Held) -> Held:
        """Normalise (N, C), in float32 where the stream is."""
        config = self.config
        if "layer_norm" in config.without:
            return x
        y = self.hold(x.count, x.width)
        stats = self.hold(2 * self.tokens, FULL)  # mean and 1 / deviation

        def back(grads: Stack, saved: tuple[Held, Held] = (x, stats)) -> None:
            g = grads.pop()
            grads.append(self.hold(g.count, g.width))
            for _ in range(1 + config.bias):
                self.accumulate(self.hold(config.n_embd, FULL, "gradients"))

        self.tape.append(back)
        return y

    def gelu(self, x: Held) -> Held:
        """Map every number of x."""
        y = self.hold(x.count, x.width)

        def back(grads: Stack, saved: Held = x) -> None:
            g = grads.pop()
            grads.append(self.hold(g.count, g.width))

        self.tape.append(back)
        return y

    def dropout(self, x: Held) -> Held:
        """Drop some numbers of x: its product with noise on a CPU, with a mask on a GPU."""
        if not self.config.dropout:
            return x
        noise = self.hold(x.count, x.width if self.device == "cpu" else 1)
        y = self.hold(x.count, x.width)

        def back(grads: Stack, saved: Held = noise) -> None:
            g = grads.pop()
            grads.append(self.hold(g.count, g.width))

        self.tape.append(back)
        return y

    def fork(self) -> None:
        """Mark where a branch leaves the stream: there, its gradient joins the stream's."""

        def back(grads: Stack) -> None:
            branch, stream = grads.pop(), grads.pop()
            grads.append(self.hold(stream.count, stream.width))
            del branch

        self.tape.append(back)

    def join(self, x: Held, y: Held) -> Held:
        """Add a branch y to the stream x; backward, both get the same gradient."""
        lowered = y.width < x.width

        def back(grads: Stack) -> None:
            grads.append(self.hold(y_count, self.width) if lowered else grads[-1])

        y_count = y.count
        self.tape.append(back)
        return self.hold(x.count, max(x.width, y.width))
