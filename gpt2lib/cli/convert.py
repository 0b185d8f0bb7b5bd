"""`gpt2lib convert`: a trained model changed into another."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from gpt2lib.cli.terminal import Options, command_line
from gpt2lib.config import GPTConfig
from gpt2lib.utils.errors import UserError
from gpt2lib.utils.files import expand

WINDOW = ("window", "dilation", "global_tokens")


@dataclass(frozen=True)
class Convert(Options):
    """Change the shape of a trained model: a longer context, shared key/value heads, a window.

    The result is for training on: gpt2lib train ... --init_from FOLDER. What is not given stays as
    the model has it.

    Attributes:
        run: a run, one of its checkpoints, a transformers folder, or a hub name such as gpt2.
        folder: the folder to make.
        block_size: a longer context.
        extension: how the context is made longer: tile repeats learned positions; linear and ntk
            are for rope; none only allows more positions. By default tile or linear.
        n_kv_head: fewer key/value heads.
        pooling: what becomes of a group of key/value heads; by default mean.
        window: how many tokens a query sees, itself included. A list is spread over the layers,
            lowest first.
        dilation: distance between the tokens that a window sees, one for all heads. Or lists: the
            outer is spread over the layers, each inner one over the heads of a layer.
        global_tokens: positions that every query sees, and that see all before them.
    """

    usage = "RUN FOLDER [--block_size N] [--n_kv_head N] [--window N]"
    arguments = ("run", "folder")

    run: str
    folder: str
    block_size: int | None = None
    extension: Literal["tile", "linear", "ntk", "none"] | None = None
    n_kv_head: int | None = None
    pooling: Literal["mean", "first", "random"] | None = None
    window: int | tuple[int, ...] | None = None
    dilation: int | tuple[tuple[int, ...], ...] | None = None
    global_tokens: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        if all(getattr(self, name) is None for name in ("block_size", "n_kv_head", *WINDOW)):
            raise UserError("nothing to change; give --block_size, --n_kv_head or --window")
        for name, needed in (("extension", "block_size"), ("pooling", "n_kv_head")):
            value = getattr(self, name)
            if value is not None and getattr(self, needed) is None:
                raise UserError(f"--{name} {value} needs --{needed}")


def convert(argv: list[str]) -> int:
    """Run `gpt2lib convert RUN FOLDER [--block_size N] [--n_kv_head N] [--window N] ...`."""
    options, _ = Convert.read(argv)
    folder = expand(options.folder)
    if folder.exists():
        raise UserError(f"{folder} exists; choose another folder")
    _convert(options, folder)
    on = command_line("train", "PRESET", "--init_from", folder)
    print(f"{folder} is written. Train it on: {on}")
    return 0


def _convert(options: Convert, folder: Path) -> None:
    from gpt2lib.hub import load_pretrained, load_tokenizer_for, resolve
    from gpt2lib.hub.saving import save_model
    from gpt2lib.model.surgery import add_window, extend_context, share_heads

    source = resolve(options.run)
    tokenizer, model = load_tokenizer_for(source), load_pretrained(source)
    if options.block_size is not None:
        model = extend_context(model, options.block_size, options.extension)
    if options.n_kv_head is not None:
        model = share_heads(model, options.n_kv_head, options.pooling or "mean")
    given = {name: value for name in WINDOW if (value := getattr(options, name)) is not None}
    if given:
        checked = GPTConfig.from_dict({**model.config.to_dict(), **given})
        model = add_window(model, checked.window, checked.dilation, checked.global_tokens)
    save_model(model, tokenizer, folder)
