"""The model as it uses memory: embeddings, blocks, checkpointing and loss.

It mirrors `gpt2lib.model.gpt`, and forgets what that forgets, at the same place.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial

from gpt2lib.config import GPTConfig
from gpt2lib.estimate.kernels import attention, masks_of
from gpt2lib.estimate.layers import FULL, Layers, Stack
from gpt2lib.estimate.ledger import Held, Ledger
from gpt2lib.estimate.tables import BOOL
from gpt2lib.model.kernels.chunked_loss import rows_in_cache, rows_of_chunk

WIDTH = {"fp32": 4, "bf16": 2, "fp16": 2}
"""Bytes of a number in a matrix product, for every precision."""
RANDOM_STATE = 5056
"""Bytes of the CPU generator's state, which every checkpointed block keeps."""


@dataclass(frozen=True)
class Setting:
    """What the memory of an update depends on, beside the shape.

    Attributes:
        micro_batch: B, sequences in one forward pass.
        accumulation: forward passes of one process in an update.
        precision: fp32, bf16 or fp16.
        device: cpu, cuda or mps.
        checkpointing: recompute the activations of every k-th block; 0 of none.
        processes: how many train together; above 1, gradients are exchanged through a copy.
        documents: whether attention is masked by document.
        muon: whether Muon steps the matrices of the blocks.
    """

    micro_batch: int
    accumulation: int = 1
    precision: str = "fp32"
    device: str = "cpu"
    checkpointing: int = 0
    processes: int = 1
    documents: bool = False
    muon: bool = False

    def of_micro_batch(self, size: int, times: int | None = None) -> Setting:
        """Return the same with micro-batches of this size, so many in an update.

        Args:
            size: sequences in a micro-batch.
            times: forward passes in an update; by default as many sequences as now are passed.
        """
        if times is None:
            times = -(-self.micro_batch * self.accumulation // size)
        return replace(self, micro_batch=size, accumulation=times)


def _free(held: list[Held], grads: Stack) -> None:
    """Free what the last layer to need it has used."""
    held.clear()


class Model(Layers):
    """The model as it uses memory; mirrors `gpt2lib.model.gpt`.

    Args:
        config: the shape of the model.
        setting: how it is trained.
        ledger: where the bytes are written down.
    """

    def __init__(self, config: GPTConfig, setting: Setting, ledger: Ledger) -> None:
        width = WIDTH[setting.precision]
        batch, documents = setting.micro_batch, setting.documents
        super().__init__(config, batch, width, setting.device, ledger, documents)
        self.checkpointing = setting.checkpointing
        self.tied: list[Held] = []  # the head's gradient waits for that of the token embedding

    def pass_through(self) -> None:
        """Run one micro-batch forward and backward."""
        grads = self.loss(self.trunk())
        self.run_backward(grads)

    def trunk(self) -> Held:
        """Run the embeddings, the blocks and the last layer norm."""
        config, ledger = self.config, self.ledger
        ledger.moment = "forward pass"
        masks = self.document_masks()
        x = self.embed()
        if config.position == "rope":  # cosines and sines, shared by all layers
            turn = self.hold(2 * self.places * config.head_size, FULL)
            self.tape.append(partial(_free, [turn]))
            del turn
        for layer in range(config.n_layer):
            if self.checkpointing and layer % self.checkpointing == 0:
                x = self.checkpointed(x, layer)
            else:
                x = self.block(x, layer)
        if self.checkpointing:  # a block that runs again looks at its mask again
            self.tape.insert(0, partial(_free, masks))
        return self.norm(x)

    @property
    def places(self) -> int:
        """Places that differ: those of a row, or of all rows where documents begin anew."""
        return self.tokens if self.documents else self.config.block_size

    def document_masks(self) -> list[Held]:
        """Write out who may look at whom; layers with the same kind of mask share a table."""
        config = self.config
        if not self.documents:
            return []
        kinds = {
            (config.windows[i], config.dilations[i]): max(1, masks_of(config, i))
            for i in range(config.n_layer)
        }
        area = self.tokens * config.block_size
        spare = [self.hold(area, BOOL) for _ in range(2)]
        masks = [self.hold(area * n, BOOL) for n in kinds.values()]
        del spare
        return masks

    def embed(self) -> Held:
        """Look the tokens up, and add their positions."""
        config, hold = self.config, self.hold
        self.tape.append(self._embed_back)
        x = hold(self.tokens * config.n_embd, FULL)
        if config.position == "learned":
            rows = hold(self.places * config.n_embd, FULL)
            x = hold(x.count, FULL)
            del rows
        return self.dropout(x)

    def _embed_back(self, grads: Stack) -> None:
        config, hold = self.config, self.hold
        self.ledger.moment = "backward pass of the embeddings"
        if config.position == "learned":
            places = config.block_size * config.n_embd
            summed = hold(0 if self.documents else places, FULL)  # over the batch
            self.accumulate(hold(places, FULL, "gradients"))
            del summed
        # Two gradients of one matrix: this one is added in place to the one that waits.
        rows = hold(config.vocab_size * config.n_embd, FULL, "gradients")
        grads.pop()
        self.accumulate(self.tied.pop() if self.tied else rows)

    def block(self, x: Held, layer: int) -> Held:
        """Add attention and the MLP to the stream."""
        config, moment = self.config, f"backward pass of block {layer}"
        self.tape.append(lambda grads: None)
        branches = [lambda h: attention(self, h, layer), self.mlp]
        if "mlp" in config.without:
            branches.pop()
        for branch in branches:
            residual = "residual" not in config.without
            if residual:
                self.fork()
            y = branch(self.norm(x))
            x = self.join(x, y) if residual else y
            del y
        self.tape.append(lambda grads: setattr(self.ledger, "moment", moment))
        return x

    def mlp(self, h: Held) -> Held:
        """Widen, bend, narrow."""
        config = self.config
        wide = self.gelu(self.linear(h, 4 * config.n_embd, config.bias))
        return self.dropout(self.linear(wide, config.n_embd, config.bias))

    def checkpointed(self, x: Held, layer: int) -> Held:
        """Run a block but keep its input only; backward, run it again first."""
        tape, self.tape = self.tape, []
        y = self.block(x, layer)
        self.tape = tape
        state = self.hold(RANDOM_STATE, 1)

        def back(grads: Stack, saved: tuple[Held, Held] = (x, state)) -> None:
            outer, self.tape = self.tape, []
            casts, self.casts = self.casts, []
            self.ledger.moment = f"recomputing block {layer}"
            self.block(saved[0], layer)
            self.casts = casts
            del saved
            self.run_backward(grads)
            self.tape = outer

        self.tape.append(back)
        return y

    def loss(self, x: Held) -> Stack:
        """Score the tokens of the vocabulary chunk by chunk; return the gradient to start from.

        What the loss works with counts as its own, the gradients made ahead too.
        """
        config, hold, tokens = self.config, self.hold, self.tokens
        self.ledger.moment = "loss"
        lowered, size = self.width < FULL, config.vocab_size * config.n_embd
        copies = [hold(x.count, self.width, "loss")] if x.width > self.width else []
        grad_x, head = hold(x.count, FULL, "loss"), hold(size, FULL, "loss")
        rows = rows_of_chunk(tokens, config.vocab_size)
        for n_rows in (rows, min(rows, tokens - rows)):  # the third chunk is as the second
            logits = hold(n_rows * config.vocab_size, self.width, "loss")
            self._widen(n_rows, config.vocab_size, 2 if lowered else 1)
            piece = self._piece_of_head() if n_rows else None
            for count in (n_rows * config.n_embd, piece.count if piece else 0):
                added = [hold(count, self.width, "loss")]
                if lowered and self.device == "cpu":
                    added.append(hold(count, FULL, "loss"))
                del added
            del logits, piece
        del copies, x
        self.casts.clear()
        self.ledger.moment = "backward pass of the loss"
        grads = [grad_x]
        del grad_x, head  # from now on it is a gradient like others
        keep = self.tied.append if config.tie_weights else self.accumulate
        keep(hold(size, FULL, "gradients"))
        return grads

    def _piece_of_head(self) -> Held | None:
        """Lower some rows of the head at a time; one piece goes when the next is there."""
        V, C = self.config.vocab_size, self.config.n_embd
        if self.width == FULL:
            return None
        size = min(V, rows_in_cache(V, C, self.device))
        last = self.hold(size * C, self.width, "loss") if size < V else None
        piece = self.hold(size * C, self.width, "loss")
        del last
        return piece

    def _widen(self, n_rows: int, n_columns: int, tables: int = 1) -> None:
        """Work in float32 on as many rows of a table at a time as a cache holds."""
        some = min(n_rows, rows_in_cache(n_rows, n_columns, self.device))
        made = [self.hold(some * n_columns, FULL, "loss") for _ in range(tables)]
        del made
