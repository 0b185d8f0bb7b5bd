"""How long presets and notebooks take on this machine, from a speed test of five seconds.

A preset's minutes are its updates times the seconds of one. An update costs something for each
layer it calls and something for each FLOP; both prices follow from the two models that the test
trains. Evaluations, samples and preparing the text come on top.

A notebook's minutes are those of the machine that rendered it, in `cli/minutes.json`, times
how much slower this machine is at both models (geometric mean).
"""

from __future__ import annotations

import json
import math
import statistics
import time
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch

from gpt2lib.config import (
    GPTConfig,
    MethodConfig,
    OptimConfig,
    TrainConfig,
    load_config,
    preset_names,
)
from gpt2lib.estimate import training_flops
from gpt2lib.model.gpt import GPT
from gpt2lib.training.hardware import (
    matmul_flops,
    peak_flops,
    resolve_device,
    resolve_precision,
)
from gpt2lib.training.methods import choose_parameters
from gpt2lib.training.optim import make_optimizer
from gpt2lib.utils.errors import UserError

MINUTES = Path(__file__).parent / "minutes.json"
"""Written by `python tools/render.py`: minutes of each notebook, and that machine's speed test."""


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
    config: GPTConfig,
    batch_size: int,
    precision: str,
    device: str = "cpu",
    seconds: float = 1.0,
    optim: OptimConfig | None = None,
    method: MethodConfig | None = None,
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
        optim: the optimiser; by default AdamW.
        method: of fine-tuning; None trains all parameters.
    """
    dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(precision)
    taken: list[float] = []
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = GPT(config).to(device)
        choose_parameters(model, method or MethodConfig())
        optimizer = make_optimizer(model, optim or OptimConfig())
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


def speed_test(device: str = "auto", seconds: float = 5.0) -> dict[str, Any]:
    """Measure products of matrices, and training, for about `seconds` in all.

    Args:
        device: cpu, cuda, mps, or auto: a GPU where there is one.
        seconds: how long, about.

    Returns:
        `device`; `threads` of the CPU; `flops`, of matrix products under fp32 and bf16 (on a GPU
        the data sheet's, None if unknown); `precision`, the faster one in training; and
        `update_seconds` and `tokens_per_second` of the models "narrow" (in fp32 on a CPU) and
        "wide" (in the faster precision).
    """
    device = resolve_device(device)
    models = shapes(device)
    names = ["fp32", "bf16"] if device == "cpu" else [resolve_precision("auto", device)]
    flops: dict[str, float | None] = {
        name: matmul_flops(name, 0.06 * seconds) if device == "cpu" else peak_flops(device, name)
        for name in names
    }
    share = 0.65 * seconds / len(names)
    wide = {name: update_seconds(*models["wide"], name, device, share) for name in names}
    precision = min(wide, key=lambda name: wide[name])
    narrow = update_seconds(*models["narrow"], names[0], device, 0.15 * seconds)
    spent = {"narrow": narrow, "wide": wide[precision]}
    return {
        "device": device,
        "threads": torch.get_num_threads(),
        "flops": flops,
        "precision": precision,
        "update_seconds": spent,
        "tokens_per_second": {
            name: size * config.block_size / spent[name] for name, (config, size) in models.items()
        },
    }


def prices(test: dict[str, Any]) -> tuple[float, float]:
    """Return the seconds of a call of one layer, and of one FLOP, from a speed test.

    Both models' times are calls · (layers + 1) + FLOPs: two equations with two unknowns. Where
    noise makes a price negative, it is 0, and the wide model alone says the other.
    """
    rows = []
    for name, (config, size) in shapes(test["device"]).items():
        flops = size * config.block_size * training_flops(config)
        rows.append((config.n_layer + 1, flops, test["update_seconds"][name]))
    (calls_n, flops_n, narrow), (calls_w, flops_w, wide) = rows
    determinant = calls_n * flops_w - calls_w * flops_n
    call = (narrow * flops_w - wide * flops_n) / determinant
    flop = (calls_n * wide - calls_w * narrow) / determinant
    if call < 0:
        return 0.0, wide / flops_w
    if flop < 0:
        return wide / calls_w, 0.0
    return call, flop


def training_minutes(config: TrainConfig, test: dict[str, Any]) -> float:
    """Predict the minutes of a run's updates, on one device.

    Args:
        config: the run.
        test: what `speed_test` returned on this machine.
    """
    call, flop = prices(test)
    model = config.model.replace(vocab_size=_vocab_size(config))
    micro_batch = config.micro_batch if isinstance(config.micro_batch, int) else config.batch_size
    passes = math.ceil(config.batch_size / micro_batch)
    per_token = training_flops(model, config.gradient_checkpointing)
    flops = config.batch_size * model.block_size * per_token
    return config.steps * (call * (model.n_layer + 1) * passes + flop * flops) / 60


def _vocab_size(config: TrainConfig) -> int:
    """Return about how many tokens the tokenizer has; no text is read for it."""
    known = {"char": 100, "gpt2": GPTConfig().vocab_size}
    return known.get(config.data.tokenizer, config.data.vocab_size)


def preset_minutes(test: dict[str, Any]) -> dict[str, float]:
    """Predict the minutes of every preset's updates, on one device."""
    found = {name: training_minutes(load_config(name), test) for name in preset_names()}
    return dict(sorted(found.items(), key=lambda item: item[1]))


def reference() -> dict[str, Any]:
    """Return what is known of the machine that rendered the notebooks.

    Returns:
        `speed`, its speed test, and `notebooks`, number to minutes.

    Raises:
        UserError: if the file is damaged.
    """
    try:
        known = json.loads(MINUTES.read_text(encoding="utf-8"))
        return {"speed": dict(known["speed"]), "notebooks": dict(known["notebooks"])}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{MINUTES} cannot be read ({error}); install gpt2lib again") from error


def slowness(test: dict[str, Any], other: dict[str, Any]) -> float:
    """Return how many times longer a notebook takes here than where `other` was measured.

    Notebooks train on the CPU, so both tests are of CPUs.
    """
    ours, theirs = test["update_seconds"], other["update_seconds"]
    logs = [math.log(ours[name] / theirs[name]) for name in ours]
    return math.exp(sum(logs) / len(logs))


def notebook_minutes(test: dict[str, Any]) -> dict[str, float]:
    """Predict the minutes of every notebook in full mode: number to minutes.

    Args:
        test: what `speed_test("cpu")` returned on this machine.
    """
    known = reference()
    factor = slowness(test, known["speed"])
    return {number: minutes * factor for number, minutes in known["notebooks"].items()}
