"""The memory of a whole update of the weights, and the moment at which it is largest.

Weights, gradients and AdamW's two moments stay in float32 under every precision. Gradients come
to life in the backward pass of the first micro-batch, and live until AdamW has read them. The
peak depends on the shape: it is in the loss where the vocabulary is large, in the backward pass of
the last block in a deep model, and in that of the embeddings, when all gradients are there, where
activations are few. AdamW changes its tensors in place, and clipping the gradients: neither needs
more than a few numbers.
"""

from __future__ import annotations

from dataclasses import dataclass

from gpt2lib.config import GPTConfig
from gpt2lib.estimate.counts import count_parameters
from gpt2lib.estimate.layers import FULL
from gpt2lib.estimate.ledger import Ledger
from gpt2lib.estimate.simulated import Model, Setting
from gpt2lib.estimate.tables import INT64

CUDA_GRAIN = 512
"""PyTorch's allocator for CUDA hands out multiples of this many bytes."""
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
    """Play one update through, from the second on, when AdamW's moments are there.

    Args:
        config: the shape of the model, with its true vocabulary.
        setting: how it is trained.
    """
    on_cuda = setting.device == "cuda"
    ledger = Ledger(CUDA_GRAIN if on_cuda else 1)
    parameters = count_parameters(config)
    always = [ledger.hold(parameters, FULL, "weights")]
    always += [ledger.hold(parameters, FULL, "optimizer") for _ in range(2)]
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
    ledger.moment = "AdamW's step"
    spare = ledger.hold(1, FULL, "gradients")  # the norm, for clipping
    del spare, model, always
    return UpdateMemory(ledger.peak, ledger.peak_moment, ledger.peak_parts, dict(ledger.most))
