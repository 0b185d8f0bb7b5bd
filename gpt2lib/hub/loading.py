"""Models and tokenizers from runs, checkpoints, transformers folders, nanoGPT and the hub."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path, PureWindowsPath
from typing import Any

import torch
from torch import nn

from gpt2lib.config import GPTConfig
from gpt2lib.hub import nanogpt
from gpt2lib.hub.adapters import Adapter, is_adapter, merge_into, read_adapter
from gpt2lib.hub.families import FAMILIES
from gpt2lib.hub.family import Family, Tensors, without_wrappers
from gpt2lib.hub.find import INDEX, WEIGHTS, is_ours, resolve
from gpt2lib.model.gpt import GPT
from gpt2lib.model.positions import LearnedPositions
from gpt2lib.model.surgery import empty_model
from gpt2lib.model.weights import load_weights, model_tensors
from gpt2lib.runs import checkpoint
from gpt2lib.tokenizer import Tokenizer, load_tokenizer
from gpt2lib.utils.errors import UserError, nearest
from gpt2lib.utils.formats import read_json


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
    config, tensors = _read(folder)
    if block_size is not None and block_size > config.block_size:
        raise UserError(
            f"block_size {block_size} is above the {config.block_size} of {source}; "
            f"ask for at most {config.block_size}"
        )
    shorter = config.replace(block_size=config.block_size if block_size is None else block_size)
    if dropout is not None:
        config, shorter = config.replace(dropout=dropout), shorter.replace(dropout=dropout)
    with torch.device("meta"):  # what does not fit is refused before it has cost memory
        load_weights(GPT(config), tensors, folder)
    model = empty_model(config)
    load_weights(model, tensors, folder)
    _crop(model, shorter)
    return model.eval()


def model_config(source: str | Path) -> GPTConfig:
    """Return the shape of a model without loading its weights; errors as in `load_pretrained`."""
    return _config(resolve(source))


def tokenizer_folder(source: str | Path) -> Path:
    """Return the folder with the tokenizer's files of a model, found as `resolve` finds it.

    For a model of nanoGPT it may be `Path("gpt2")`: the name of GPT-2's tokenizer, as
    `load_tokenizer` takes it.
    """
    return _tokenizer_folder(resolve(source))


def load_tokenizer_for(source: str | Path) -> Tokenizer:
    """Load the tokenizer that belongs to a model.

    Args:
        source: as for `load_pretrained`.

    Raises:
        UserError: if it is missing, or has more tokens than the model knows.
    """
    folder = resolve(source)
    config, tokenizer = _config(folder), load_tokenizer(_tokenizer_folder(folder))
    if tokenizer.vocab_size > config.vocab_size:
        raise UserError(
            f"the tokenizer in {folder} has {tokenizer.vocab_size} tokens, but its model knows "
            f"{config.vocab_size}; it belongs to another model"
        )
    return tokenizer


def _tokenizer_folder(folder: Path) -> Path:
    if folder.is_file():
        return Path(nanogpt.tokenizer_place(folder, _config(folder).vocab_size))
    if is_adapter(folder) and not (folder / "config.json").is_file():  # PEFT's
        return _tokenizer_folder(_base(read_adapter(folder)))
    if is_ours(read_json(folder / "config.json")):
        return folder / "tokenizer"
    return folder.absolute()  # a folder called gpt2 is not taken for the name


def _config(folder: Path) -> GPTConfig:
    """Return the shape of what `resolve` found."""
    if folder.is_file():
        return _nanogpt(folder)[0]
    if is_adapter(folder) and not (folder / "config.json").is_file():
        return _config(_base(read_adapter(folder)))
    return _read_config(folder)[0]


def _nanogpt(file: Path) -> tuple[GPTConfig, Tensors]:
    read: tuple[GPTConfig, Tensors] = _naming(file, nanogpt.read, file)
    return read


def _read(folder: Path) -> tuple[GPTConfig, Tensors]:
    """Return configuration and weights, as ours, of what `resolve` found."""
    if folder.is_file():
        config, tensors = _nanogpt(folder)
        return config, _checked(tensors, folder)
    if is_adapter(folder):
        adapter = read_adapter(folder)
        base = load_pretrained(_base(adapter), block_size=(config := _config(folder)).block_size)
        return config, merge_into(model_tensors(base), adapter)
    config, family = _read_config(folder)
    tensors = _checked(_read_weights(folder), folder)
    if family is None:
        return config, tensors
    read = family.read_tensors
    return config, _naming(folder, lambda theirs: read(without_wrappers(theirs), config), tensors)


def _base(adapter: Adapter) -> Path:
    """Return the folder of the model under an adapter.

    Raises:
        UserError: if it is not where it was.
    """
    try:
        return resolve(adapter.base)
    except UserError as error:
        raise UserError(
            f"{adapter.folder} is an adapter, of no use without the model that it was trained "
            f"beside, and that is not there: {error}"
        ) from error


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
    if values.get("auto_map"):
        raise UserError(
            f"{path} says that the model is computed by code of its own (auto_map), which is never "
            "run here; give a checkpoint of a class of transformers itself"
        )
    family = FAMILIES[name]
    return _naming(path, family.read_config, values), family


def _naming(where: Path, translate: Callable[[Any], Any], values: Any) -> Any:
    """Call `translate(values)`, and put the place before the message of a refusal."""
    try:
        return translate(values)
    except UserError as error:
        raise UserError(f"{where}: {error}") from error


def _read_weights(folder: Path) -> Tensors:
    """Read one file of weights, or all the shards that an index names."""
    if (folder / WEIGHTS).is_file():
        return checkpoint.read_tensors(folder / WEIGHTS)
    where = read_json(folder / INDEX).get("weight_map")
    if not isinstance(where, dict) or not all(isinstance(f, str) for f in where.values()):
        raise UserError(f"{folder / INDEX} has no weight_map of tensor names to files")
    shards = sorted(set(where.values()))
    for file in shards:
        if PureWindowsPath(file).name != file:  # a shard lies beside its index
            raise UserError(f"{folder / INDEX} names {file!r}, which is outside of the folder")
        if not (folder / file).is_file():
            raise UserError(
                f"{folder / file} is missing, one of {len(shards)} files that {INDEX} names; "
                "download or copy it again"
            )
    tensors: Tensors = {}
    for file in shards:
        tensors |= checkpoint.read_tensors(folder / file)
    return tensors


def _checked(tensors: Tensors, where: Path) -> Tensors:
    """Refuse weights that are no floating-point numbers."""
    for name, tensor in tensors.items():
        if not tensor.is_floating_point() and not name.endswith(("attn.bias", "masked_bias")):
            raise UserError(f"{name} in {where} is {tensor.dtype}, not a floating-point number")
    return tensors


def _crop(model: GPT, config: GPTConfig) -> None:
    """Keep the first positions only."""
    wpe = model.transformer.wpe
    if isinstance(wpe, LearnedPositions) and config.block_size < model.config.block_size:
        wpe.weight = nn.Parameter(wpe.weight.detach()[: config.block_size].clone())  # (T, C)
        wpe.num_embeddings = config.block_size
    model.config = config
