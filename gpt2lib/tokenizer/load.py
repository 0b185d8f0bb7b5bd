"""A tokenizer from a folder or a name: ours, or the one of a transformers checkpoint."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import tokenizers

from gpt2lib.tokenizer import files
from gpt2lib.tokenizer.base import EOT, Tokenizer
from gpt2lib.tokenizer.char import CharTokenizer
from gpt2lib.tokenizer.fast import FastBPE
from gpt2lib.tokenizer.gpt2_vocab import gpt2_tokenizer
from gpt2lib.utils.errors import UserError, nearest

MOST_GROWTH = 64
"""How many times as long a tokenizer may make a text before it is cut into tokens."""


def load_tokenizer(folder_or_name: Path | str) -> Tokenizer:
    """Load a tokenizer.

    Args:
        folder_or_name: "gpt2", or a folder with chars.json, tokenizer.json (a byte-level BPE), or
            vocab.json and merges.txt.

    Raises:
        UserError: for an unknown name, or missing or garbled files.
    """
    if str(folder_or_name) == "gpt2":
        return gpt2_tokenizer()
    folder = Path(folder_or_name)
    if not folder.is_dir():
        raise UserError(
            f"no tokenizer {str(folder_or_name)!r}: neither a folder nor the name gpt2"
            f"{nearest(str(folder_or_name), ['gpt2'])}"
        )
    if (folder / "chars.json").is_file():
        return CharTokenizer.load(folder)
    if (folder / "tokenizer.json").is_file():
        return _from_tokenizer_json(folder)
    if (folder / "vocab.json").is_file() or (folder / "merges.txt").is_file():
        return _from_vocab_and_merges(folder)
    raise UserError(
        f"{folder} holds no tokenizer: none of chars.json, tokenizer.json, or vocab.json with "
        "merges.txt"
    )


def _from_tokenizer_json(folder: Path) -> FastBPE:
    path = folder / "tokenizer.json"
    _check_bounds(files.read_json(path), path)
    try:  # not `from_file`, which takes no path that is not UTF-8
        inner: Any = tokenizers.Tokenizer.from_str(files.read_text(path))
    except Exception as error:  # the library raises nothing narrower
        reason = " ".join(str(error).split())
        raise UserError(f"{path} is garbled: {reason}") from error
    config = _config(folder)
    return FastBPE(inner, _eot(folder, config, inner), config, path)


def _check_bounds(content: dict[str, Any], path: Path) -> None:
    """Refuse what takes memory without bound, for which the library would end the whole process.

    Of what has another form than it should have, the library says so itself.
    """
    model, added = content.get("model"), content.get("added_tokens")
    vocab = model.get("vocab") if isinstance(model, dict) else None
    files.check_ids(vocab.values() if isinstance(vocab, dict) else (), path)
    entries = added if isinstance(added, list) else []
    files.check_ids((entry.get("id") for entry in entries if isinstance(entry, dict)), path)
    if (growth := _growth(content.get("normalizer"))) > MOST_GROWTH:
        raise UserError(
            f"{path} is garbled: its normalizer may make a text {growth} times as long; "
            f"no more than {MOST_GROWTH} times is taken"
        )


def _growth(normalizer: Any) -> int:
    """Return how many times as long a text may be after the replacements of a normalizer."""
    if not isinstance(normalizer, dict):
        return 1
    steps, pattern = normalizer.get("normalizers"), normalizer.get("pattern")
    if isinstance(steps, list):
        return math.prod(_growth(step) for step in steps)
    if not isinstance(pattern, dict):
        return 1
    new, old = len(str(normalizer.get("content"))), pattern.get("String")
    # An expression may match nothing, before each character.
    return math.ceil(max(new, 1) / len(old)) if isinstance(old, str) and old else 1 + new


def _from_vocab_and_merges(folder: Path) -> FastBPE:
    """Read the older pair of files, as the first GPT-2 checkpoints have them."""
    path = folder / "vocab.json"
    vocab = files.check_vocab(files.read_json(path), path)
    path = folder / "merges.txt"
    merges = files.parse_merges(files.read_text(path), vocab, path)
    inner = files.pipeline(vocab, merges)
    config = _config(folder)
    path = folder / "added_tokens.json"
    added: dict[str, int] = files.read_json(path) if path.is_file() else {}
    for content in sorted(added, key=added.__getitem__):
        inner.add_special_tokens([content])
        if inner.token_to_id(content) != added[content]:
            free = inner.token_to_id(content)
            said = f"{content!r} has id {added[content]}, but the next free id is {free}"
            raise UserError(f"{path} is garbled: {said}")
    eot = _eot(folder, config, inner)
    if eot is not None:
        inner.add_special_tokens([inner.id_to_token(eot)])
    return FastBPE(inner, eot, config, folder / "vocab.json")


def _config(folder: Path) -> dict[str, Any]:
    """Return what the folder says about special tokens; older folders say it in two files."""
    config: dict[str, Any] = {}
    for name in ("special_tokens_map.json", "tokenizer_config.json"):
        if (folder / name).is_file():
            config |= files.read_json(folder / name)
    return config


def _eot(folder: Path, config: dict[str, Any], inner: Any) -> int | None:
    """Find the end-of-text token: the eos token of the files, or `<|endoftext|>` by name."""
    eos = config.get("eos_token")
    eos = eos.get("content") if isinstance(eos, dict) else eos
    if isinstance(eos, str):
        token: int | None = inner.token_to_id(eos)
        if token is None:
            raise UserError(
                f"{folder}: the end-of-text token {eos!r} is not in the vocabulary; "
                "set eos_token in tokenizer_config.json to one that is"
            )
        return token
    token = inner.token_to_id(EOT)
    if token is None and (folder / "config.json").is_file():
        token = files.read_json(folder / "config.json").get("eos_token_id")
        if not isinstance(token, int) or inner.id_to_token(token) is None:
            return None
    return token
