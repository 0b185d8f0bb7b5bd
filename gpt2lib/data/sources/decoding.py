"""From the bytes of a file, compressed or not, to characters, a chunk at a time."""

from __future__ import annotations

import codecs
import encodings
import hashlib
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import pyarrow as pa

from gpt2lib.data.sources.base import first_line
from gpt2lib.utils.errors import UserError

COMPRESSION = {".gz": "gzip", ".zst": "zstd", ".zstd": "zstd"}
"""Suffixes of compressed files, and what the compression is called."""
CHUNK = 1 << 20  # bytes
_BOM = b"\xef\xbb\xbf"


def kind_of(path: Path) -> str:
    """Return the suffix that says what a file holds, without the one of its compression."""
    compressed = path.suffix.lower() in COMPRESSION
    return Path(path.stem if compressed else path.name).suffix.lower()


@contextmanager
def clear_errors(path: Path) -> Iterator[None]:
    """Turn what the system and the readers raise about a file into one line.

    Raises:
        UserError: in place of theirs.
    """
    try:
        yield
    except PermissionError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from error
    except (OSError, pa.ArrowException, EOFError) as error:
        kind = kind_of(path).lstrip(".")
        packed = path.suffix.lower() in COMPRESSION
        what = COMPRESSION.get(path.suffix.lower(), kind)
        way_out = f"; it is damaged or no {what} file" if packed or kind else ""
        raise UserError(f"cannot read {path}: {first_line(error)}{way_out}") from error


def sha256(path: Path) -> str:
    """Return the sha256 of a file's bytes, as they are on the disk.

    Raises:
        UserError: if it cannot be read.
    """
    with clear_errors(path), path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def byte_chunks(path: Path) -> Iterator[bytes]:
    """Iterate over the bytes of a file, decompressed, about a megabyte at a time.

    Raises:
        UserError: if it cannot be read or is damaged.
    """
    with clear_errors(path), path.open("rb") as raw:
        compression = COMPRESSION.get(path.suffix.lower())
        file: Any = raw
        if compression is not None:
            file = pa.CompressedInputStream(pa.PythonFile(raw, "r"), compression)
        while data := file.read(CHUNK):
            yield data


@contextmanager
def seekable(path: Path) -> Iterator[IO[bytes]]:
    """Open a file that must be read at many places; a compressed one is unpacked to the disk.

    Raises:
        UserError: if it cannot be read or is damaged.
    """
    with clear_errors(path):
        if path.suffix.lower() not in COMPRESSION:
            with path.open("rb") as file:
                yield file
            return
        with tempfile.TemporaryFile() as unpacked:
            for data in byte_chunks(path):
                unpacked.write(data)
            unpacked.seek(0)
            yield unpacked


def text_chunks(path: Path, encoding: str = "utf-8") -> Iterator[str]:
    """Iterate over the text of a file, about a million characters at a time, none empty.

    Line ends are kept as they are. A byte order mark at the start is not text and is dropped.

    Raises:
        UserError: if the file is not in that encoding, naming the first byte that is wrong, or if
            there is no such encoding, or the file cannot be read.
    """
    decoder = _decoder(encoding)
    fed, head = 0, b""
    utf8 = encoding.lower().replace("_", "-") in ("utf-8", "utf8")
    chunks = byte_chunks(path)
    last = False
    while not last:
        data = next(chunks, b"")
        last = not data
        if not fed:
            head = data[:4096]
            fed = len(_BOM) if utf8 and data.startswith(_BOM) else 0
            data = data[fed:]
        try:
            text = decoder.decode(data, last)
        except UnicodeDecodeError as error:
            # The decoder may have kept the first bytes of a character from the chunk before.
            offset = fed + len(data) - len(error.object) + error.start
            raise UserError(
                f"{path} is not {encoding}: byte 0x{error.object[error.start]:02x} at offset "
                f"{offset}; {_way_out(head)}"
            ) from error
        except UnicodeError as error:  # codecs that are no encodings of text files: "idna"
            raise UserError(
                f"{path} cannot be read as {encoding}: {error}; {_way_out(head)}"
            ) from error
        fed += len(data)
        if text:
            yield text


def read_text(path: Path, encoding: str = "utf-8") -> str:
    """Return the text of a file; see `text_chunks`."""
    return "".join(text_chunks(path, encoding))


def lines(path: Path, encoding: str = "utf-8") -> Iterator[str]:
    """Iterate over the lines of a file, each with its newline; only \\n ends a line.

    Raises:
        UserError: as `text_chunks`.
    """
    begun: list[str] = []
    for chunk in text_chunks(path, encoding):
        first, *others = chunk.split("\n")
        begun.append(first)
        if others:
            yield "".join(begun) + "\n"
            for line in others[:-1]:
                yield line + "\n"
            begun = [others[-1]]
    if any(begun):
        yield "".join(begun)


def _decoder(encoding: str) -> codecs.IncrementalDecoder:
    """Make a decoder, or refuse an encoding that Python does not have.

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
    return make("strict")


def _way_out(head: bytes) -> str:
    if head[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return "it begins like UTF-16: try --data.encoding utf-16"
    if b"\0" in head:
        return "it looks like a binary file; give a text file"
    return "give its encoding, for example --data.encoding latin-1"
