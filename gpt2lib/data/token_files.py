"""Token files: long rows of token ids on disk, and a JSON header beside them.

`train-00000.tokens`, `train-00001.tokens` … hold nothing but ids (little-endian, 2 or 4 bytes
each), so that they can be memory-mapped: the operating system reads only the pages that a batch
touches, and a row larger than the memory works like a small one. All shards but the last are of
equal size. `train.json` says how to read them, their hashes, and where they came from.

With an end-of-text token the ids are `<eot> document <eot> document <eot>`: the first token is
context only, so every byte of text is predicted, and so is every end of a document. A
character tokenizer has no such token; there the documents just follow one another.

What guards against damage: opening compares the size of each shard with the header; opening a
prepared folder also compares the hashes where that is cheap (`TokenFile.verify_if_cheap`), and
`TokenFile.verify` compares all of them.

Where only answers are learned, `train-marks.json` and its shards hold a mark for each id in the
same form (`packing`).
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gpt2lib.data.joined import JoinedTokens
from gpt2lib.data.order import eval_starts, sample_windows, windows_per_epoch
from gpt2lib.data.sources.corpus import digest
from gpt2lib.utils.errors import UserError

FORMAT = 2
"""Version of the layout; a file of another version is refused."""
VERIFY_BELOW = 1 << 30
"""Bytes up to which opening a prepared folder hashes a row: about half a second at 2 GB/s."""
INFO = "prepared.json"
"""What a prepared folder holds besides: written last, so a folder that has it is complete."""
LEARNED, LAST = 1, 2
"""Marks of a token, a bit each: it is a target; it is the last one of its row."""
Row = NDArray[Any] | JoinedTokens
_DTYPES = {"uint16": "<u2", "uint32": "<u4"}


@dataclass(frozen=True)
class Shard:
    """One file of a row.

    Attributes:
        n_tokens: ids in it.
        sha256: hash of the file.
    """

    n_tokens: int
    sha256: str


@dataclass(frozen=True)
class Header:
    """What `train.json` says about the shards beside it.

    Attributes:
        name: what to call the text in messages, such as "notes.txt".
        dtype: "uint16" or "uint32".
        vocab_size: every id is below it.
        n_tokens: ids in all shards.
        n_documents: documents in them.
        n_bytes: UTF-8 bytes of all documents.
        n_scored_bytes: bytes of all tokens but the first: what a loss over the file accounts for.
            The denominator of bits per byte. Where only answers are learned, the bytes of these.
        n_targets: tokens that are learned, where the others are only read; else 0.
        tokenizer: fingerprint of the tokenizer.
        source: fingerprint of the text.
        shards: size and hash of each file, in order.
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
    shards: tuple[Shard, ...]
    n_targets: int = 0
    format: int = FORMAT

    @property
    def sha256(self) -> str:
        """One hash for all shards: equal hashes, equal ids in equal files."""
        return digest(*(shard.sha256 for shard in self.shards))


class TokenFile:
    """A row of tokens, opened for reading.

    Args:
        path: its header, `train.json`; another suffix is replaced.

    Attributes:
        path: the header.
        header: what it says.
        tokens: all ids, memory-mapped, shape (n_tokens,): a numpy array where there is one shard,
            and else a `JoinedTokens`, which is read in the same way.
        marks: a mark for each id, in the same form, or None where all are learned.
        parts: the files that no window may leave; here there is one, the file itself.
        shares: how many samples are drawn from each of them, in each of some number.

    Raises:
        UserError: if a shard or the header is missing, damaged or of another version.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path).with_suffix(".json")
        self.header = read_header(self.path)
        dtype = np.dtype(_DTYPES[self.header.dtype])
        for file, shard in self.files():
            check_size(file, shard.n_tokens * dtype.itemsize)
        rows = [np.memmap(file, dtype=dtype, mode="r") for file, _ in self.files()]
        self.tokens: Row = rows[0] if len(rows) == 1 else JoinedTokens(rows)

    marks: Row | None = None
    shares: Sequence[int] = (1,)

    @property
    def parts(self) -> tuple[TokenFile, ...]:
        return (self,)

    def files(self) -> list[tuple[Path, Shard]]:
        """Return each shard with the path of its file."""
        return [(shard_path(self.path, i), shard) for i, shard in enumerate(self.header.shards)]

    def __len__(self) -> int:
        return self.header.n_tokens

    def __repr__(self) -> str:
        return f"{type(self).__name__}({len(self):,} tokens of {self.name})"

    @property
    def name(self) -> str:
        """What to call the text in messages."""
        return self.header.name

    def require(self, block_size: int) -> None:
        """Refuse a file too short for one window.

        Raises:
            UserError: naming the file and both numbers.
        """
        for part in self.parts:
            windows_per_epoch(len(part), block_size, name=part.name)

    @property
    def n_targets(self) -> int:
        """How many tokens there are to predict."""
        return len(self) - 1

    def windows(self, block_size: int, seed: int, indices: ArrayLike) -> NDArray[np.int64]:
        """Return where the windows of the given samples start; see `order.sample_windows`."""
        return sample_windows(len(self), block_size, seed, indices, name=self.name)

    def eval_windows(self, block_size: int) -> NDArray[np.int64]:
        """Return where the windows of an evaluation start: each target is in one of them."""
        windows_per_epoch(len(self), 1, name=self.name)  # one token alone has nothing before it
        return eval_starts(len(self), block_size)

    def window_ends(self, starts: NDArray[np.int64], block_size: int) -> NDArray[np.int64]:
        """Return the position that each window must not reach."""
        return np.full(starts.shape, len(self))

    def about(self, block_size: int) -> str:
        """Say what is not read with such windows; empty if all is."""
        return ""

    def tokens_in_a_pass(self, block_size: int) -> int:
        """Return how many tokens, padding among them, one pass reads."""
        return len(self)

    def check_tokenizer(self, fingerprint: str) -> None:
        """Refuse a tokenizer other than the one that made the ids.

        Raises:
            UserError: if the fingerprints differ.
        """
        for part in self.parts:
            if fingerprint != part.header.tokenizer:
                raise UserError(
                    f"the tokenizer {fingerprint[:12]} is not the one {part.path} was made with "
                    f"({part.header.tokenizer[:12]}); prepare the text again with this tokenizer"
                )

    def verify(self) -> None:
        """Read all shards and compare their hashes with the header's.

        Raises:
            UserError: if a byte has changed, naming the shard.
        """
        for part in self.parts:
            for file, shard in part.files():
                check_hash(file, shard)

    def verify_if_cheap(self) -> None:
        """Compare the hashes of the shards that are small together or may have changed.

        All are read where they have less than `VERIFY_BELOW` bytes together; of more, only those
        written after their header, which is written last. So an edit of any file is found, and
        only the decay of a disk in a large one is left to `verify`.

        Raises:
            UserError: if a byte has changed, naming the shard.
        """
        for part in self.parts:
            size = len(part) * part.tokens.dtype.itemsize
            written = part.path.stat().st_mtime_ns
            for file, shard in part.files():
                if size < VERIFY_BELOW or file.stat().st_mtime_ns > written:
                    check_hash(file, shard)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle as the path: a worker process maps the file itself instead of copying it."""
        return type(self), (self.path,)


def dtype_for(vocab_size: int) -> np.dtype[Any]:
    """Return the smallest id type: two bytes up to 65,536 tokens, then four."""
    if vocab_size <= 1 << 16:
        return np.dtype("<u2")
    if vocab_size <= 1 << 32:
        return np.dtype("<u4")
    raise UserError(f"a vocabulary of {vocab_size} tokens is too large; the most is {1 << 32}")


def marks_path(header: Path) -> Path:
    """Return the header of the marks of a row: `train-marks.json` for `train.json`."""
    return header.with_name(f"{header.stem}-marks.json")


def shard_path(header: Path, number: int) -> Path:
    """Return where a shard lies: `train-00003.tokens` for `train.json` and 3."""
    return header.with_name(f"{header.stem}-{number:05d}.tokens")


def check_size(path: Path, expected: int) -> None:
    """Refuse a shard that is missing or has not as many bytes as it should."""
    if not path.is_file():
        raise _damaged(path, "it is missing")
    if (size := path.stat().st_size) != expected:
        raise _damaged(path, f"its header promises {expected} bytes, it has {size}")


def check_hash(path: Path, shard: Shard) -> Any:
    """Refuse a shard in which a byte has changed; return the hash, which takes more bytes."""
    try:
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256")
    except OSError as error:
        raise _damaged(path, f"it cannot be read ({error.strerror or error})") from error
    if (said := found.hexdigest()) != shard.sha256:
        raise _damaged(path, f"its sha256 is {said[:12]}…, its header says {shard.sha256[:12]}…")
    return found


def _damaged(path: Path, reason: str) -> UserError:
    return UserError(f"{path} is damaged: {reason}; delete its folder and prepare again")


def read_header(path: Path) -> Header:
    """Return what a header says.

    Raises:
        UserError: if it is missing, damaged or of another version.
    """
    if not path.is_file():
        raise UserError(f"there is no {path}; make it with `gpt2lib prepare`")
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        version = values["format"]
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} is not a token file's header; prepare again") from error
    if version != FORMAT:
        raise UserError(f"{path} has format {version}, this version reads {FORMAT}; prepare again")
    try:
        shards = tuple(Shard(**shard) for shard in values.pop("shards"))
        header = Header(**values, shards=shards)
        _check_sound(header)
    except (KeyError, TypeError) as error:
        raise UserError(f"{path} is damaged; delete its folder and prepare again") from error
    return header


def _check_sound(header: Header) -> None:
    """Raise a TypeError unless all values have their types and the sizes of the shards add up."""
    kinds = {"int": int, "str": str, "tuple[Shard, ...]": tuple}
    parts: list[Header | Shard] = [header, *header.shards]
    for part in parts:
        for field in dataclasses.fields(part):
            if type(getattr(part, field.name)) is not kinds[str(field.type)]:
                raise TypeError(field.name)
    sizes = [shard.n_tokens for shard in header.shards]
    if header.dtype not in _DTYPES or not sizes or min(sizes) < 1 or sum(sizes) != header.n_tokens:
        raise TypeError("dtype or sizes")
