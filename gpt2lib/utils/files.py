"""Files and folders that are whole or absent, and that prove it.

A folder is written under another name beside its place; every file is flushed to the disk, then
a manifest with the size and the sha256 of each is written last, and only then is the folder
renamed to its place. So a crash leaves either the old state or the new one. (No system call
swaps two folders everywhere: an old folder of the same name is first moved aside, and if the
power fails between the two renames, the next writer puts it back.)
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path, PureWindowsPath

from gpt2lib.utils.errors import UserError

MANIFEST = "manifest.json"
FORMAT = 1
LONGEST_NAME = 255
"""Bytes of a name on the file systems of Linux, macOS and Windows."""


def expand(path: str | Path) -> Path:
    """Return a path with `~` or `~name` at its start replaced by that user's home folder.

    Raises:
        UserError: if there is no such user, or it is too long for the name of a file: a text that
            was given in place of one.
    """
    for name in Path(path).parts:
        if (size := len(os.fsencode(name))) > LONGEST_NAME:
            raise UserError(
                f"{name[:40]!r}… cannot be a file or a folder: a name has at most {LONGEST_NAME} "
                f"bytes, and this one {size}"
            )
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise UserError(
            f"{path} begins with {Path(path).parts[0]}, but no such user has a home folder here; "
            "write the path out"
        ) from error


def printable(name: str) -> str:
    """Return a name that can be written as UTF-8; on a disk, names are any bytes."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def inside(folder: Path, name: str) -> Path:
    """Return the path of a file that some list says lies in a folder.

    Raises:
        UserError: if the name leads out of it, in the manner of any system.
    """
    parts = PureWindowsPath(name)  # which knows both slashes, and drives
    if parts.anchor or ".." in parts.parts:
        raise UserError(f"{name!r} leads out of {folder}, where it is said to lie; do not use it")
    return folder / name


def cache_dir() -> Path:
    """Return the folder for what can be made again: prepared tokens and downloads.

    `$GPT2LIB_CACHE`, or else `gpt2lib` in the system's cache folder. It may not exist yet.
    """
    if chosen := os.environ.get("GPT2LIB_CACHE"):
        return expand(chosen)
    base = os.environ.get("LOCALAPPDATA" if sys.platform == "win32" else "XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "gpt2lib"


def flush(path: Path) -> None:
    """Have the system write a file or a folder's entries to the disk (folders: POSIX only)."""
    if path.is_dir() and os.name == "nt":
        return
    descriptor = os.open(path, os.O_RDONLY if os.name != "nt" else os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sha256(path: Path) -> str:
    """Return the sha256 of a file, read in pieces."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def writing(what: str | Path, way_out: str = "") -> Iterator[None]:
    """Say it in one line when the disk refuses (full, read-only).

    Raises:
        UserError: in place of an OSError of the block.
    """
    try:
        yield
    except OSError as error:
        raise UserError(f"cannot write {what}: {error.strerror or error}{way_out}") from error


@contextmanager
def atomic_folder(target: Path) -> Iterator[Path]:
    """Give a temporary folder to fill; put it in the place of `target` when the block ends well.

    Raises:
        UserError: if the disk refuses. The old `target` is then untouched.
    """
    temporary = target.parent / f".{target.name}.tmp-{os.getpid()}"
    aside = target.parent / f".{target.name}.old-{os.getpid()}"
    try:
        with writing(target):
            clear_leftovers(target.parent, target.name)
            temporary.mkdir(parents=True)
            yield temporary
            _seal(temporary)
            if target.exists():
                target.rename(aside)
            temporary.rename(target)
            flush(target.parent)
    finally:
        if aside.exists() and not target.exists():
            aside.rename(target)
        shutil.rmtree(temporary, ignore_errors=True)
        shutil.rmtree(aside, ignore_errors=True)


def clear_leftovers(folder: Path, name: str | None = None) -> None:
    """Delete what killed writers left in a folder; put back what one had moved aside.

    Nobody else may write there meanwhile. With a name, only what they wrote under that one.
    """
    for path in sorted(folder.glob(".*")):
        left = re.fullmatch(r"\.(.+)\.(tmp|old|gone)-\d+", path.name)
        if left is None or name not in (None, left[1]):
            continue
        target = folder / left[1]
        if left[2] == "old" and not target.exists():
            path.rename(target)
        elif path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()


def remove_folder(folder: Path) -> None:
    """Delete a folder so that a crash leaves it whole or gone, never half of it."""
    clear_leftovers(folder.parent, folder.name)
    gone = folder.parent / f".{folder.name}.gone-{os.getpid()}"
    folder.rename(gone)
    shutil.rmtree(gone)


@contextmanager
def file_lock(path: Path, when_busy: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Hold a lock file; the system lets go of it when a process ends, however it ends.

    Where another process holds it, `when_busy` is called, and then the lock is waited for.
    """
    from filelock import FileLock, Timeout

    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        when_busy()
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _seal(folder: Path) -> None:
    """Flush every file and write the manifest that names them all."""
    entries = {}
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        flush(path)
        entry = {"size": path.stat().st_size, "sha256": sha256(path)}
        entries[path.relative_to(folder).as_posix()] = entry
    text, manifest = json.dumps({"format": FORMAT, "files": entries}, indent=1), folder / MANIFEST
    manifest.write_text(text, encoding="utf-8")
    flush(manifest)
    for path in [folder, *(p for p in folder.rglob("*") if p.is_dir())]:
        flush(path)


def verify(folder: Path) -> None:
    """Check every file of a sealed folder against its manifest.

    Raises:
        UserError: naming the first file that is missing, truncated or altered.
    """
    way_out = "use another copy of it"
    manifest = folder / MANIFEST
    if not manifest.is_file():
        raise UserError(f"{folder} is not complete: {MANIFEST} is missing; {way_out}")
    try:
        files = json.loads(manifest.read_text(encoding="utf-8"))["files"]
        entries = [(name, entry["size"], entry["sha256"]) for name, entry in files.items()]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise UserError(f"{manifest} cannot be read; {way_out}") from error
    for name, expected_size, expected_hash in entries:
        path = inside(folder, name)
        if not path.is_file():
            raise UserError(f"{folder} lacks {name}; {way_out}")
        if (size := path.stat().st_size) != expected_size:
            raise UserError(f"{path} has {size} bytes instead of {expected_size}; {way_out}")
        if sha256(path) != expected_hash:
            raise UserError(f"{path} was altered: its sha256 differs from {MANIFEST}; {way_out}")


def write_text(path: Path, text: str) -> None:
    """Write a text file in one move: whole, or as it was before.

    Raises:
        UserError: if the disk refuses. The old file is then untouched.
    """
    with writing(path):
        replace_text(path, text)


def replace_text(path: Path, text: str) -> None:
    """Write a text file as `write_text` does, for a caller that has more to say of an OSError."""
    temporary = path.with_name(f".{path.name}.tmp-{os.getpid()}")
    try:
        temporary.write_text(text, encoding="utf-8", newline="\n")
        flush(temporary)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
