"""`gpt2lib prepare` and `gpt2lib estimate`: what can be done before training."""

from __future__ import annotations

from typing import Any

from gpt2lib.cli.options import Parser, positional, preset_values, train_config
from gpt2lib.cli.output import print_json, print_table, set_up_logging
from gpt2lib.config import SIZES, DataConfig, GPTConfig, TrainConfig, preset_names
from gpt2lib.errors import UserError


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
    """Run `gpt2lib estimate PRESET [--json] [--any.field value]`."""
    parser = Parser(
        "estimate",
        "PRESET [--json] [--any.field value]",
        "Say what a run would take: parameters, FLOPs and bytes. Activations come on top.",
        TrainConfig,
    )
    names = ", ".join([*preset_names(), *SIZES])
    parser.add_argument("preset", help=f"a preset or a size ({names}), or a YAML file")
    parser.add_argument("--json", action="store_true", help="print JSON and nothing else")
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
    set_up_logging()
    from gpt2lib.estimate import estimate as estimate_run

    found = estimate_run(train_config(values))
    if values["json"]:
        print_json(found)
    else:
        print_table(_estimate_table(found))
    return 0


def _estimate_table(found: dict[str, Any]) -> dict[str, str]:
    parameters, flops, size, run = (
        found[key] for key in ("parameters", "flops_per_token", "bytes", "run")
    )
    rows = {"parameters": f"{parameters['total']:,}"}
    rows |= {f"  {name}": f"{count:,}" for name, count in parameters["parts"].items()}
    training = size["weights"] + size["gradients"] + size["optimizer"]
    return {
        **rows,
        "FLOPs per token": f"{flops['forward']:.3g} forward, {flops['training']:.3g} in training",
        "memory": f"{_bytes(training)} for weights, gradients and AdamW; activations on top",
        "disk": f"{_bytes(size['disk'])} for checkpoints, at most",
        "cache": f"{_bytes(size['kv_cache'])} to generate one full block",
        "tokens": f"{run['tokens']:,} in {run['steps']:,} steps of {run['tokens_per_step']:,}",
        "FLOPs": f"{run['flops']:.3g}",
    }


def _bytes(count: int) -> str:
    """Write a number of bytes with the unit that suits it."""
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count} bytes"
