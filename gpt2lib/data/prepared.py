"""A folder of token files that `prepare` made, opened and checked."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gpt2lib.data.token_files import FORMAT, TokenFile
from gpt2lib.tokenizer import Tokenizer, load_tokenizer
from gpt2lib.utils.errors import UserError
from gpt2lib.utils.files import expand

INFO = "prepared.json"


@dataclass(frozen=True)
class Prepared:
    """A folder of token files, opened.

    Attributes:
        folder: where it is.
        tokenizer: the one that made the ids.
        train: the tokens to train on.
        val: the tokens held out, or None if nothing is.
        info: name, origin and licence of the text, and what the folder was made with.
    """

    folder: Path
    tokenizer: Tokenizer
    train: TokenFile
    val: TokenFile | None
    info: dict[str, Any]


def is_prepared(folder: Path | str) -> bool:
    """Return whether `prepare` made the folder."""
    return (expand(folder) / INFO).is_file()


def open_prepared(folder: Path | str) -> Prepared:
    """Open a folder that `prepare` made.

    So that no altered byte is trained on, the hashes of its shards are compared here, where that
    costs no more than a moment (`TokenFile.verify_if_cheap`).

    Raises:
        UserError: if it is damaged, or its tokenizer is not the one that made the ids.
    """
    folder = expand(folder)
    try:
        info = json.loads((folder / INFO).read_text(encoding="utf-8"))
        version = info["format"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{folder} is not a folder that `gpt2lib prepare` made") from error
    if version != FORMAT:
        raise UserError(
            f"{folder} has format {version}, this version reads {FORMAT}; prepare again"
        )
    if "train" not in info.get("parts", ()):
        raise UserError(f"{folder / INFO} is damaged; delete the folder and prepare again")
    tokenizer = load_tokenizer(folder / "tokenizer")
    parts = {part: TokenFile(folder / f"{part}.json") for part in info["parts"]}
    for part in parts.values():
        part.check_tokenizer(tokenizer.fingerprint)
        part.verify_if_cheap()
    return Prepared(folder, tokenizer, parts["train"], parts.get("val"), info)
