"""Files: which ones a path means, and their bytes and characters, compressed or not.

They are read a part at a time, so the memory that is needed does not grow with them. What cannot
be found or read, or is damaged, is a `UserError` that names the file.
"""

from __future__ import annotations

import encodings
import glob
import hashlib
import io
import logging
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import chain, takewhile
from pathlib import Path
from typing import IO, Any

from gpt2lib.data.sources.bounds import Unpacking
from gpt2lib.data.sources.corpus import first_line
from gpt2lib.data.sources.folders import files_below, missing, readable, say_not_read
from gpt2lib.utils.errors import UserError
from gpt2lib.utils.files import cache_dir, expand

_log = logging.getLogger(__name__)

COMPRESSION = {".gz": "gzip", ".zst": "zstd", ".zstd": "zstd"}
"""Suffixes of compressed files, and what the compression is called."""
TABLES = {
    **dict.fromkeys((".jsonl", ".ndjson", ".json"), "json_lines"),
    **dict.fromkeys((".csv", ".tsv"), "csv_tables"),
    **dict.fromkeys((".parquet", ".arrow", ".feather"), "arrow_tables"),
}
"""Kinds of files whose rows are documents, and what reads them; any other file is one document."""
SUFFIXES = (".txt", ".md", *(suffix for suffix in TABLES if suffix != ".json"))
"""What is read of a folder, also compressed; a file or a glob may have any name."""
OURS = ("prepared.json", "requested.yaml", "model.safetensors", "study.yaml")
"""Files that make a folder one of our own: prepared tokens, a run, a model, a study."""
PART = 1 << 20  # bytes or characters
SAMPLE = 1 << 16  # bytes that tell in which encoding a file is
MOST_ZEROS = 0.1
"""Share of U+0000 above which a file is no text; half of the bytes of UTF-16 may be zeros."""


def kind_of(path: Path) -> str:
    """Return the suffix that says what a file holds, without the one of its compression."""
    compressed = path.suffix.lower() in COMPRESSION
    return Path(path.stem if compressed else path.name).suffix.lower()


def is_encoded(path: Path) -> bool:
    """Whether a file's bytes stand for characters in some encoding."""
    return TABLES.get(kind_of(path)) != "arrow_tables"


def text_size(paths: Sequence[Path]) -> int | None:
    """Return the size of files, if it is about that of their text."""
    packed = any(
        path.suffix.lower() in COMPRESSION or kind_of(path) in (".parquet", ".feather")
        for path in paths
    )
    return None if packed else sum(path.stat().st_size for path in paths)


def find_files(source: str) -> list[Path]:
    """Return the files that a path or a glob names, sorted; if none, say what is there instead."""
    path = expand(source)
    if path.is_file():
        return [path]
    if path.is_dir():
        found = sorted(_not_ours(list(files_below(path, lambda p: kind_of(p) in SUFFIXES)), path))
        if not found:
            raise UserError(
                f"the folder {source} has no {', '.join(SUFFIXES[:-1])} or {SUFFIXES[-1]} files; "
                f"give a glob for other names, such as '{source.rstrip('/')}/**/*.tex'"
            )
        return found
    if glob.has_magic(source):
        found = [Path(p) for p in glob.glob(str(path), recursive=True)]  # noqa: PTH207
        left: list[str] = []
        found = sorted(readable(found, left))
        say_not_read(source, left)
        if glob.has_magic(path.name):  # what is called by its name is meant
            plain = takewhile(lambda part: not glob.has_magic(part), path.parts)
            found = _not_ours(found, Path(*plain))
        if not found:
            raise UserError(f"no file matches {source!r}; in a glob, ** goes into all folders")
        return found
    raise UserError(missing(source, path))


def _not_ours(paths: Sequence[Path], root: Path) -> list[Path]:
    """Leave out what lies in a run, a cache or a model below a folder: its text is made of text."""
    own = {p.parent for p in root.rglob("*") if p.name in OURS and p.parent != root}
    cache = cache_dir().resolve()
    own |= {cache} if root.resolve() in cache.parents else set()
    kept = [p for p in paths if own.isdisjoint(p.parents) and own.isdisjoint(p.resolve().parents)]
    if left_out := len(paths) - len(kept):
        _log.info(
            "%d of %d files in %s lie in runs, models or caches and are no text to learn from; "
            "name them to have them read",
            *(left_out, len(paths), root),
        )
    return kept


@contextmanager
def clear_errors(path: Path, kind: type[Exception] = OSError) -> Iterator[None]:
    """Turn what the system raises about a file, or a reader as another `kind`, into one line."""
    try:
        yield
    except PermissionError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from error
    except (OSError, kind) as error:
        suffix = kind_of(path).lstrip(".")
        packed = path.suffix.lower() in COMPRESSION
        what = COMPRESSION.get(path.suffix.lower(), suffix)
        way_out = f"; it is damaged or no {what} file" if packed or suffix else ""
        raise UserError(f"cannot read {path}: {first_line(error)}{way_out}") from error


def sha256(path: Path) -> str:
    """Return the sha256 of a file's bytes, as they are on the disk."""
    with clear_errors(path), path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def open_bytes(path: Path) -> Iterator[IO[bytes]]:
    """Open a file to be read from its start to its end, decompressed."""
    compression = COMPRESSION.get(path.suffix.lower())
    with clear_errors(path), path.open("rb") as raw:
        if compression is None:
            yield raw
        else:
            import pyarrow as pa

            packed: Any = pa.CompressedInputStream(pa.PythonFile(raw, "r"), compression)
            unpacking: Any = Unpacking(packed, path)
            yield unpacking


@contextmanager
def seekable(path: Path) -> Iterator[IO[bytes]]:
    """Open a file to be read at any position; a compressed one is unpacked to the disk."""
    with open_bytes(path) as file:
        if path.suffix.lower() not in COMPRESSION:
            yield file
            return
        with tempfile.TemporaryFile() as unpacked:
            while data := file.read(PART):
                unpacked.write(data)
            unpacked.seek(0)
            yield unpacked


class _Counted(io.RawIOBase):
    """A file that knows how many of its bytes were read, and drops a mark at its start."""

    def __init__(self, file: IO[bytes], mark: bytes) -> None:
        head = file.read(len(mark))
        self.file, self.n_read = file, len(head) * (head == mark)
        self.pending = b"" if head == mark else head

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        data, self.pending = self.pending or self.file.read(size), b""
        self.n_read += len(data)
        return data


@contextmanager
def open_text(path: Path, encoding: str = "utf-8", errors: str = "strict") -> Iterator[IO[str]]:
    r"""Open a file as text. Line ends are kept as they are, and only \n ends a line.

    A byte order mark at the start is not text and is dropped.

    Raises:
        UserError: if the file is not in that encoding, naming the first byte that is wrong; with
            the errors replace or skip such bytes become U+FFFD or nothing.
    """
    mark = check_encoding(encoding)
    with open_bytes(path) as file:
        counted: Any = _Counted(file, mark)
        handler = "ignore" if errors == "skip" else errors
        try:
            yield io.TextIOWrapper(counted, encoding, handler, newline="\n")
        except UnicodeDecodeError as error:
            # What the decoder was given last ends where the file has been read to.
            offset = counted.n_read - len(error.object) + error.start
            raise UserError(
                f"{path} is not {encoding}: byte 0x{error.object[error.start]:02x} at offset "
                f"{offset}; {_way_out(path, encoding, offset)}"
            ) from error
        except UnicodeError as error:  # codecs that are no encodings of text files: "idna"
            raise UserError(
                f"{path} cannot be read as {encoding}: {error}; {_way_out(path, encoding, 0)}"
            ) from error


def text_parts(path: Path, encoding: str = "utf-8", errors: str = "strict") -> Iterator[str]:
    """Iterate over the text of a file, about a million characters at a time, none empty."""
    with open_text(path, encoding, errors) as file:
        while text := file.read(PART):
            yield text


def text_documents(path: Path, encoding: str, errors: str = "strict") -> Iterator[Iterable[str]]:
    """Iterate over the one document of a text file, or none; most is read only if it is wanted.

    Raises:
        UserError: if it is a tar archive, or much of it is U+0000: whatever it is, it is no text.
    """
    parts = text_parts(path, encoding, errors)
    first = next(parts, None)
    if first is None:
        return
    if first[257:262] == "ustar" or first.count("\0") > len(first) * MOST_ZEROS:
        raise UserError(f"{path} is no text: {_way_out(path, encoding, 0)}")
    yield chain((first,), parts)


def say_errors(path: Path, encoding: str, errors: str) -> None:
    """Log how many bytes of a file are no text, where they are not refused."""
    lengths = [sum(map(len, text_parts(path, encoding, e))) for e in ("replace", "skip")]
    said = "data.encoding_errors is %s: %s has %d errors in %s"
    _log.warning(said, errors, path, lengths[0] - lengths[1], encoding)


def read_text(path: Path, encoding: str = "utf-8") -> str:
    """Return the text of a file; see `open_text`."""
    return "".join(text_parts(path, encoding))


def check_encoding(encoding: str) -> bytes:
    """Refuse an encoding that Python does not have; return its byte order mark, or nothing.

    Python's own table is asked, because an installed package may register a codec that answers
    to every name and reads UTF-8: a dependency of the plays' package does.
    """
    codec = encodings.search_function(encoding.lower())
    make = codec.incrementaldecoder if codec else None
    if codec is None or make is None or not getattr(codec, "_is_text_encoding", True):
        raise UserError(
            f"unknown encoding {encoding!r}; Python's names are utf-8, utf-16, latin-1, cp1252 "
            "and so on"
        )
    try:  # a codec that writes a mark by itself also drops it
        return b"" if codec.encode("")[0] else codec.encode("\ufeff")[0]
    except UnicodeError:
        return b""


def _way_out(path: Path, encoding: str, offset: int) -> str:
    """Say what a file that is no text in some encoding probably is, and what to do."""
    from gpt2lib.data.sources.decoding import way_out

    with open_bytes(path) as file:
        head = near = file.read(SAMPLE)
        start = 0
        while near and start + len(near) <= offset:  # a compressed file can only be read through
            start, near = start + len(near), file.read(PART)
    first = max(0, offset - start - SAMPLE // 2)
    return way_out(head, near[first : first + SAMPLE], offset - start - first, encoding, path.name)
