"""Rows of tokens on their way to the disk, so that a killed preparation loses at most one shard.

A preparation works in a folder beside its target, under a hidden name that depends only on the
target and on what is prepared, and renames it when it is complete. The folder holds:

    tokenizer/           once it is learned
    train-00000.tokens   each whole shard, and the one that is being written; of `val` likewise
    progress.json        how much of the source was read, and what was on the disk by then
    train.json           the headers, at the end

Whenever a shard is full, `progress.json` is replaced in one move, after what it names is on the
disk. Whatever the moment of a kill, the next preparation cuts the files back to what it says, reads
the source up to there without encoding it, and writes the same bytes as if nothing had happened.
"""

from __future__ import annotations

import dataclasses
import errno
import hashlib
import json
import logging
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from gpt2lib.data.sources.corpus import Split
from gpt2lib.data.token_files import (
    INFO,
    LAST,
    LEARNED,
    Header,
    Shard,
    check_hash,
    dtype_for,
    marks_path,
    shard_path,
)
from gpt2lib.tokenizer import Tokenizer
from gpt2lib.utils.errors import UserError
from gpt2lib.utils.files import clear_leftovers, file_lock, flush, replace_text
from gpt2lib.utils.formats import read_json

SHARD = 1 << 26
"""Tokens in a shard: 128 MiB with two bytes each. Only the last one has fewer."""
PROGRESS = "progress.json"
State = Mapping[str, Any] | None
_log = logging.getLogger(__name__)


class TokenWriter:
    """Writes one row of tokens: ids as they come, cut into shards, and the header at the end.

    Args:
        path: the header to make; another suffix than `.json` is replaced.
        vocab_size: ids must be below it; it also chooses the type.
        shard_tokens: ids in a shard; by default `SHARD`.
        state: of a writer before this one, as `save_state` returned it; what comes follows it.

    Attributes:
        shards: the whole ones.
        n_tokens: ids written.
        counts: what the header says of the documents, to be counted by who writes them.
        marks: writes a mark for each id, where there are any.

    Raises:
        UserError: if what was on the disk then has changed.
    """

    def __init__(
        self, path: Path, vocab_size: int, shard_tokens: int | None = None, state: State = None
    ) -> None:
        self.path, self.vocab_size = path.with_suffix(".json"), vocab_size
        self.dtype, self.shard_tokens = dtype_for(vocab_size), shard_tokens or SHARD
        self.shards: list[Shard] = []
        self.n_tokens = 0
        self.counts = {"n_documents": 0, "n_bytes": 0, "n_scored_bytes": 0, "n_targets": 0}
        self.marks: TokenWriter | None = None
        self._file: BinaryIO | None = None
        self._hash: Any = hashlib.sha256()
        if state is not None:
            self.counts = {name: state.get(name, 0) for name in self.counts}
            for shard in state["shards"]:
                self._take_up(Shard(**shard))
            if marks := state.get("marks"):
                self.marks = self._marks_writer(marks)

    def _take_up(self, shard: Shard) -> None:
        """Go on after a shard; one that was only begun is cut back to what it had then."""
        path = shard_path(self.path, len(self.shards))
        with suppress(FileNotFoundError), path.open("r+b") as file:
            file.truncate(shard.n_tokens * self.dtype.itemsize)
        hashed = check_hash(path, shard)
        self.n_tokens += shard.n_tokens
        if shard.n_tokens == self.shard_tokens:
            self.shards.append(shard)
        else:
            self._file, self._hash = path.open("ab"), hashed

    def _marks_writer(self, state: State = None) -> TokenWriter:
        return TokenWriter(marks_path(self.path), 1 + (LEARNED | LAST), self.shard_tokens, state)

    def write(
        self, ids: Iterable[int] | NDArray[Any], marks: NDArray[np.int64] | None = None
    ) -> None:
        """Append ids. A shard that is full is on the disk before the next one begins.

        Args:
            ids: what to append.
            marks: a mark for each (`packing`); either every call has them or none.

        Raises:
            ValueError: for an id outside the vocabulary; a cast would wrap it around silently.
        """
        row = np.asarray(ids if isinstance(ids, np.ndarray) else list(ids), dtype=np.int64)
        if row.size and not 0 <= row.min() <= row.max() < self.vocab_size:
            wrong = row.min() if row.min() < 0 else row.max()
            raise ValueError(
                f"token id {wrong} is outside the vocabulary of {self.vocab_size}: the tokenizer "
                "is broken"
            )
        if marks is not None:
            self.marks = self.marks or self._marks_writer()
            self.marks.write(marks)
            self.counts["n_targets"] += int((marks & LEARNED).sum())
        data = row.astype(self.dtype)
        while data.size:
            room = self.shard_tokens * (len(self.shards) + 1) - self.n_tokens
            part, data = data[:room], data[room:]
            self._append(part.tobytes())
            self.n_tokens += part.size
            if part.size == room:
                self._seal()

    def _append(self, data: bytes) -> None:
        if self._file is None:
            self._file = shard_path(self.path, len(self.shards)).open("wb")
        self._hash.update(data)
        self._file.write(data)

    def _begun(self) -> list[Shard]:
        """Have the shard that is being written on the disk, and return it, if there is one."""
        if self._file is None:
            return []
        self._file.flush()
        os.fsync(self._file.fileno())
        n_tokens = self.n_tokens - self.shard_tokens * len(self.shards)
        return [Shard(n_tokens, self._hash.hexdigest())]

    def _seal(self) -> None:
        """End the shard that is being written."""
        self.shards += self._begun()
        self._close_file()
        self._file, self._hash = None, hashlib.sha256()

    def save_state(self) -> dict[str, Any]:
        """Have all on the disk; return what a writer needs to go on from here."""
        shards = [dataclasses.asdict(shard) for shard in (*self.shards, *self._begun())]
        marks = {} if self.marks is None else {"marks": self.marks.save_state()}
        return {**self.counts, "shards": shards, **marks}

    def close(self) -> None:
        """Leave the shard that is being written as it is; after `finish` this does nothing."""
        self._close_file()
        if self.marks is not None:
            self.marks.close()

    def _close_file(self) -> None:
        if self._file is not None:
            with suppress(OSError):  # a full disk refuses what is still in the buffer
                self._file.close()

    def finish(self, **facts: Any) -> Header:
        """End the last shard and write the header; `facts` are the fields not known here."""
        self._seal()
        if self.marks is not None:
            self.marks.finish(**facts)
        known = {"dtype": self.dtype.name, "vocab_size": self.vocab_size, "n_tokens": self.n_tokens}
        header = Header(**{**known, **self.counts, **facts}, shards=tuple(self.shards))
        write_json(self.path, dataclasses.asdict(header))
        return header


class Partial:
    """A preparation that is not complete.

    Args:
        folder: where it is kept; made if need be.
        key: hash of all that determines the content.

    Attributes:
        is_complete: whether only `publish` is missing.
        state: what `progress.json` holds: besides what the preparation is known by, how much text
            the tokenizer was learned from (None if it was given), how many chunks of the source
            are encoded, and the states of the writers of both splits by then.
    """

    def __init__(self, folder: Path, key: str) -> None:
        self.folder = folder
        self.is_complete = _read(folder / INFO).get("key") == key  # killed before it was renamed
        fresh = {"key": key, "shard_tokens": SHARD, "learned_from": None, "n_chunks": 0, "rows": {}}
        left = _read(folder / PROGRESS)
        if not self.is_complete and any(left.get(k) != fresh[k] for k in ("key", "shard_tokens")):
            shutil.rmtree(folder, ignore_errors=True)  # of another size, or nothing is done yet
            left = {}
        self.state: dict[str, Any] = fresh | {k: left[k] for k in fresh if k in left}
        folder.mkdir(parents=True, exist_ok=True)

    def keep_tokenizer(self, tokenizer: Tokenizer, learned_from: dict[str, int] | None) -> None:
        """Keep the tokenizer, so that it is learned only once."""
        new = self.folder / "tokenizer.new"
        shutil.rmtree(new, ignore_errors=True)
        tokenizer.save(new)
        for path in (*new.iterdir(), new):
            flush(path)
        self.note(learned_from=learned_from)
        new.rename(self.folder / "tokenizer")

    def note(self, **state: Any) -> None:
        """Replace what is noted, in one move."""
        flush(self.folder)
        self.state |= state
        write_json(self.folder / PROGRESS, self.state)

    def writer(self, split: Split, vocab_size: int) -> TokenWriter:
        """Return the writer of a split, which goes on after what is noted."""
        size, done = self.state["shard_tokens"], self.state["rows"].get(split)
        return TokenWriter(self.folder / split, vocab_size, size, done)

    def drop(self) -> None:
        """Delete the folder: what it was for is there, or nothing of it is worth keeping."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def publish(self, target: Path) -> None:
        """Rename the folder, which is complete, to its target."""
        (self.folder / PROGRESS).unlink(missing_ok=True)
        clear_leftovers(self.folder)  # of a write that was killed
        flush(self.folder)
        if target.is_dir() and not any(target.iterdir()):
            target.rmdir()
        self.folder.rename(target)
        flush(target.parent)


@contextmanager
def partial_folder(target: Path, key: str) -> Iterator[Partial]:
    """Open what there is of a target; other processes that want it wait meanwhile.

    Where the disk refuses or the process is stopped, what is done stays for the next preparation;
    after another failure only if there is a whole shard: a stream that broke off is read on, a
    text in a wrong encoding leaves nothing behind.

    Raises:
        UserError: if the disk refuses (full, read-only).
    """
    name = target.name if target.name.endswith(key[:16]) else f"{target.name}-{key[:16]}"
    folder = target.with_name(f".{name}.partial")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with alone(target.with_name(f".{name}.lock"), target):
            partial = Partial(folder, key)
            try:
                yield partial
            except OSError:
                raise
            except Exception:
                if not (partial.is_complete or partial.state["n_chunks"]):
                    partial.drop()
                raise
    except OSError as error:
        kept = f"; what is done stays in {folder}, and the same command goes on from there"
        room = "make room, or " if error.errno in (errno.ENOSPC, errno.EDQUOT) else ""
        raise UserError(
            f"cannot write {target} ({error.strerror or error}){kept if folder.is_dir() else ''}; "
            f"{room}give another folder with --data.cache or $GPT2LIB_CACHE"
        ) from error


@contextmanager
def alone(lock: Path, target: Path) -> Iterator[None]:
    """Hold a lock while a target is made; its file goes with it."""
    busy = "another process prepares %s; waiting for it"
    with file_lock(lock, lambda: _log.warning(busy, target)):
        try:
            yield
        finally:
            with suppress(OSError):  # an open file cannot be deleted on Windows; it is empty
                lock.unlink()


def write_json(path: Path, values: Any) -> None:
    """Write a JSON file that is on the disk, whole or (with an OSError) not at all."""
    replace_text(path, json.dumps(values, indent=2, ensure_ascii=False) + "\n")


def _read(path: Path) -> dict[str, Any]:
    with suppress(UserError):
        return read_json(path)
    return {}
