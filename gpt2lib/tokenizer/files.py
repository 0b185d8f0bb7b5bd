"""The files of a byte-level BPE: vocab.json and merges.txt, and what transformers reads.

`write` makes four files of one vocabulary:

    vocab.json             symbol -> id, for people and other tools
    merges.txt             one merge a line, in the order of learning
    tokenizer.json         both, and the pipeline, for `tokenizers` and transformers
    tokenizer_config.json  the special tokens, for transformers

None of them is pickled; reading one runs no code from it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gpt2lib.tokenizer.base import EOT, digest
from gpt2lib.tokenizer.chunks import BYTES, byte_to_unicode
from gpt2lib.tokenizer.merges import Pair
from gpt2lib.utils.errors import UserError

MERGES_HEADER = "#version: 0.2"
UNSET = int(1e30)  # what transformers writes for a model_max_length that is not known
GPT2_FINGERPRINT = "dca0bda9d9ad5160c1b35c2d2f621cab95eadeb2fed5029221b4bf56039f9e59"


def name_of(fingerprint: str) -> str:
    """Return "gpt2" for the fingerprint of GPT-2's vocabulary, "bpe" for any other."""
    return "gpt2" if fingerprint == GPT2_FINGERPRINT else "bpe"


def fingerprint(
    symbols: Sequence[str | None], merges: Sequence[Pair], eot: int | None, pipeline: Any = "gpt2"
) -> str:
    """Return the sha256 of all that determines the ids of a text."""
    return digest([list(symbols), [list(pair) for pair in merges], eot, pipeline])


def write(
    folder: Path, symbols: Sequence[str], merges: Sequence[Pair], model_max_length: int | None
) -> None:
    """Write the four files of a vocabulary in GPT-2's layout, its last token end-of-text."""
    vocab = {symbol: token for token, symbol in enumerate(symbols)}
    byte_level = {"type": "ByteLevel", "add_prefix_space": False}
    byte_level |= {"trim_offsets": True, "use_regex": True}
    special = {"id": len(symbols) - 1, "content": EOT, "special": True, "normalized": False}
    special |= {"single_word": False, "lstrip": False, "rstrip": False}
    pipeline = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [special],
        "normalizer": None,
        "pre_tokenizer": byte_level,
        "post_processor": byte_level | {"trim_offsets": False},
        "decoder": byte_level,
        "model": {
            "type": "BPE",
            "vocab": vocab,
            "merges": [[symbols[a], symbols[b]] for a, b in merges],
        },
    }
    write_vocab(folder, vocab, merges)
    write_json(folder / "tokenizer.json", pipeline)
    write_config(folder, {"bos_token": EOT, "eos_token": EOT}, model_max_length)


def write_vocab(folder: Path, vocab: Mapping[str, int], merges: Sequence[Pair]) -> None:
    """Write vocab.json and merges.txt."""
    folder.mkdir(parents=True, exist_ok=True)
    symbol = {token: written for written, token in vocab.items()}
    lines = [MERGES_HEADER, *(f"{symbol[a]} {symbol[b]}" for a, b in merges)]
    write_json(folder / "vocab.json", vocab)
    (folder / "merges.txt").write_text("\n".join(lines) + "\n", encoding="utf-8", newline="\n")


def write_config(folder: Path, config: Mapping[str, Any], model_max_length: int | None) -> None:
    """Write tokenizer_config.json; of `config`, what it says about special tokens is kept."""
    kept = {k: v for k, v in config.items() if k.endswith(("_token", "_special_tokens"))}
    length = model_max_length or config.get("model_max_length") or UNSET
    fixed = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "clean_up_tokenization_spaces": False,  # it would take spaces away before punctuation
        "model_max_length": length,
    }
    write_json(folder / "tokenizer_config.json", {**kept, **fixed}, indent=2)


def write_json(path: Path, content: Any, indent: int | None = None) -> None:
    """Write JSON as UTF-8."""
    text = json.dumps(content, ensure_ascii=False, indent=indent)
    path.write_text(text + "\n", encoding="utf-8", newline="\n")


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        UserError: if the file is missing, or holds something else.
    """
    content = None
    try:
        content = json.loads(read_text(path))
    except json.JSONDecodeError as error:
        raise UserError(f"{path} is garbled: not JSON at line {error.lineno}") from error
    if not isinstance(content, dict):
        raise UserError(f"{path} is garbled: it holds no JSON object")
    return content


def read_text(path: Path) -> str:
    """Read a UTF-8 file; a missing one or another encoding is a UserError."""
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise UserError(f"{path} is missing; save the tokenizer again, or copy the file") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is garbled: byte {error.start} is not UTF-8") from error
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from error


def read(folder: Path) -> tuple[dict[str, int], list[Pair]]:
    """Read vocab.json and merges.txt, as symbol -> id and pairs of ids.

    Raises:
        UserError: if one is missing or garbled, with the line.
    """
    vocab = check_vocab(read_json(folder / "vocab.json"), folder / "vocab.json")
    return vocab, parse_merges(read_text(folder / "merges.txt"), vocab, folder / "merges.txt")


def check_vocab(vocab: Mapping[str, Any], where: Path) -> dict[str, int]:
    """Check symbol -> id: whole numbers, none twice, and all 256 bytes are there."""
    seen: dict[int, str] = {}
    for symbol, token in vocab.items():
        if not isinstance(token, int) or isinstance(token, bool) or token < 0:
            raise UserError(f"{where} is garbled: the id of {symbol!r} is {token!r}")
        if token in seen:
            raise UserError(f"{where} is garbled: {symbol!r} and {seen[token]!r} both have {token}")
        seen[token] = symbol
    missing = [byte for byte, symbol in byte_to_unicode().items() if symbol not in vocab]
    if missing:
        raise UserError(
            f"{where} is no byte-level vocabulary: {len(missing)} of {len(BYTES)} bytes are "
            f"missing, such as byte {missing[0]}; only byte-level BPE can be loaded"
        )
    return dict(vocab)


def parse_merges(text: str, vocab: Mapping[str, int], where: Path) -> list[Pair]:
    """Return the pairs of ids that the lines of merges.txt name."""
    merges: list[Pair] = []
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip() or line.startswith("#version"):
            continue
        parts = line.rstrip("\r").split(" ")
        if len(parts) != 2:
            raise UserError(f"{where} is garbled: line {number} is {line!r}, not two symbols")
        for symbol in (*parts, "".join(parts)):
            if symbol not in vocab:
                raise UserError(f"{where} line {number}: vocab.json lacks the symbol {symbol!r}")
        merges.append((vocab[parts[0]], vocab[parts[1]]))
    return merges
