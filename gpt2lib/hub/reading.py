"""Models and tokenizers from runs, checkpoints, transformers folders and the hub."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from gpt2lib import checkpoint
from gpt2lib.config import GPTConfig
from gpt2lib.errors import UserError, nearest
from gpt2lib.hub.families import FAMILIES, Family
from gpt2lib.hub.find import INDEX, WEIGHTS, is_ours, resolve
from gpt2lib.model import GPT
from gpt2lib.positions import LearnedPositions
from gpt2lib.storage import read_json
from gpt2lib.tokenizer import Tokenizer, load_tokenizer
from gpt2lib.weight_init import tie


def load_pretrained(
    source: str | Path, *, block_size: int | None = None, dropout: float | None = None
) -> GPT:
    """Load a model, on the CPU, in float32 and in evaluation mode.

    Every tensor must be there, fit, and have a place; nothing is initialised at random.

    Args:
        source: see `resolve`; for instance "gpt2", "runs/cpu" or a transformers folder.
        block_size: a shorter context than the checkpoint's, whose first positions are kept.
        dropout: for training on; None keeps the checkpoint's.

    Raises:
        UserError: if there is no such model, it is damaged, or ours cannot represent it.
    """
    folder = resolve(source)
    config, family = _read_config(folder)
    if block_size is not None and block_size > config.block_size:
        raise UserError(
            f"block_size {block_size} is above the {config.block_size} of {source}; "
            f"ask for at most {config.block_size}"
        )
    shorter = config.replace(block_size=config.block_size if block_size is None else block_size)
    if dropout is not None:
        config, shorter = config.replace(dropout=dropout), shorter.replace(dropout=dropout)
    tensors = _read_weights(folder)
    if family is not None:
        tensors = _naming(folder, family.read_tensors, tensors)
    model = _empty(config)
    checkpoint.load_weights(model, tensors, folder)
    _crop(model, shorter)
    return model.eval()


def model_config(source: str | Path) -> GPTConfig:
    """Return the shape of a model without loading its weights; errors as in `load_pretrained`."""
    return _read_config(resolve(source))[0]


def tokenizer_folder(source: str | Path) -> Path:
    """Return the folder with the tokenizer's files of a model, found as `resolve` finds it."""
    folder = resolve(source)
    return folder / "tokenizer" if is_ours(read_json(folder / "config.json")) else folder


def load_tokenizer_for(source: str | Path) -> Tokenizer:
    """Load the tokenizer that belongs to a model.

    Args:
        source: as for `load_pretrained`.

    Raises:
        UserError: if it is missing, or has more tokens than the model knows.
    """
    folder = resolve(source)
    config, family = _read_config(folder)
    tokenizer = load_tokenizer(folder / "tokenizer" if family is None else folder)
    if tokenizer.vocab_size > config.vocab_size:
        raise UserError(
            f"the tokenizer in {folder} has {tokenizer.vocab_size} tokens, but its model knows "
            f"{config.vocab_size}; it belongs to another model"
        )
    return tokenizer


def _read_config(folder: Path) -> tuple[GPTConfig, Family | None]:
    """Return the configuration, and the family of transformers models, or None if it is ours."""
    path = folder / "config.json"
    values = read_json(path)
    if is_ours(values):
        if values.get("format") != 1:
            raise UserError(
                f"{path} has format {values.get('format')!r}, this version reads format 1; "
                "update gpt2lib"
            )
        return _naming(path, GPTConfig.from_dict, values.get("model", {})), None
    name = str(values.get("model_type"))
    if name not in FAMILIES:
        raise UserError(
            f"{path} has model_type {name!r}; what can be read is "
            f"{', '.join(FAMILIES)}{nearest(name, FAMILIES)}"
        )
    family = FAMILIES[name]
    return _naming(path, family.read_config, values), family


def _naming(where: Path, translate: Any, values: Mapping[str, Any]) -> Any:
    """Call `translate(values)`, and put the place before the message of a refusal."""
    try:
        return translate(values)
    except UserError as error:
        raise UserError(f"{where}: {error}") from error


def _read_weights(folder: Path) -> dict[str, Tensor]:
    """Read one file of weights, or all the shards that an index names."""
    if (folder / WEIGHTS).is_file():
        tensors = checkpoint.read_tensors(folder / WEIGHTS)
    else:
        tensors = {}
        where = read_json(folder / INDEX).get("weight_map")
        if not isinstance(where, dict) or not all(isinstance(f, str) for f in where.values()):
            raise UserError(f"{folder / INDEX} has no weight_map of tensor names to files")
        for file in sorted(set(where.values())):
            if Path(file).name != file:  # a shard lies beside its index
                raise UserError(f"{folder / INDEX} names {file!r}, which is outside of the folder")
            tensors |= checkpoint.read_tensors(folder / file)
    for name, tensor in tensors.items():
        if not tensor.is_floating_point() and not name.endswith(("attn.bias", "masked_bias")):
            raise UserError(f"{name} in {folder} is {tensor.dtype}, not a floating-point number")
    return tensors


def _empty(config: GPTConfig) -> GPT:
    """Return a model whose weights are not set: drawing them only to lose them takes a while."""
    with torch.device("meta"):
        model = GPT(config)
    model.to_empty(device="cpu")
    if config.tie_weights:  # `to_empty` gives each name a tensor of its own
        tie(model.lm_head, model.transformer.wte)
    return model


def _crop(model: GPT, config: GPTConfig) -> None:
    """Keep the first positions only."""
    wpe = model.transformer.wpe
    if isinstance(wpe, LearnedPositions) and config.block_size < model.config.block_size:
        wpe.weight = nn.Parameter(wpe.weight.detach()[: config.block_size].clone())  # (T, C)
        wpe.num_embeddings = config.block_size
    model.config = config
