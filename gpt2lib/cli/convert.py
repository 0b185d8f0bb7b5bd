"""`gpt2lib convert` and `gpt2lib lengthen`: a trained model changed into another."""

from __future__ import annotations

import sys
from dataclasses import fields
from pathlib import Path
from typing import Any

from gpt2lib.cli.options import Parser
from gpt2lib.cli.output import set_up_logging
from gpt2lib.cli.using import RUN
from gpt2lib.config import GPTConfig
from gpt2lib.utils.errors import UserError
from gpt2lib.utils.files import expand

WINDOW = ("window", "dilation", "global_tokens")


def convert(argv: list[str]) -> int:
    """Run `gpt2lib convert RUN DIR [--block_size N] [--n_kv_head N] [--window N] ...`."""
    parser = Parser(
        "convert",
        "RUN DIR [--block_size N] [--n_kv_head N] [--window N]",
        "Change the shape of a trained model: a longer context, shared key/value heads, a sliding "
        "window. The result is for training on: gpt2lib train ... --init_from DIR.",
        GPTConfig,
    )
    parser.add_argument("run", help=RUN)
    parser.add_argument("folder", metavar="DIR", help="the folder to make")
    parser.add_argument("--block_size", type=int, default=None, help="a longer context")
    parser.add_argument(
        "--extension",
        default=None,
        metavar="tile|linear|ntk|none",
        help="how the context is made longer: tile repeats learned positions; linear and ntk are "
        "for rope; none only allows more places. By default tile or linear",
    )
    parser.add_argument("--n_kv_head", type=int, default=None, help="fewer key/value heads")
    parser.add_argument(
        "--pooling",
        default=None,
        metavar="mean|first|random",
        help="what becomes of a group of key/value heads; by default mean",
    )
    parser.add_fields(skip=[field.name for field in fields(GPTConfig) if field.name not in WINDOW])
    parser.set_defaults(dict.fromkeys(WINDOW))  # what is not given stays as the model has it
    values = parser.read(argv)
    if all(values[name] is None for name in ("block_size", "n_kv_head", *WINDOW)):
        raise UserError("nothing to change; give --block_size, --n_kv_head or --window")
    for name, needed in (("extension", "block_size"), ("pooling", "n_kv_head")):
        if values[name] is not None and values[needed] is None:
            raise UserError(f"--{name} {values[name]} needs --{needed}")
    folder = expand(values["folder"])
    if folder.exists():
        raise UserError(f"{folder} exists; choose another folder")
    set_up_logging()
    _convert(values, folder)
    print(f"{folder} is written. Train it on: gpt2lib train ... --init_from {folder}")
    return 0


def _convert(values: dict[str, Any], folder: Path) -> None:
    from gpt2lib.hub import load_pretrained, load_tokenizer_for, resolve
    from gpt2lib.hub.saving import save_model
    from gpt2lib.model.surgery import add_window, extend_context, share_heads

    source = resolve(values["run"])
    tokenizer, model = load_tokenizer_for(source), load_pretrained(source)
    if values["block_size"] is not None:
        model = extend_context(model, values["block_size"], values["extension"])
    if values["n_kv_head"] is not None:
        model = share_heads(model, values["n_kv_head"], values["pooling"] or "mean")
    given = {name: values[name] for name in WINDOW if values[name] is not None}
    if given:
        checked = GPTConfig.from_dict({**model.config.to_dict(), **given})
        model = add_window(model, checked.window, checked.dilation, checked.global_tokens)
    save_model(model, tokenizer, folder)


def lengthen(argv: list[str]) -> int:
    """Run `gpt2lib lengthen RUN --out DIR [--stages N] [--steps N]`."""
    parser = Parser(
        "lengthen",
        "RUN --out DIR [--stages N] [--steps N]",
        "Train a model on with longer and longer texts, as Longformer was: in each stage block and "
        "window double, and batch and learning rate halve. Each stage is a run in DIR.",
    )
    parser.add_argument("run", help="the run to start from")
    parser.add_argument("--out", required=True, metavar="DIR", help="the folder for the stages")
    parser.add_argument("--stages", type=int, default=2, help="how often to double (default: 2)")
    parser.add_argument("--steps", type=int, default=200, help="updates a stage (default: 200)")
    values = parser.read(argv)
    set_up_logging()
    from gpt2lib.training.hardware import prepare_process

    prepare_process()  # before the first tensor
    from gpt2lib.training.guard import Interrupted
    from gpt2lib.training.lengthening import lengthen as train_stages

    try:
        last = train_stages(
            expand(values["run"]), expand(values["out"]), values["stages"], values["steps"]
        )
    except Interrupted as stop:
        print("gpt2lib: stopped; the same command goes on from there", file=sys.stderr)
        return 128 + int(stop.signum)
    print(f'{last} is the longest. Next: gpt2lib generate {last} --prompt "..."')
    return 0
