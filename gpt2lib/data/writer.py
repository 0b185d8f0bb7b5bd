"""Writing a row of tokens: ids as they come, cut into shards, then the header."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from gpt2lib.data import shards as _shards
from gpt2lib.data.shards import Shard, shard_path
from gpt2lib.data.token_files import Header, dtype_for

Sealed = Callable[[Shard, int], None]


class TokenWriter:
    """Writes one row of tokens: ids as they come, the header at the end.

    A shard that is full is flushed to the disk before the next one begins.

    Args:
        path: the header to make; another suffix than `.json` is replaced.
        vocab_size: ids must be below it; it also chooses the type.
        shard_tokens: ids in a shard; by default `shards.SHARD`.
        done: shards that are written already; what comes follows them.
    """

    def __init__(
        self,
        path: Path,
        vocab_size: int,
        shard_tokens: int | None = None,
        done: Sequence[Shard] = (),
    ) -> None:
        self.path = path.with_suffix(".json")
        self.vocab_size = vocab_size
        self.dtype = dtype_for(vocab_size)
        self.shard_tokens = shard_tokens or _shards.SHARD
        self.shards = list(done)
        self._file: BinaryIO | None = None
        self._hash = hashlib.sha256()
        self._room = self.shard_tokens

    @property
    def n_tokens(self) -> int:
        """How many ids were written."""
        return sum(s.n_tokens for s in self.shards) + self.shard_tokens - self._room

    @property
    def first(self) -> int:
        """The first id of the row, once its shard is written."""
        return int(np.fromfile(shard_path(self.path, 0), dtype=self.dtype, count=1)[0])

    def write(self, ids: Iterable[int] | NDArray[Any], sealed: Sealed | None = None) -> None:
        """Append ids.

        Args:
            ids: what to append.
            sealed: called for each shard that gets full, with it and how many of `ids` are
                written by then.

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
        data = row.astype(self.dtype)
        at = 0
        while at < data.size:
            part = data[at : at + self._room]
            self._append(part.tobytes())
            self._room -= part.size
            at += part.size
            if not self._room:
                self.seal()
                if sealed:
                    sealed(self.shards[-1], at)

    def _append(self, data: bytes) -> None:
        if self._file is None:
            self._file = shard_path(self.path, len(self.shards)).open("wb")
        self._hash.update(data)
        self._file.write(data)

    def seal(self) -> None:
        """End the shard that is being written, and have it on the disk."""
        if self._file is None:
            return
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        self.shards.append(Shard(self.shard_tokens - self._room, self._hash.hexdigest()))
        self._file, self._hash, self._room = None, hashlib.sha256(), self.shard_tokens

    def close(self) -> None:
        """Leave the shard that is being written as it is; after `finish` this does nothing."""
        if self._file is not None:
            with suppress(OSError):  # a full disk refuses what is still in the buffer
                self._file.close()

    def finish(self, **facts: Any) -> Header:
        """End the last shard and write the header; `facts` are the fields not known here."""
        self.seal()
        header = Header(
            dtype=self.dtype.name,
            vocab_size=self.vocab_size,
            n_tokens=self.n_tokens,
            shards=tuple(self.shards),
            **facts,
        )
        write_json(self.path, dataclasses.asdict(header))
        return header


def write_json(path: Path, values: Any) -> None:
    """Write a JSON file that is on the disk, whole or not at all.

    Raises:
        OSError: if the disk refuses; an older file of that name is then untouched.
    """
    temporary = path.with_name(f"{path.name}.new")
    with temporary.open("w", encoding="utf-8", newline="\n") as file:
        file.write(json.dumps(values, indent=2, ensure_ascii=False) + "\n")
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
