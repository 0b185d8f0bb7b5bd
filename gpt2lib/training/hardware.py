"""What this machine is good at: device and precision, its room, its peak, and what a run uses.

Nothing here happens on import. Commands and the notebooks' set-up cell call `prepare_process`
once; the trainer asks for the rest.

Model FLOPs utilisation (MFU) is the share of the device's peak that goes into the products of the
model: tokens/s times FLOPs per token over the peak. What is computed twice, for gradient
checkpointing, is not counted, so a run that recomputes has a lower MFU.

Reference: Chowdhery et al. 2022, section 4.1 and appendix B (MFU).
"""

from __future__ import annotations

import logging
import time
from contextlib import nullcontext

import torch
from torch import Tensor

from gpt2lib.config import GPTConfig, TrainConfig
from gpt2lib.estimate import count_parameters, gpu_peak, memory, training_flops
from gpt2lib.model.gpt import GPT
from gpt2lib.utils.errors import UserError
from gpt2lib.utils.process import available_memory, give_back_freed_memory, keep_freed_memory

logger = logging.getLogger(__name__)

SIZE = 1024
"""Rows and columns of the matrices whose product is timed on a CPU: 2·1024³ FLOPs."""


def prepare_process() -> None:
    """Make the settings of a process that is going to train: memory, and float32 products.

    On Linux with glibc, freed memory is kept for the next step. By default large blocks go back
    to the system when they are freed, and every step pays for having their pages cleared again.
    On a GPU, float32 matrix products may use TF32.
    """
    torch.set_float32_matmul_precision("high")
    keep_freed_memory()


def resolve_device(device: str) -> str:
    """Return the device to train on: `device`, or for auto a GPU where there is one.

    Raises:
        UserError: if the device is not there.
    """
    there = {
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
        "cpu": True,
    }
    if device == "auto":
        return next(name for name, usable in there.items() if usable)
    if not there.get(device):
        usable_names = ", ".join(name for name, usable in there.items() if usable)
        raise UserError(f"device {device} was asked for, but PyTorch sees only: {usable_names}")
    return device


def resolve_precision(
    precision: str, device: str, model: GPT | None = None, idx: Tensor | None = None
) -> str:
    """Return fp32, bf16 or fp16; for auto, what is the fastest safe choice here.

    A GPU that computes in bf16 gets bf16. A CPU is timed, because on some of them bf16 is slower
    than float32: it is chosen only where a few passes of this very model show it faster.

    Args:
        precision: auto, or one of the three.
        device: cpu, cuda or mps.
        model: the model that will train; without one, a CPU is not timed and gets fp32.
        idx: (B, T), a micro-batch to time it with.

    Raises:
        UserError: for fp16 on a CPU, which PyTorch would silently not do.
    """
    if precision == "fp16" and device == "cpu":
        raise UserError("precision fp16 needs a GPU; on a CPU use bf16, fp32 or auto")
    if precision != "auto":
        return precision
    if device == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
    if device == "mps" or model is None or idx is None:
        return "fp32"
    seconds = time_precisions(model, idx)
    faster = min(seconds, key=lambda name: seconds[name])
    logger.info(
        "precision: auto → %s (one step takes %.0f ms in fp32, %.0f ms in bf16)",
        *(faster, seconds["fp32"] * 1000, seconds["bf16"] * 1000),
    )
    return faster


def time_precisions(
    model: GPT, idx: Tensor, repeats: int = 1, budget: float = 0.5
) -> dict[str, float]:
    """Time a forward and backward pass on the CPU in float32 and in bf16 autocast.

    The two take turns, so that a machine whose speed drifts does not favour one. Weights,
    gradients and random state are left as they were.

    Args:
        model: the model.
        idx: (B, T), token ids; they serve as targets too.
        repeats: timed passes of each at least, after one that is not counted.
        budget: seconds in which to make more: a small model's first passes say little.

    Returns:
        Seconds of the fastest pass, under "fp32" and "bf16": what makes one slower is something
        else on the machine.
    """
    seconds: dict[str, list[float]] = {"fp32": [], "bf16": []}
    gradients = [p.grad for p in model.parameters()]
    model.zero_grad(set_to_none=True)
    with torch.random.fork_rng(devices=[]):
        end = time.perf_counter() + budget
        while len(seconds["bf16"]) <= repeats or time.perf_counter() < end:
            for name, taken in seconds.items():
                in_bf16 = torch.autocast("cpu", dtype=torch.bfloat16)
                started = time.perf_counter()
                with in_bf16 if name == "bf16" else nullcontext():
                    loss, _ = model(idx, idx)
                loss.backward()
                taken.append(time.perf_counter() - started)
    for p, gradient in zip(model.parameters(), gradients, strict=True):
        p.grad = gradient
    give_back_freed_memory()  # float32 took more than bf16 will, and would go on to hold it
    return {name: min(taken[1:]) for name, taken in seconds.items()}


def peak_flops(device: str, precision: str) -> float | None:
    """Return how many FLOP/s matrix products can reach, at most.

    Of a known GPU it is what the data sheet says, of a CPU what a product of two matrices reaches
    here and now, in less than a second.

    Args:
        device: cpu, cuda or mps.
        precision: fp32, bf16 or fp16. On a GPU fp32 means TF32 where PyTorch was told to use it,
            as `prepare_process` does.

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


def memory_in_use(device: str) -> int:
    """Return the bytes a run takes: on a GPU the most its tensors took so far, else resident now.

    Args:
        device: cpu, cuda or mps.
    """
    if device == "cuda":
        return torch.cuda.max_memory_allocated()
    import psutil

    return int(psutil.Process().memory_info().rss)


def require_room(model: GPTConfig, device: str, processes: int = 1, muon: bool = False) -> None:
    """Refuse a model that no micro-batch makes small enough, before any of it is made.

    Args:
        model: its shape, with the true vocabulary.
        device: cpu, cuda or mps.
        processes: among how many weights, gradients and moments are shared out; 1 where each has
            them all.
        muon: whether Muon steps the matrices of the blocks.

    Raises:
        UserError: naming what it needs and what is free.
    """
    parts = memory(model, muon)
    needed = (parts["weights"] + parts["gradients"] + parts["optimizer"]) // processes
    free = available_memory(device)
    if needed > free:
        raise UserError(
            f"a model of {count_parameters(model):,} parameters needs {needed / 1e9:.2f} GB for "
            f"weights, gradients and moments alone, but {free / 1e9:.2f} GB are free on {device}; "
            f"take a smaller model.n_layer or model.n_embd"
        )


class MfuMeter:
    """Reads what a run makes of its devices; measures a CPU's peak when it is made.

    Args:
        config: the run, its precision resolved; attention is counted over the whole context.
        device: cpu, cuda or mps.
        processes: how many train together; those on a CPU share it.
    """

    def __init__(self, config: TrainConfig, device: str, processes: int) -> None:
        # With a part frozen, fewer FLOPs are made than are counted for a token.
        whole = config.method.name == "full"
        self.device, peak = device, peak_flops(device, config.precision) if whole else None
        self.peak = peak if peak is None or device == "cpu" else peak * processes
        self.flops_per_token = training_flops(config.model)

    def __call__(self, tokens_per_second: float) -> dict[str, float]:
        """Return `mfu`, where the peak is known, and `memory`, in bytes of this process.

        The tokens are those of all processes together.
        """
        found: dict[str, float] = {"memory": memory_in_use(self.device)}
        if self.peak is not None:
            share = tokens_per_second * self.flops_per_token / self.peak
            found = {"mfu": round(share, 4), **found}
        return found


def explain_a_failed_compilation(error: RuntimeError) -> None:
    """Say in one line why torch.compile cannot compile here, if that is what went wrong.

    Raises:
        UserError: with what is missing, such as a C++ compiler, and the way out.
    """
    if type(error).__module__.startswith(("torch._dynamo.", "torch._inductor.")):
        raise UserError(
            f"torch.compile failed: {str(error).strip().splitlines()[0]}; install what it needs (a "
            "C++ compiler such as g++, and Triton on a GPU), or set compile to false"
        ) from error
