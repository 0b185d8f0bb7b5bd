"""Writing a token file: ids as they come, then the header."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpt2lib.data.files import Header, dtype_for


class TokenWriter:
    """Writes one token file: ids as they come, the header at the end.

    Args:
        path: the `.tokens` file to make.
        vocab_size: ids must be below it; it also chooses the type.
    """

    def __init__(self, path: Path, vocab_size: int) -> None:
        self.path = path
        self.vocab_size = vocab_size
        self.dtype = dtype_for(vocab_size)
        self.n_tokens = 0
        self.first: int | None = None
        self._hash = hashlib.sha256()
        self._file = path.open("wb")

    def write(self, ids: Iterable[int] | NDArray[Any]) -> None:
        """Append ids.

        Raises:
            ValueError: for an id outside the vocabulary; a cast would wrap it around silently.
        """
        row = np.asarray(ids if isinstance(ids, np.ndarray) else list(ids), dtype=np.int64)
        if not row.size:
            return
        low, high = int(row.min()), int(row.max())
        if low < 0 or high >= self.vocab_size:
            raise ValueError(
                f"token id {low if low < 0 else high} is outside the vocabulary of "
                f"{self.vocab_size}: the tokenizer is broken"
            )
        if self.first is None:
            self.first = int(row[0])
        data = row.astype(self.dtype).tobytes()
        self._hash.update(data)
        self._file.write(data)
        self.n_tokens += row.size

    def close(self) -> None:
        """Close the file, on the disk; the rename that follows must not overtake the content."""
        if not self._file.closed:
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()

    def finish(self, **facts: Any) -> Header:
        """Close the file and write its header; `facts` are the fields not known here."""
        self.close()
        header = Header(
            dtype=self.dtype.name,
            vocab_size=self.vocab_size,
            n_tokens=self.n_tokens,
            sha256=self._hash.hexdigest(),
            **facts,
        )
        text = json.dumps(dataclasses.asdict(header), indent=2, ensure_ascii=False)
        self.path.with_suffix(".json").write_text(text + "\n", encoding="utf-8")
        return header
