"""The memory of a whole update of the weights, and the moment at which it is largest.

Weights, gradients and the optimiser's moments stay in float32 under every precision. Gradients come
to life in the backward pass of the first micro-batch, and live until AdamW has read them. The
peak depends on the shape: it is in the loss where the vocabulary is large, in the backward pass of
the last block in a deep model, and in that of the embeddings, when all gradients are there, where
activations are few. AdamW changes its tensors in place, and clipping the gradients: neither needs
more than a few numbers. Muon does: it works on copies of some matrices at a time.
"""

from __future__ import annotations

from dataclasses import dataclass

from gpt2lib.config import GPTConfig
from gpt2lib.estimate.counts import block_matrices, count_parameters, moments
from gpt2lib.estimate.layers import FULL
from gpt2lib.estimate.ledger import Ledger
from gpt2lib.estimate.simulated import WIDTH, Model, Setting
from gpt2lib.estimate.tables import INT64

CUDA_GRAIN = 512
"""PyTorch's allocator for CUDA hands out multiples of this many bytes."""
MUON_AT_ONCE = 1 << 21
"""How many numbers `gpt2lib.training.muon` makes orthogonal at once."""
CUDA_WORKSPACE = 32 << 20
"""What PyTorch sets aside for cuBLAS on a GPU of the Hopper kind; others get about 8 MiB."""


@dataclass(frozen=True)
class UpdateMemory:
    """Bytes of an update.

    Attributes:
        peak: the most that live at once.
        moment: when that is.
        parts: the bytes of each kind at that moment; they add up to the peak.
        most: the most bytes of each kind at any time.
    """

    peak: int
    moment: str
    parts: dict[str, int]
    most: dict[str, int]


def update_memory(config: GPTConfig, setting: Setting) -> UpdateMemory:
    """Play one update through, from the second on, when the optimiser's moments are there.

    Args:
        config: the shape of the model, with its true vocabulary.
        setting: how it is trained.
    """
    on_cuda = setting.device == "cuda"
    ledger = Ledger(CUDA_GRAIN if on_cuda else 1)
    parameters = count_parameters(config)
    always = [ledger.hold(parameters, FULL, "weights")]
    always.append(ledger.hold(moments(config, setting.muon), FULL, "optimizer"))
    if on_cuda:
        always.append(ledger.hold(CUDA_WORKSPACE, 1, "workspace"))
    if setting.processes > 1:
        always.append(ledger.hold(parameters, FULL, "gradients"))
    tokens = setting.micro_batch * config.block_size
    always.append(ledger.hold(2 * tokens * setting.accumulation, INT64, "tokens"))
    model = Model(config, setting, ledger)
    for i in range(min(2, setting.accumulation)):  # the third is as the second
        model.has_gradients = i > 0
        model.pass_through()
    ledger.moment = "Muon's step" if setting.muon else "AdamW's step"
    spare = ledger.hold(1, FULL, "gradients")  # the norm, for clipping
    if setting.muon:
        spare = ledger.hold(muon_step(config, setting.precision), 1, "optimizer")
    del spare, model, always
    return UpdateMemory(ledger.peak, ledger.peak_moment, ledger.peak_parts, dict(ledger.most))


def muon_step(config: GPTConfig, precision: str) -> int:
    """Return the bytes that Muon needs beside its moments, for the largest matrices at once.

    There are the averaged gradients, the matrices before and after an iteration, and two tables of
    the shorter side by itself.
    """
    width = WIDTH["bf16"] if precision == "bf16" else FULL
    most = 0
    for parts, rows, columns in block_matrices(config) if config.n_layer else []:
        numbers, short = rows * columns, min(rows, columns)
        at_once = parts * max(1, min(config.n_layer, MUON_AT_ONCE // (parts * numbers)))
        most = max(most, at_once * (numbers * (FULL + 2 * width) + 2 * short**2 * width))
    return most
