"""What an update takes in the memory of a GPU that is not here: a formula, for the shape alone.

Weights, gradients and moments are float32 under every precision. For the backward pass a block
keeps what its layers read: the stream twice, in float32; what c_attn reads and makes; the answer of
attention, for the kernel and for c_proj; what c_fc reads and makes, and GELU's output. Under
autocast it also keeps 16-bit copies of its matrices. The peak comes in the loss, with a chunk of
logits and their probabilities, in the backward pass, where a block's gradients come on top or all
those of the weights are there, or in the optimiser's step.

Against the same update played on the CPU with the choices of a GPU the formula is right within 10 %
(tests/estimate/test_update.py, a grid of shapes). It is unmeasured on a GPU. It leaves out what a
window keeps under dropout, global tokens, and the gaps of the allocator.

Shapes: B sequences in a micro-batch, N = B·T tokens, C = n_embd, L = n_layer, V = vocab_size.

Reference: Korthikanti et al. 2022, section 4 (activations); for what is spread over GPUs,
Rajbhandari et al. 2020 (ZeRO), section 5, and Zhao et al. 2023 (FSDP), section 3.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from gpt2lib.config import TrainConfig
from gpt2lib.estimate.counts import BYTES, count_parameters, memory

MARGIN = 0.12
"""Share of the free memory that is left alone: for what the estimate does not see, and for others.

It does not see Python and PyTorch themselves, the allocator's gaps, and the scratch space of some
kernels (`python benchmarks/memory.py` prints how near it comes)."""
CHUNK, MUON_AT_ONCE = 2**25, 2**21
"""Numbers in a chunk of logits, and in the matrices that Muon works on at once. They are those of
modules that import torch; a test compares them."""
WORKSPACE = 32 << 20
"""What PyTorch sets aside for cuBLAS on a GPU of the Hopper kind; others get about 8 MiB."""

WIDTH = {"fp32": 4, "bf16": 2, "fp16": 2}
"""Bytes of a number in the products."""
INT64 = 8

Moments = Mapping[str, Counter[str]]
"""The bytes of each kind, at the moments of an update when there may be most of them."""


def highest(moments: Moments) -> tuple[str, int]:
    """Return the moment when most bytes live, and how many."""
    return max(((name, parts.total()) for name, parts in moments.items()), key=lambda pair: pair[1])


def divisors(share: int) -> list[int]:
    """Return the micro-batches into which a share can be cut evenly, largest first."""
    return [size for size in range(share, 0, -1) if share % size == 0]


class UpdateMemory:
    """What an update of a run takes, by the size of its micro-batch.

    Args:
        config: the run; device and precision are resolved, the vocabulary is the true one.
        share: sequences of one process in an update.
        processes: how many train together; above 1, gradients are exchanged through a copy.
        shards: over how many GPUs weights, gradients and moments are spread (FSDP2).
    """

    def __init__(
        self, config: TrainConfig, share: int, processes: int = 1, shards: int = 1
    ) -> None:
        self.config, self.share = config, share
        self.processes, self.shards = processes, shards

    def __repr__(self) -> str:
        return f"{type(self).__name__}(share={self.share}, processes={self.processes})"

    def moments(self, size: int) -> Moments:
        """Return what lives at the moments of an update, with so many sequences at once."""
        return gpu_update(self.config, size, self.share, self.processes, self.shards)

    def peak(self, size: int) -> int:
        """Return the most bytes that live at once."""
        return highest(self.moments(size))[1]

    def fits(self, size: int, available: int) -> bool:
        """Return whether a micro-batch fits into so many bytes and leaves `MARGIN` of them free."""
        return self.peak(size) <= (1 - MARGIN) * available

    def largest(self, available: int) -> int:
        """Return the largest divisor of the share that fits into so many bytes, or 0."""
        state = memory(self.config.model, self.config.optim.name == "muon", self.config.method)
        if (state["weights"] + state["optimizer"]) // self.shards > available:
            return 0  # whatever the micro-batch is
        sizes = divisors(self.share)
        return next((size for size in sizes if self.fits(size, available)), 0)


def gpu_update(
    config: TrainConfig, size: int, share: int, processes: int = 1, shards: int = 1
) -> Moments:
    """Count the bytes of an update by the formula; arguments as in `UpdateMemory`, size is B."""
    model, every = config.model, int(config.gradient_checkpointing)
    C, L, T, N = model.n_embd, model.n_layer, model.block_size, size * model.block_size
    width, muon = WIDTH[config.precision], config.optim.name == "muon"
    lowered, later = width < BYTES, size < share  # later: gradients of a micro-batch before it
    states = memory(model, muon, config.method)
    outside = BYTES * count_parameters(model.replace(n_layer=0))
    weights, trained, stream = states["weights"], states["gradients"], BYTES * N * C
    block, head = (weights - outside) // max(1, L), BYTES * C * model.vocab_size
    reached = min(L, config.method.k) if config.method.name == "last-k" else L  # by the gradient
    of_head = head if config.method.name in ("full", "head") else 0  # its gradient

    kept = _kept_by_block(config, size) + lowered * block // 2  # and its weights in 16 bits
    again = len(range(0, L, every)) if every else 0  # blocks that keep their input only
    again = min(again, reached)
    activations = (reached - again) * kept + (again + 2) * stream
    activations += size * T**2 * config.data.mask_documents
    chunks = max(1, -(-N * model.vocab_size // CHUNK))  # of about equal size
    logits = -(-N // chunks) * model.vocab_size
    chunk = width * logits + (max(2 * BYTES * logits, head) if lowered else BYTES * logits)
    loss = stream + of_head + chunk + lowered * (again * block + stream) // 2
    passed_on = stream + 5 * N * C * width  # gradients on their way through a block
    redone = kept - stream if every and (L - 1) % every == 0 else 0
    at_once = min(4 * C**2 * L, max(MUON_AT_ONCE, 4 * C**2)) if muon else 0

    summed = trained // (1 if later else shards)  # gradients, when all are there
    copies = trained if processes > 1 and shards == 1 else 0
    first = copies + trained * later
    gathered = 0
    if shards > 1:  # what is outside of the blocks, two blocks, one of them twice, what is sent
        gathered = outside + min(3, L) * block + max(outside, block) * (1 if later else 3)
    always = {
        "weights": weights // shards,
        "optimizer": states["optimizer"] // shards,
        "tokens": INT64 * (2 + config.data.mask_documents) * share * T,
        "workspace": WORKSPACE * (config.device == "cuda"),
        "gathered": gathered,
    }

    def at(**more: int) -> Counter[str]:
        return Counter({**always, **more})

    step = at(gradients=summed + copies)
    step["optimizer"] += at_once * (BYTES + 3 * width)  # Muon works on copies
    return {
        "loss": at(gradients=first, activations=activations, loss=loss),
        "backward pass": at(
            gradients=first + of_head, activations=activations + passed_on + redone
        ),
        "end of the backward pass": at(
            gradients=summed + copies - min(block, trained) // shards, activations=kept + passed_on
        ),
        "Muon's step" if muon else "AdamW's step": step,
    }


def _kept_by_block(config: TrainConfig, size: int) -> int:
    """Count the bytes of activations that a block keeps for its backward pass."""
    model, width = config.model, WIDTH[config.precision]
    C, T, N = model.n_embd, model.block_size, size * model.block_size
    kv, mlp, documents = (
        model.kv_heads * model.head_size,
        "mlp" not in model.without,
        config.data.mask_documents,
    )
    read = 3 * C + 2 * kv + (width < BYTES) * C + mlp * 9 * C
    if model.position == "rope":
        read += C + kv  # rotated, beside what c_attn made
    stream = BYTES * C + 2 * BYTES + C * (model.dropout > 0)  # with a norm's mean and deviation
    kept = N * (width * read + (1 + mlp) * stream + BYTES * model.n_head)
    kept += width * size * T**2 * documents  # the mask, as what is added to the scores
    if config.device == "mps" or (kv < C and (documents or width == BYTES)):
        kept += BYTES * size * model.n_head * T**2  # no fused kernel: the weights of attention
    return kept
