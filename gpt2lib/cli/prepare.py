"""`gpt2lib prepare` and `gpt2lib estimate`: what can be done before training."""

from __future__ import annotations

import re
from typing import Any

from gpt2lib.cli import costing
from gpt2lib.cli.options import Parser, positional, preset_values, train_config
from gpt2lib.cli.output import print_json, print_table, set_up_logging
from gpt2lib.config import SIZES, DataConfig, GPTConfig, TrainConfig, preset_names
from gpt2lib.utils.errors import UserError


def prepare(argv: list[str]) -> int:
    """Run `gpt2lib prepare SOURCE --out DIR [--data.field value]`."""
    parser = Parser(
        "prepare",
        "SOURCE --out DIR [--data.field value]",
        "Turn text into token files, once; `gpt2lib train ... --data.source DIR` trains on them.",
        DataConfig,
    )
    parser.add_argument("source", help="what --data.source of `gpt2lib train` takes")
    parser.add_argument("--out", required=True, metavar="DIR", help="the folder to make")
    parser.add_fields("data", skip=("source", "cache"))
    values = parser.read(argv)
    set_up_logging()
    from gpt2lib.data import prepare as prepare_data

    config = DataConfig.from_dict({**values["data"], "source": values["source"]})
    prepared = prepare_data(config, values["out"])
    train, val = prepared.train.header, prepared.val.header if prepared.val else None
    print_table(
        {
            "folder": str(prepared.folder),
            "text": f"{prepared.info['name']} ({prepared.info['licence']})",
            "tokenizer": f"{prepared.tokenizer.name}, {prepared.tokenizer.vocab_size:,} tokens",
            "to train on": f"{train.n_tokens:,} tokens of {train.n_documents:,} documents",
            "held out": f"{val.n_tokens:,} tokens of {val.n_documents:,} documents"
            if val
            else "nothing",
            "bytes per token": f"{train.n_bytes / max(1, train.n_tokens):.2f}",
        }
    )
    print(f"\nNext: gpt2lib train cpu --data.source {prepared.folder} --data.tokenizer auto")
    return 0


def estimate(argv: list[str]) -> int:
    """Run `gpt2lib estimate PRESET [--memory SIZE] [--gpu NAME ...] [--any.field value]`."""
    parser = Parser(
        "estimate",
        "PRESET [--memory SIZE] [--tokens COUNT] [--gpu NAME --gpus N --mfu SHARE --price AMOUNT] "
        "[--json] [--any.field value]",
        "Say what a run would take: parameters, FLOPs, bytes, which micro-batch fits, and, on GPUs "
        "that need not be here, time and money.",
        TrainConfig,
    )
    names = ", ".join([*preset_names(), *SIZES])
    parser.add_argument("preset", help=f"a preset or a size ({names}), or a YAML file")
    parser.add_argument("--json", action="store_true", help="print JSON and nothing else")
    parser.add_argument(
        "--memory",
        metavar="SIZE",
        help="what a run may take, such as 24GB; by default what is free here, or what the GPU has",
    )
    costing.add_options(parser)
    parser.add_fields()
    preset = positional(argv, flags=("--json",))
    if preset in SIZES:
        published = TrainConfig(model=GPTConfig.preset(preset), data=DataConfig(tokenizer="gpt2"))
        parser.set_defaults(published.to_dict())
    elif preset is not None:
        parser.set_defaults(preset_values(argv, flags=("--json",)))
    elif not {"-h", "--help"} & set(argv):
        raise UserError(f"estimate needs a preset, a size or a YAML file; there are {names}")
    values = parser.read(argv)
    if values["tokens"] and any(word.partition("=")[0] == "--steps" for word in argv):
        raise UserError("--tokens says how many steps there are; leave it or --steps out")
    set_up_logging()
    from gpt2lib.estimate import estimate as estimate_run

    config = costing.with_tokens(train_config(values), values["tokens"])
    cluster = costing.read_cluster(values)
    if cluster is None:
        found = estimate_run(*_for_here(config, values["memory"]))
    else:
        config = costing.on_cluster(config, cluster)
        size = _parse_bytes(values["memory"]) if values["memory"] else cluster.memory
        found = estimate_run(config, size, cluster.gpus)
        found["budget"] = costing.cost(config, cluster, found, size)
    if values["json"]:
        print_json(found)
    else:
        print_table(_estimate_table(found))
    return 0


def _for_here(config: TrainConfig, memory: str | None) -> tuple[TrainConfig, int]:
    """Resolve the device, and return the bytes that a run may take: what was said, or is free."""
    said = None if memory is None else _parse_bytes(memory)
    if said is not None and config.device != "auto":
        return config, said  # the estimate is for any machine, and needs no torch
    from gpt2lib.training.hardware import resolve_device
    from gpt2lib.training.memory import available_memory

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


def _parse_bytes(text: str) -> int:
    """Read a size such as 24GB, 512MB or 1.5e9.

    Raises:
        UserError: if it is none.
    """
    found = re.fullmatch(r"([0-9.]+(?:e[0-9]+)?)\s*([kmgt]?)(i?)b?", text.strip().lower())
    try:
        number = float(found[1]) if found else 0.0
    except ValueError:
        number = 0.0
    if found is None or not 0 < number < 1e18:
        raise UserError(f"--memory must be a size such as 24GB or 512MB, not {text!r}")
    if not found[2] and number < 1e6:
        raise UserError(f"--memory {text} would be {text} bytes; give a unit, such as {text}GB")
    return int(number * (1024 if found[3] else 1000) ** " kmgt".index(found[2] or " "))


def _bytes(count: int) -> str:
    """Write a number of bytes with the unit that suits it."""
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count} bytes"
