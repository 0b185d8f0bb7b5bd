"""Token files: one long row of token ids on disk, and a JSON header beside it.

`train.tokens` holds nothing but ids (little-endian, 2 or 4 bytes each), so that it can be
memory-mapped: the operating system reads only the pages that a batch touches, and a file larger
than the memory works like a small one. `train.json` says how to read it and where it came from.

With an end-of-text token the ids are `<eot> document <eot> document <eot>`: the first token is
context only, so every byte of text is predicted, and so is every end of a document. A
character tokenizer has no such token; there the documents just follow one another.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gpt2lib.data.order import sample_windows, windows_per_epoch
from gpt2lib.errors import UserError

FORMAT = 1
"""Version of the layout; a file of another version is refused."""


@dataclass(frozen=True)
class Header:
    """What `train.json` says about `train.tokens`.

    Attributes:
        name: what to call the text in messages, such as "notes.txt".
        dtype: "uint16" or "uint32".
        vocab_size: every id is below it.
        n_tokens: ids in the file.
        n_documents: documents in the file.
        n_bytes: UTF-8 bytes of all documents.
        n_scored_bytes: bytes of all tokens but the first: what a loss over the file accounts for.
            The denominator of bits per byte.
        tokenizer: fingerprint of the tokenizer.
        source: fingerprint of the text.
        sha256: hash of the token file.
        format: version of the layout.
    """

    name: str
    dtype: str
    vocab_size: int
    n_tokens: int
    n_documents: int
    n_bytes: int
    n_scored_bytes: int
    tokenizer: str
    source: str
    sha256: str
    format: int = FORMAT


def dtype_for(vocab_size: int) -> np.dtype[Any]:
    """Return the smallest id type: two bytes up to 65,536 tokens, then four."""
    if vocab_size <= 1 << 16:
        return np.dtype("<u2")
    if vocab_size <= 1 << 32:
        return np.dtype("<u4")
    raise UserError(f"a vocabulary of {vocab_size} tokens is too large; the most is {1 << 32}")


class TokenFile:
    """A token file, opened for reading.

    Attributes:
        path: the `.tokens` file.
        header: its header.
        tokens: all ids, memory-mapped, shape (n_tokens,).

    Raises:
        UserError: if the file or its header is missing, damaged or of another version.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.header = _read_header(self.path)
        dtype = np.dtype({"uint16": "<u2", "uint32": "<u4"}[self.header.dtype])
        expected = self.header.n_tokens * dtype.itemsize
        size = self.path.stat().st_size
        if size != expected:
            raise UserError(
                f"{self.path} is damaged: its header promises {expected} bytes, it has {size}; "
                f"delete its folder and prepare again"
            )
        self.tokens: NDArray[Any] = np.memmap(self.path, dtype=dtype, mode="r")

    def __len__(self) -> int:
        return self.header.n_tokens

    def __repr__(self) -> str:
        return f"TokenFile({str(self.path)!r}, {len(self):,} tokens of {self.name})"

    @property
    def name(self) -> str:
        """What to call the text in messages."""
        return self.header.name

    def require(self, block_size: int) -> None:
        """Refuse a file too short for one window.

        Raises:
            UserError: naming both numbers.
        """
        windows_per_epoch(len(self), block_size, name=self.name)

    def windows(self, block_size: int, seed: int, indices: ArrayLike) -> NDArray[np.int64]:
        """Return where the windows of the given samples start; see `order.sample_windows`."""
        return sample_windows(len(self), block_size, seed, indices, name=self.name)

    def check_tokenizer(self, fingerprint: str) -> None:
        """Refuse a tokenizer other than the one that made the ids.

        Raises:
            UserError: if the fingerprints differ.
        """
        if fingerprint != self.header.tokenizer:
            raise UserError(
                f"the tokenizer {fingerprint[:12]} is not the one {self.path} was made with "
                f"({self.header.tokenizer[:12]}); prepare the text again with this tokenizer"
            )

    def verify(self) -> None:
        """Read the whole file and compare its hash with the header's.

        Raises:
            UserError: if a byte has changed.
        """
        with self.path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        if found != self.header.sha256:
            raise UserError(
                f"{self.path} is damaged: its sha256 is {found[:12]}…, its header says "
                f"{self.header.sha256[:12]}…; delete its folder and prepare again"
            )

    def __reduce__(self) -> tuple[type[TokenFile], tuple[Path]]:
        """Pickle as the path: a worker process maps the file itself instead of copying it."""
        return TokenFile, (self.path,)


def _read_header(path: Path) -> Header:
    header = path.with_suffix(".json")
    for part in (path, header):
        if not part.is_file():
            raise UserError(f"there is no {part}; make it with `gpt2lib prepare`")
    try:
        values = json.loads(header.read_text(encoding="utf-8"))
        version = values["format"]
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{header} is not a token file's header; prepare again") from error
    if version != FORMAT:
        raise UserError(
            f"{header} has format {version}, this version reads {FORMAT}; prepare again"
        )
    fields = dataclasses.fields(Header)
    kinds = {"int": int, "str": str}
    good = set(values) == {f.name for f in fields} and all(
        type(values[f.name]) is kinds[str(f.type)] for f in fields
    )
    if not good or values["dtype"] not in ("uint16", "uint32") or values["n_tokens"] < 1:
        raise UserError(f"{header} is damaged; delete its folder and prepare again")
    return Header(**values)
