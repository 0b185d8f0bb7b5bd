"""The folder in which a preparation is made, so that a killed one goes on where it was.

It lies beside its target under a hidden name that depends only on the target and on what is
prepared, and holds:

    tokenizer/           once it is learned
    train-00000.tokens   each whole shard, and the one that is being written
    progress.json        for each whole shard its hash and where the source stood at its end
    train.json           once the part is complete

After each shard, which is on the disk by then, `progress.json` is replaced in one move. Whatever
the moment of a kill, the shards it names are whole; the next preparation reads the source up to
there without encoding it, and writes the same bytes that the killed one would have written. When
all is there the folder is renamed to its target, so a folder of that name is complete.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

from gpt2lib.data.prepared import INFO
from gpt2lib.data.shards import Shard, check_hash, check_size, shard_path
from gpt2lib.data.sources import Split
from gpt2lib.data.token_files import Header, TokenFile, dtype_for
from gpt2lib.data.writer import write_json
from gpt2lib.tokenizer import Tokenizer, load_tokenizer
from gpt2lib.utils.errors import UserError
from gpt2lib.utils.files import flush

PROGRESS = "progress.json"
_log = logging.getLogger(__name__)


class Position(NamedTuple):
    """Where a source stands.

    Attributes:
        pieces: pieces of documents that are written whole.
        into: tokens written of the next piece.
        n_documents: documents that end in those pieces.
        n_bytes: UTF-8 bytes of those pieces.
    """

    pieces: int = 0
    into: int = 0
    n_documents: int = 0
    n_bytes: int = 0


class Done(NamedTuple):
    """A whole shard, and where the source stands after it."""

    shard: Shard
    position: Position


class Work:
    """What is done of a preparation.

    Args:
        folder: where it is kept; made if need be.
        key: hash of all that determines the content.
        shard_tokens: ids in a shard.

    Attributes:
        is_complete: whether only `publish` is missing.
    """

    def __init__(self, folder: Path, key: str, shard_tokens: int) -> None:
        self.folder, self.shard_tokens = folder, shard_tokens
        self.is_complete = _read(folder / INFO).get("key") == key
        if self.is_complete:  # the kill came between its last file and its renaming
            return
        fresh = {"key": key, "shard_tokens": shard_tokens, "learned_from": None}
        self._state: dict[str, Any] = {**fresh, "train": [], "val": []}
        state = _read(folder / PROGRESS)
        if any(state.get(name) != fresh[name] for name in ("key", "shard_tokens")):
            shutil.rmtree(folder, ignore_errors=True)  # of an older layout, or nothing is done yet
        else:
            self._state |= state
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / PROGRESS, self._state)

    @property
    def has_shards(self) -> bool:
        """Whether a whole shard is done."""
        done = self._state["train"] or self._state["val"]
        return bool(done) or (self.folder / "train.json").is_file()

    @property
    def learned_from(self) -> dict[str, int] | None:
        """How much text the tokenizer was learned from; None if it was given."""
        return self._state["learned_from"]  # type: ignore[no-any-return]

    def tokenizer(self) -> Tokenizer | None:
        """Return the tokenizer that is kept here, if one is."""
        folder = self.folder / "tokenizer"
        return load_tokenizer(folder) if folder.is_dir() else None

    def keep_tokenizer(self, tokenizer: Tokenizer, learned_from: dict[str, int] | None) -> None:
        """Keep the tokenizer, so that it is learned only once."""
        new = self.folder / "tokenizer.new"
        shutil.rmtree(new, ignore_errors=True)
        tokenizer.save(new)
        for path in (*new.iterdir(), new):
            flush(path)
        self._state["learned_from"] = learned_from
        write_json(self.folder / PROGRESS, self._state)
        new.rename(self.folder / "tokenizer")

    def add(self, split: Split, shard: Shard, position: Position) -> None:
        """Note a shard that is on the disk."""
        self._state[split].append({**dataclasses.asdict(shard), **position._asdict()})
        flush(self.folder)
        write_json(self.folder / PROGRESS, self._state)

    def done(self, split: Split, vocab_size: int) -> list[Done]:
        """Return the whole shards of a part, as far as they are still good."""
        itemsize = dtype_for(vocab_size).itemsize
        good: list[Done] = []
        for number, entry in enumerate(self._state[split]):
            path = shard_path(self.folder / f"{split}.json", number)
            shard = Shard(entry["n_tokens"], entry["sha256"])
            try:
                check_size(path, shard, itemsize)
                check_hash(path, shard)
            except UserError:
                _log.warning("%s was damaged since it was written; going on before it", path)
                break
            good.append(Done(shard, Position(*(entry[name] for name in Position._fields))))
        del self._state[split][len(good) :]
        return good

    def drop(self) -> None:
        """Delete the folder: what it was for is there."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def finished(self, split: Split) -> Header | None:
        """Return the header of a part that is complete and good, or None."""
        try:
            part = TokenFile(self.folder / f"{split}.json")
            part.verify()
        except UserError:
            return None
        return part.header

    def publish(self, target: Path) -> None:
        """Rename the folder, which is complete, to its target."""
        (self.folder / PROGRESS).unlink(missing_ok=True)
        for leftover in self.folder.glob("*.new"):  # of a write that was killed
            leftover.unlink()
        flush(self.folder)
        if target.is_dir() and not any(target.iterdir()):
            target.rmdir()
        self.folder.rename(target)
        flush(target.parent)


@contextmanager
def working(target: Path, key: str, shard_tokens: int) -> Iterator[Work]:
    """Open the working folder of a target; other processes that want it wait meanwhile.

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
            work = Work(folder, key, shard_tokens)
            try:
                yield work
            except OSError:
                raise
            except Exception:
                if not (work.is_complete or work.has_shards):
                    work.drop()
                raise
    except OSError as error:
        kept = f"; what is done stays in {folder}, and the same command goes on from there"
        raise UserError(
            f"cannot write {target} ({error.strerror or error}){kept if folder.is_dir() else ''}; "
            "make room, or give another folder with --data.cache or $GPT2LIB_CACHE"
        ) from error


@contextmanager
def alone(path: Path, target: Path) -> Iterator[None]:
    """Hold a lock; the system lets go of it when a process ends, however it ends."""
    from filelock import FileLock, Timeout

    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        _log.warning("another process prepares %s; waiting for it", target)
        lock.acquire()
    try:
        yield
    finally:
        with suppress(OSError):  # an open file cannot be deleted on Windows; it is empty
            path.unlink()
        lock.release()


def _read(path: Path) -> dict[str, Any]:
    try:
        state = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return {}
    return state if isinstance(state, dict) else {}
