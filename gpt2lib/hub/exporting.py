"""A model of ours as a folder that transformers opens."""

from __future__ import annotations

from pathlib import Path

from gpt2lib.hub.adapters import is_adapter
from gpt2lib.hub.card import adapter_card, check_licence, history, model_card
from gpt2lib.hub.families import FAMILIES, choose
from gpt2lib.hub.family import special_tokens
from gpt2lib.hub.find import resolve
from gpt2lib.hub.loading import load_pretrained, load_tokenizer_for, model_config
from gpt2lib.runs.checkpoint import (
    ADAPTER,
    ADAPTER_CONFIG,
    MODEL,
    read_tensors,
    write_tensors,
)
from gpt2lib.tokenizer import CharTokenizer
from gpt2lib.utils.errors import UserError
from gpt2lib.utils.files import MANIFEST, atomic_folder, expand, printable, write_text
from gpt2lib.utils.formats import read_json, write_json


def export(
    source: str | Path, folder: str | Path, *, overwrite: bool = False, licence: str | None = None
) -> Path:
    """Write a model and its tokenizer as a transformers folder, with a model card.

    `AutoModelForCausalLM.from_pretrained(folder)` and `pipeline("text-generation", folder)` then
    work, and so does all that is built on them.

    Args:
        source: a run, a checkpoint, or whatever else `load_pretrained` takes.
        folder: the folder to make.
        overwrite: replace an earlier export there; other folders are never replaced.
        licence: of the weights, for the card, as the hub writes it: "mit", "cc-by-4.0".

    Returns:
        The folder.

    Raises:
        UserError: if the folder is in use, or cannot be written, or no class of transformers
            computes what the model does.
    """
    folder = expand(folder)
    _check_target(folder, overwrite)
    check_licence(licence)
    origin = resolve(source)
    model, tokenizer = load_pretrained(origin), load_tokenizer_for(origin)
    family, length = FAMILIES[choose(model.config)], model.config.block_size
    config = family.write_config(model.config, tokenizer.eot)
    # max_length: past the last position a GPT-2 of transformers ends in an IndexError. Nothing
    # is ever read at a filled-up place, so any token will do for filling.
    generation = {"pad_token_id": tokenizer.eot, "max_length": length}
    name = config["architectures"][0]
    with atomic_folder(folder) as target:
        write_json(target / "config.json", config)
        write_json(
            target / "generation_config.json", {**special_tokens(tokenizer.eot), **generation}
        )
        write_tensors(target / MODEL, family.write_tensors(model))
        tokenizer.save(target, model_max_length=length)
        if isinstance(tokenizer, CharTokenizer):
            _write_characters(target, tokenizer, length)
        card = model_card(folder.name, model, name, history(origin), licence)
        write_text(target / "README.md", printable(card))
    # Other programs may change the folder's files, and a manifest would then call it damaged.
    (folder / MANIFEST).unlink()
    return folder


def export_adapter(
    source: str | Path, folder: str | Path, *, base: str, overwrite: bool = False
) -> Path:
    """Write LoRA's matrices of a run alone, as a folder that PEFT opens beside its base.

    Args:
        source: a run with method lora, or a checkpoint of one.
        folder: the folder to make.
        base: what PEFT is to load under them: a hub name, or an exported folder.
        overwrite: replace an earlier export there; other folders are never replaced.

    Returns:
        The folder.

    Raises:
        UserError: if the source has no adapter, or the folder is in use or cannot be written.
    """
    folder, origin = expand(folder), resolve(source)
    if not is_adapter(origin):
        raise UserError(f"{source} has no adapter: method lora makes one; `export` writes a model")
    if (family := choose(model_config(origin))) != "gpt2":
        raise UserError(
            f"{source} is a {family} in transformers, whose layers have other names and shapes "
            "than those that PEFT would look for here; `export` merges and writes the whole model"
        )
    _check_target(folder, overwrite, ADAPTER_CONFIG)
    said = {**read_json(origin / ADAPTER_CONFIG), "base_model_name_or_path": base}
    tokenizer = load_tokenizer_for(origin)
    with atomic_folder(folder) as target:
        write_json(target / ADAPTER_CONFIG, said)
        write_tensors(target / ADAPTER, read_tensors(origin / ADAPTER))
        tokenizer.save(target)
        write_text(target / "README.md", adapter_card(folder.name, base))
    (folder / MANIFEST).unlink()
    return folder


def _check_target(folder: Path, overwrite: bool, proof: str = "config.json") -> None:
    if not folder.exists():
        return
    if not folder.is_dir():
        raise UserError(f"{folder} is a file; give a folder that does not exist yet")
    if not any(folder.iterdir()):
        return
    if not overwrite:
        raise UserError(f"{folder} exists and is not empty; choose another folder")
    config = folder / proof
    if not (config.is_file() and {"model_type", "peft_type"} & read_json(config).keys()):
        raise UserError(
            f"{folder} is no transformers folder, so it is not overwritten; give another folder, "
            "or delete it yourself"
        )


def _write_characters(folder: Path, tokenizer: CharTokenizer, length: int) -> None:
    """Write a character tokenizer as transformers reads it, with the same ids.

    Every character is a word of its own. There is no token for unknown characters, so that one
    is refused there as here.
    """
    import tokenizers

    vocab = {character: token for token, character in enumerate(tokenizer.characters)}
    words = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocab))
    each = tokenizers.Regex(r"[\s\S]")  # unlike ".", this takes line ends too
    words.pre_tokenizer = tokenizers.pre_tokenizers.Split(each, "isolated")
    words.decoder = tokenizers.decoders.Fuse()  # joined without spaces
    words.save(str(folder / "tokenizer.json"))
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "clean_up_tokenization_spaces": False,
        "model_max_length": length,
    }
    write_json(folder / "tokenizer_config.json", config)
