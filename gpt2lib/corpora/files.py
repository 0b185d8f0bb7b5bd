"""Text files as documents: one file, a glob, or a folder."""

from __future__ import annotations

import encodings
import glob
import hashlib
from collections.abc import Sequence
from pathlib import Path

from gpt2lib.corpora.base import Corpus, digest, split_reader
from gpt2lib.errors import UserError, nearest
from gpt2lib.storage import expand

TEXT_SUFFIXES = (".txt", ".md")
"""What counts as a text file in a folder; a file or a glob may have any name."""
_BOM = b"\xef\xbb\xbf"


def corpus_from_files(
    paths: Sequence[Path], *, name: str, encoding: str = "utf-8", val_fraction: float = 0.1
) -> Corpus:
    """Make a corpus of text files; each file is a document. Empty files are left out.

    Line ends are kept as they are. A byte order mark at the start is not text and is dropped.

    Raises:
        UserError: if all files are empty. Reading raises it for a file in another encoding.
    """
    kept = [path for path in paths if path.stat().st_size > 0]
    if not kept:
        what = "is empty" if len(paths) == 1 else f"has {len(paths)} files, all empty"
        raise UserError(f"{name} {what} (0 bytes); give a file with text")
    hashes = [_sha256(path) for path in kept]
    return Corpus(
        name=name,
        fingerprint=digest("files", encoding, *hashes),
        licence="the user's own text",
        origin=", ".join(path.name for path in kept[:3]) + (", …" if len(kept) > 3 else ""),
        read=split_reader(
            lambda: len(kept),
            lambda at: (read_text(kept[i], encoding) for i in at),
            val_fraction,
        ),
        n_bytes=sum(path.stat().st_size for path in kept),
    )


def find_files(source: str) -> list[Path]:
    """Return the text files that a path or a glob names, sorted.

    Raises:
        UserError: if there are none, naming the nearest path that exists.
    """
    path = expand(source)
    if path.is_file():
        return [path]
    if path.is_dir():
        found = [p for p in path.rglob("*") if p.suffix.lower() in TEXT_SUFFIXES and p.is_file()]
        if not found:
            raise UserError(
                f"the folder {source} has no {' or '.join(TEXT_SUFFIXES)} files; give a glob for "
                f"other names, such as '{source.rstrip('/')}/**/*.tex'"
            )
        return sorted(found)
    if glob.has_magic(source):
        found = [Path(p) for p in glob.glob(str(path), recursive=True)]  # noqa: PTH207
        found = sorted(p for p in found if p.is_file())
        if not found:
            raise UserError(f"no file matches {source!r}; in a glob, ** goes into all folders")
        return found
    raise UserError(_missing(source, path))


def read_text(path: Path, encoding: str = "utf-8") -> str:
    """Return the text of a file.

    Raises:
        UserError: if it is not in that encoding, naming the first byte that is wrong, or if there
            is no such encoding.
    """
    _check_encoding(encoding)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from error
    skipped = len(_BOM) if data.startswith(_BOM) and _is_utf8(encoding) else 0
    try:
        return data[skipped:].decode(encoding)
    except UnicodeDecodeError as error:
        offset = error.start + skipped
        raise UserError(
            f"{path} is not {encoding}: byte 0x{data[offset]:02x} at offset {offset}; "
            f"{_way_out(data)}"
        ) from error
    except UnicodeError as error:  # codecs that are no encodings of text files, such as "idna"
        raise UserError(
            f"{path} cannot be read as {encoding}: {error}; {_way_out(data)}"
        ) from error


def _check_encoding(encoding: str) -> None:
    """Refuse an encoding that Python does not have.

    Python's own table is asked, because an installed package may register a codec that answers
    to every name and reads UTF-8: a dependency of the plays' package does.
    """
    codec = encodings.search_function(encoding.lower())
    if codec is None or not getattr(codec, "_is_text_encoding", True):
        raise UserError(
            f"unknown encoding {encoding!r}; Python's names are utf-8, utf-16, latin-1, cp1252 "
            "and so on"
        )


def _is_utf8(encoding: str) -> bool:
    return encoding.lower().replace("_", "-") in ("utf-8", "utf8")


def _way_out(data: bytes) -> str:
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return "it begins like UTF-16: try --data.encoding utf-16"
    if b"\0" in data[:4096]:
        return "it looks like a binary file; give a text file"
    return "give its encoding, for example --data.encoding latin-1"


def _missing(source: str, path: Path) -> str:
    """Say which part of a path is missing, and what is there instead."""
    parent, name = path.parent, path.name
    while not parent.is_dir():
        parent, name = parent.parent, parent.name
    hint = nearest(name, sorted(p.name for p in parent.iterdir()))
    missing = "" if parent == path.parent else f" ({parent / name} does not exist)"
    return f"there is no file, folder or corpus {source!r}{missing}{hint}"


def _sha256(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from error
