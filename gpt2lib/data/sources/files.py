"""Files: which ones a path means, and their bytes and characters, compressed or not.

They are read a part at a time, so the memory that is needed does not grow with them. What cannot
be found or read, or is damaged, is a `UserError` that names the file.
"""

from __future__ import annotations

import encodings
import glob
import hashlib
import io
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import IO, Any

from gpt2lib.data.sources.corpus import first_line
from gpt2lib.utils.errors import UserError, nearest
from gpt2lib.utils.files import expand

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
PART = 1 << 20  # bytes or characters


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
        # As in a glob, what is hidden is not meant: editors keep copies of the text there.
        found = [p for p in path.rglob("*") if not _is_hidden(p.relative_to(path))]
        found = sorted(p for p in found if kind_of(p) in SUFFIXES and p.is_file())
        if not found:
            raise UserError(
                f"the folder {source} has no {', '.join(SUFFIXES[:-1])} or {SUFFIXES[-1]} files; "
                f"give a glob for other names, such as '{source.rstrip('/')}/**/*.tex'"
            )
        return found
    if glob.has_magic(source):
        found = [Path(p) for p in glob.glob(str(path), recursive=True)]  # noqa: PTH207
        found = sorted(p for p in found if p.is_file())
        if not found:
            raise UserError(f"no file matches {source!r}; in a glob, ** goes into all folders")
        return found
    raise UserError(_missing(source, path))


def _is_hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)


def _missing(source: str, path: Path) -> str:
    """Say which part of a path is missing, and what is there instead."""
    parent, name = path.parent, path.name
    while not parent.is_dir():
        parent, name = parent.parent, parent.name
    hint = nearest(name, sorted(p.name for p in parent.iterdir()))
    missing = "" if parent == path.parent else f" ({parent / name} does not exist)"
    return f"there is no file, folder or corpus {source!r}{missing}{hint}"


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

            yield pa.CompressedInputStream(pa.PythonFile(raw, "r"), compression)


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
    """A file that knows how many of its bytes were read."""

    def __init__(self, file: IO[bytes]) -> None:
        self.file, self.n_read = file, 0

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        data = self.file.read(size)
        self.n_read += len(data)
        return data


@contextmanager
def open_text(path: Path, encoding: str = "utf-8") -> Iterator[IO[str]]:
    r"""Open a file as text. Line ends are kept as they are, and only \n ends a line.

    A byte order mark at the start is not text and is dropped.

    Raises:
        UserError: if the file is not in that encoding, naming the first byte that is wrong.
    """
    _check_encoding(encoding)
    utf8 = encoding.lower().replace("_", "-") in ("utf-8", "utf8")
    with open_bytes(path) as file:
        counted: Any = _Counted(file)
        try:
            yield io.TextIOWrapper(counted, "utf-8-sig" if utf8 else encoding, newline="\n")
        except UnicodeDecodeError as error:
            # What the decoder was given last ends where the file has been read to.
            offset = counted.n_read - len(error.object) + error.start
            raise UserError(
                f"{path} is not {encoding}: byte 0x{error.object[error.start]:02x} at offset "
                f"{offset}; {_way_out(path)}"
            ) from error
        except UnicodeError as error:  # codecs that are no encodings of text files: "idna"
            raise UserError(
                f"{path} cannot be read as {encoding}: {error}; {_way_out(path)}"
            ) from error


def text_parts(path: Path, encoding: str = "utf-8") -> Iterator[str]:
    """Iterate over the text of a file, about a million characters at a time, none empty."""
    with open_text(path, encoding) as file:
        while text := file.read(PART):
            yield text


def text_documents(path: Path, encoding: str) -> Iterator[Iterable[str]]:
    """Iterate over the one document of a text file, or none; most is read only if it is wanted."""
    parts = text_parts(path, encoding)
    first = next(parts, None)
    if first is not None:
        yield chain((first,), parts)


def read_text(path: Path, encoding: str = "utf-8") -> str:
    """Return the text of a file; see `open_text`."""
    return "".join(text_parts(path, encoding))


def _check_encoding(encoding: str) -> None:
    """Refuse an encoding that Python does not have.

    Python's own table is asked, because an installed package may register a codec that answers
    to every name and reads UTF-8: a dependency of the plays' package does.
    """
    codec = encodings.search_function(encoding.lower())
    make = codec.incrementaldecoder if codec else None
    if make is None or not getattr(codec, "_is_text_encoding", True):
        raise UserError(
            f"unknown encoding {encoding!r}; Python's names are utf-8, utf-16, latin-1, cp1252 "
            "and so on"
        )


def _way_out(path: Path) -> str:
    with open_bytes(path) as file:
        head = file.read(4096)
    if head[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return "it begins like UTF-16: try --data.encoding utf-16"
    if b"\0" in head:
        return "it looks like a binary file; give a text file"
    return "give its encoding, for example --data.encoding latin-1"
