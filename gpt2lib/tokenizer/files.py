"""The files of a byte-level BPE: vocab.json and merges.txt, and what transformers reads.

    vocab.json             symbol -> id, for people and other tools
    merges.txt             one merge a line, in the order of learning
    tokenizer.json         both, and the pipeline, for `tokenizers` and transformers
    tokenizer_config.json  the special tokens, for transformers

None of them is pickled; reading one runs no code from it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import tokenizers

from gpt2lib.tokenizer.merges import Pair
from gpt2lib.tokenizer.pretokenizer import BYTES, byte_to_unicode
from gpt2lib.utils.errors import UserError

MERGES_HEADER = "#version: 0.2"
MOST_TOKENS = 1 << 24  # as many as a model may have
UNSET = int(1e30)  # what transformers writes for a model_max_length that is not known


def pipeline(vocab: Mapping[str, int], merges: Iterable[Pair], special: str | None = None) -> Any:
    """Return a `tokenizers.Tokenizer` that works as GPT-2's, with at most one special token."""
    symbol = {token: written for written, token in vocab.items()}
    pairs = [(symbol[a], symbol[b]) for a, b in merges]
    inner: Any = tokenizers.Tokenizer(tokenizers.models.BPE(vocab=dict(vocab), merges=pairs))
    inner.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = tokenizers.decoders.ByteLevel()
    inner.post_processor = tokenizers.processors.ByteLevel(trim_offsets=False)
    if special is not None:
        inner.add_special_tokens([special])
    return inner


def write(
    folder: Path,
    vocab: Mapping[str, int],
    merges: Sequence[Pair],
    inner: Any,
    config: Mapping[str, Any],
    model_max_length: int | None,
) -> None:
    """Write the four files.

    Args:
        folder: made if need be.
        vocab: symbol -> id.
        merges: pairs of ids.
        inner: the `tokenizers.Tokenizer`.
        config: what tokenizer_config.json says; of it only the special tokens are kept.
        model_max_length: the model's block size, if known.
    """
    folder.mkdir(parents=True, exist_ok=True)
    symbol = {token: written for written, token in vocab.items()}
    lines = [MERGES_HEADER, *(f"{symbol[a]} {symbol[b]}" for a, b in merges)]
    write_json(folder / "vocab.json", vocab)
    (folder / "merges.txt").write_text("\n".join(lines) + "\n", encoding="utf-8", newline="\n")
    (folder / "tokenizer.json").write_text(inner.to_str(), encoding="utf-8")
    kept = {k: v for k, v in config.items() if k.endswith(("_token", "_special_tokens"))}
    fixed = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "clean_up_tokenization_spaces": False,  # it would take spaces away before punctuation
        "model_max_length": model_max_length or config.get("model_max_length") or UNSET,
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
    try:
        content = json.loads(read_text(path))
    except json.JSONDecodeError as error:
        raise UserError(f"{path} is garbled: not JSON at line {error.lineno}") from error
    except (ValueError, RecursionError) as error:  # a number or a nesting beyond measure
        raise UserError(f"{path} is garbled: {error}") from error
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


def check_ids(ids: Iterable[Any], where: Path) -> None:
    """Refuse an id for which a table of all tokens would not fit into memory.

    `tokenizers` makes such a table, and ends the whole process where it does not fit.
    """
    for token in ids:
        if isinstance(token, int) and token >= MOST_TOKENS:
            raise UserError(f"{where} is garbled: it has the id {token}, above {MOST_TOKENS - 1}")


def check_vocab(vocab: Mapping[str, Any], where: Path) -> dict[str, int]:
    """Check symbol -> id: whole numbers, none twice, and all 256 bytes are there."""
    check_ids(vocab.values(), where)
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
