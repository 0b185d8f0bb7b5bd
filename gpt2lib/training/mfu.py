"""How fast a device could be, how fast a run is, and what memory it takes.

Model FLOPs utilisation (MFU) is the share of the device's peak that goes into the products of the
model: tokens/s times FLOPs per token over the peak. What is computed twice, for gradient
checkpointing, is not counted, so a run that recomputes has a lower MFU.

Reference: Chowdhery et al. 2022, section 4.1 and appendix B.
"""

from __future__ import annotations

import statistics
import time
from contextlib import nullcontext

import torch

from gpt2lib.config import GPTConfig, OptimConfig, TrainConfig
from gpt2lib.estimate import gpu_peak, training_flops
from gpt2lib.model.gpt import GPT
from gpt2lib.training.optim import make_optimizer

SIZE = 1024
"""Rows and columns of the matrices whose product is timed on a CPU: 2·1024³ FLOPs."""


def peak_flops(device: str, precision: str) -> float | None:
    """Return how many FLOP/s matrix products can reach, at most.

    Of a known GPU it is what the data sheet says, of a CPU what a product of two matrices reaches
    here and now, in less than a second.

    Args:
        device: cpu, cuda or mps.
        precision: fp32, bf16 or fp16. On a GPU fp32 means TF32 where PyTorch was told to use it,
            as `hardware.prepare_process` does.

    Returns:
        FLOP/s, or None if nobody knows.
    """
    if device == "cpu":
        return matmul_flops(precision)
    if device != "cuda":
        return None
    tf32 = precision == "fp32" and torch.get_float32_matmul_precision() != "highest"
    return gpu_peak(torch.cuda.get_device_name(), "tf32" if tf32 else precision)


def matmul_flops(precision: str = "fp32", seconds: float = 0.4) -> float:
    """Measure how many FLOP/s a product of two matrices reaches on the CPU.

    The threads are those that PyTorch uses now. The fastest of the products counts, because what
    slows one down is something else on the machine.

    Args:
        precision: fp32 or bf16.
        seconds: how long to measure, about; one product is made at least.
    """
    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]
    a = torch.ones(SIZE, SIZE, dtype=dtype)  # ones: no random number is drawn
    end = time.perf_counter() + seconds
    fastest = float("inf")
    for _ in range(50):
        started = time.perf_counter()
        a @ a
        now = time.perf_counter()
        fastest = min(fastest, now - started)
        if now > end:
            break
    return 2 * SIZE**3 / fastest


def mfu(tokens_per_second: float, config: GPTConfig, peak: float | None) -> float | None:
    """Return the share of the peak that a run uses, or None if the peak is unknown.

    Args:
        tokens_per_second: of all processes together.
        config: the shape of the model; its attention is counted over the whole context.
        peak: FLOP/s of all devices together, `peak_flops` times processes. (Processes that share
            one CPU share its peak.)
    """
    return None if peak is None else tokens_per_second * training_flops(config) / peak


def memory_in_use(device: str) -> int:
    """Return the bytes a run takes: on a GPU the most its tensors took so far, else resident now.

    Args:
        device: cpu, cuda or mps.
    """
    if device == "cuda":
        return torch.cuda.max_memory_allocated()
    import psutil

    return int(psutil.Process().memory_info().rss)


class Gauge:
    """Reads what a run makes of its devices; measures a CPU's peak when it is made.

    Args:
        config: the run, its precision resolved.
        device: cpu, cuda or mps.
        processes: how many train together; those on a CPU share it.
    """

    def __init__(self, config: TrainConfig, device: str, processes: int) -> None:
        self.model, self.device = config.model, device
        peak = peak_flops(device, config.precision)
        self.peak = peak if peak is None or device == "cpu" else peak * processes

    def read(self, tokens_per_second: float) -> dict[str, float]:
        """Return `mfu`, where the peak is known, and `memory`, in bytes of this process."""
        share = mfu(tokens_per_second, self.model, self.peak)
        known = {} if share is None else {"mfu": round(share, 4)}
        return {**known, "memory": memory_in_use(self.device)}


Shapes = dict[str, tuple[GPTConfig, int]]

CPU_SHAPES: Shapes = {
    "narrow": (GPTConfig(block_size=32, n_layer=2, n_head=2, n_embd=32, vocab_size=512), 8),
    "wide": (GPTConfig(block_size=128, n_layer=4, n_head=4, n_embd=192, vocab_size=2048), 16),
}
"""Shape and batch size of the presets smoke and cpu."""

GPU_SHAPES: Shapes = {
    "narrow": CPU_SHAPES["narrow"],
    "wide": (GPTConfig(block_size=1024, n_layer=4, n_head=12, n_embd=768, vocab_size=2048), 8),
}
"""The wide one has four layers of GPT-2 small."""


def shapes(device: str) -> Shapes:
    """Return the models, with their batch sizes, whose training is timed.

    Two, because their speeds differ: in the narrow one most of the time goes into calling many
    small operations, in the wide one into the products.
    """
    return GPU_SHAPES if device == "cuda" else CPU_SHAPES


def update_seconds(
    config: GPTConfig, batch_size: int, precision: str, device: str = "cpu", seconds: float = 1.0
) -> float:
    """Train a model on random tokens for a few updates; return the median seconds of one.

    Random state is left as it was.

    Args:
        config: the shape of the model.
        batch_size: sequences in an update.
        precision: fp32, bf16, or fp16 on a GPU (without a loss scaler).
        device: cpu, cuda or mps.
        seconds: how long to train, about; two updates are made at least, and the first, which
            fetches memory, is not counted.
    """
    dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(precision)
    taken: list[float] = []
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = GPT(config).to(device)
        optimizer = make_optimizer(model, OptimConfig())
        idx = torch.randint(config.vocab_size, (batch_size, config.block_size)).to(device)  # (B, T)
        end = time.perf_counter() + seconds
        while time.perf_counter() < end or len(taken) < 2:
            started = time.perf_counter()
            with torch.autocast(device, dtype=dtype) if dtype else nullcontext():
                loss, n_tokens = model(idx, idx)
            (loss / n_tokens).backward()
            norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
            norm.item()  # waits for a GPU
            taken.append(time.perf_counter() - started)
    return statistics.median(taken[1:])
