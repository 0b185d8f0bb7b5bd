"""`gpt2lib estimate`: what a run would take, before any of it is spent."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gpt2lib.cli import costing
from gpt2lib.cli.terminal import Options, parse_bytes, print_json, print_table
from gpt2lib.cli.train import OFTEN
from gpt2lib.config import SIZES, DataConfig, GPTConfig, TrainConfig, load_config, preset_names
from gpt2lib.config.schema import with_changes
from gpt2lib.estimate.gpus import GPUS, MEMORY
from gpt2lib.utils.errors import UserError

READ = (
    *("steps", "batch_size", "micro_batch", "precision", "device", "gradient_checkpointing"),
    *("keep", "init_from", "optim.name"),
    *("data.tokenizer", "data.vocab_size", "data.mask_documents"),
)
"""The fields of a run, beside the model's, on which something depends that is estimated."""
NONE = "no estimate depends on it"
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Estimate(Options):
    """Say what a run would take: parameters, FLOPs, bytes, and which micro-batch fits.

    On GPUs that need not be here, also time and money.

    Attributes:
        preset: the name of a preset or of a size, or a YAML file.
        json: print JSON and nothing else.
        memory: what a run may take, such as 24GB; by default what is free here, or what the GPU
            has.
        tokens: train on so many, such as 300B, or 20x for 20 a parameter; sets steps.
        gpu: time and memory on GPUs of this kind.
        gpus: how many; by default 1.
        mfu: share of its peak that a GPU reaches; an assumption, by default 0.4.
        efficiency: share of that which many GPUs keep; an assumption, by default 1 for one GPU,
            0.95 for up to 8, 0.9 for more.
        price: of a GPU for an hour, in your currency.
    """

    usage = (
        "PRESET [--memory SIZE] [--tokens COUNT] [--gpu NAME --gpus N --mfu SHARE --price AMOUNT] "
        "[--json] [--any.field value]"
    )
    arguments = ("preset",)
    config = TrainConfig
    often = OFTEN
    notes = (
        f"Presets and sizes: {', '.join([*preset_names(), *SIZES])}. "
        f"GPUs: {', '.join(f'{name} ({MEMORY[name] / 1e9:.0f} GB)' for name, _ in GPUS)}."
    )

    preset: str = ""
    json: bool = False
    memory: str | None = None
    tokens: str | None = None
    gpu: str | None = None
    gpus: int | None = None
    mfu: float | None = None
    efficiency: float | None = None
    price: float | None = None

    def __post_init__(self) -> None:
        if not self.preset:
            names = ", ".join([*preset_names(), *SIZES])
            raise UserError(f"estimate needs a preset, a size or a YAML file; there are {names}")

    @classmethod
    def defaults(cls, words: Sequence[str]) -> TrainConfig:
        """Return the preset's values."""
        return _preset(words[0]) if words else TrainConfig()


def estimate(argv: list[str]) -> int:
    """Run `gpt2lib estimate PRESET [--memory SIZE] [--gpu NAME ...] [--any.field value]`."""
    options, changes = Estimate.read(argv)
    if options.tokens and "steps" in changes:
        raise UserError("--tokens says how many steps there are; leave it or --steps out")
    from gpt2lib.training.costs import estimate_run

    config = costing.with_tokens(_preset(options.preset, changes), options.tokens)
    cluster = costing.read_cluster(options.gpu, {n: getattr(options, n) for n in costing.ASSUMED})
    if cluster is None:
        found = estimate_run(*_for_here(config, options.memory))
    else:
        config = costing.on_cluster(config, cluster)
        size = parse_bytes(options.memory) if options.memory else cluster.memory
        found = estimate_run(config, size, cluster.gpus)
        found["budget"] = costing.cost(config, cluster, found, size)
    _say_unread(config, changes)
    if options.json:
        print_json(found)
    else:
        print_table(_estimate_table(found))
    return 0


def _say_unread(config: TrainConfig, changes: Mapping[str, Any]) -> None:
    """Log which of the fields that were given change nothing that is estimated."""
    silent = dict.fromkeys(("model.gelu", "model.rope_base", "model.rope_scale"), NONE)
    unused = {"model.vocab_size": "it is the tokenizer's", **silent, **config.unused()}
    for name, value in changes.items():
        if name in unused or not (name in READ or name.startswith(("model.", "method."))):
            why = unused.get(name, NONE)
            _log.warning("%s is %s, but nothing reads it: %s", name, value, why)


def _preset(name: str, changes: Mapping[str, Any] | None = None) -> TrainConfig:
    """Return the run of a preset, of a YAML file, or of one of GPT-2's sizes."""
    if name not in SIZES:
        return load_config(name, changes)
    published = TrainConfig(model=GPTConfig.preset(name), data=DataConfig(tokenizer="gpt2"))
    return TrainConfig.from_dict(with_changes(published.to_dict(), changes or {}))


def _for_here(config: TrainConfig, memory: str | None) -> tuple[TrainConfig, int]:
    """Resolve the device, and return the bytes that a run may take: what was said, or is free."""
    said = None if memory is None else parse_bytes(memory)
    if said is not None and config.device != "auto":
        return config, said  # the estimate is for any machine
    from gpt2lib.training.hardware import resolve_device
    from gpt2lib.utils.process import available_memory

    device = resolve_device(config.device)
    config = TrainConfig.from_dict({**config.to_dict(), "device": device})
    return config, available_memory(device) if said is None else said


def _estimate_table(found: dict[str, Any]) -> dict[str, str]:
    parameters, flops, size, run = (
        found[key] for key in ("parameters", "flops_per_token", "bytes", "run")
    )
    rows = {"parameters": f"{parameters['total']:,}"}
    free = _bytes(found["memory"]["available"])
    rows |= {f"  {name}": f"{count:,}" for name, count in parameters["parts"].items()}
    return {
        **rows,
        "FLOPs per token": f"{flops['forward']:.3g} forward, {flops['training']:.3g} in training",
        **_memory_rows(size, found["memory"]),
        "disk": f"{_bytes(size['disk'])} for checkpoints, at most",
        "cache": f"{_bytes(size['kv_cache'])} to generate one full block",
        "tokens": f"{run['tokens']:,} in {run['steps']:,} steps of {run['tokens_per_step']:,}",
        "FLOPs": f"{run['flops']:.3g}",
        **(costing.cost_rows(found["budget"], free) if "budget" in found else {}),
    }


def _memory_rows(size: dict[str, int], memory: dict[str, Any]) -> dict[str, str]:
    """Return the rows about an update's memory."""
    parts = sorted(memory["parts"].items(), key=lambda part: -part[1])
    batch = f"micro-batch {memory['micro_batch']}, {memory['precision']} on {memory['device']}"
    largest, free = memory["largest_micro_batch"], _bytes(memory["available"])
    fitting = f"none fits into {free}" if largest == 0 else f"{largest:,}, with room to spare"
    without, checkpointed = (
        _bytes(size[f"activations_{name}_checkpointing"]) for name in ("without", "with")
    )
    twice = size["optimizer"] == 2 * size["weights"]
    moments = "twice for AdamW" if twice else f"{_bytes(size['optimizer'])} for Muon and AdamW"
    verdict = "yes" if memory["fits"] else "no"
    if not memory["fits"]:
        way_out = f"--micro_batch {largest} does" if largest else "not even one sequence at a time"
        verdict += f", {way_out}; --gradient_checkpointing true needs less"
    return {
        f"fits into {free}": verdict,
        "memory of an update": f"{_bytes(size['peak'])} at the peak ({batch})",
        **{f"  {name} then": _bytes(count) for name, count in parts},
        "  the peak comes in": memory["moment"],
        "  weights": f"{_bytes(size['weights'])}, as many for gradients, {moments}",
        "  activations": f"{without} at most, {checkpointed} with gradient checkpointing",
        "  loss": f"{_bytes(size['loss'])} for logits, probabilities and their gradients",
        "largest micro-batch": fitting,
    }


def _bytes(count: int) -> str:
    """Write a number of bytes with the unit that suits it."""
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count} bytes"
