"""What every tokenizer offers, and the checks that all of them share."""

from __future__ import annotations

import hashlib
import json
import logging
import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from gpt2lib.utils.errors import UserError

log = logging.getLogger(__name__)

EOT = "<|endoftext|>"
"""The end-of-text token: it stands between documents, never inside one."""
GPT2_FINGERPRINT = "dca0bda9d9ad5160c1b35c2d2f621cab95eadeb2fed5029221b4bf56039f9e59"
CHUNK = 1 << 16
"""Characters after which a long text is cut, so that chunks are encoded in parallel."""
CUT = re.compile(r"\S(?=[ \n])")
"""Where the pre-tokenizer always cuts: between a word and white space."""


class Tokenizer(ABC):
    """Text to token ids and back.

    Attributes:
        name: "bpe", "char" or "gpt2".
        vocab_size: ids run from 0 to vocab_size - 1.
        eot: the id of the end-of-text token, or None where there is none.
        fingerprint: sha256 of all that determines the ids; equal fingerprints, equal ids.
        encodes_chunks: whether the ids of a text are those of its `chunks`, joined.
    """

    vocab_size: int
    eot: int | None

    @cached_property
    def encodes_chunks(self) -> bool:
        return True

    @cached_property
    def _bytes(self) -> list[bytes]:  # what each token stands for
        raise NotImplementedError

    @cached_property
    @abstractmethod
    def fingerprint(self) -> str: ...

    @property
    def special(self) -> dict[str, int]:
        """The special tokens: what each is written as, and its id."""
        return {} if self.eot is None else {EOT: self.eot}

    @property
    def name(self) -> str:
        return "gpt2" if self.fingerprint == GPT2_FINGERPRINT else "bpe"

    @abstractmethod
    def encode(self, text: str, allow_special: bool = False) -> list[int]:
        """Return the ids of a text; special tokens written in it count only if allowed.

        Raises:
            UserError: for a lone surrogate, or a character without an id.
        """

    def encode_batch(self, texts: Sequence[str], allow_special: bool = False) -> list[list[int]]:
        """Return the ids of each of several texts."""
        return [self.encode(text, allow_special) for text in texts]

    def decode(self, ids: Iterable[int]) -> str:
        """Return the text: the tokens' bytes, joined and read as UTF-8.

        Bytes that are no whole character, as when a token holds half an emoji, become U+FFFD.

        Raises:
            UserError: for an id that is not in the vocabulary.
        """
        joined = b"".join(self._bytes[token] for token in check_ids(ids, self.vocab_size))
        return joined.decode("utf-8", errors="replace")

    def token_bytes(self, token: int) -> bytes:
        """Return the bytes that one token stands for."""
        return self._bytes[check_ids([token], self.vocab_size)[0]]

    @abstractmethod
    def save(self, folder: Path | str, model_max_length: int | None = None) -> None:
        """Write the tokenizer's files into a folder, which is made if need be.

        `model_max_length`, the model's block size, is noted for transformers.
        """


T = TypeVar("T", bound=Tokenizer)


def check_text(text: str) -> str:
    """Return the text if it can be written as UTF-8.

    Raises:
        UserError: for a lone surrogate, which is half of a character and has no bytes.
    """
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise UserError(
            f"character {error.start} of the text is U+{ord(text[error.start]):04X}, a lone "
            "surrogate, which has no UTF-8 bytes; read the text anew with its right encoding, or "
            "replace it with text.encode('utf-8', 'replace').decode()"
        ) from error
    return text


def chunks(text: str) -> Iterator[str]:
    """Cut a long text only where pre-tokenisation always cuts.

    No pre-token has white space after something else, and what follows such a place does not
    change the pre-tokens before it, so the chunks' ids, joined, are the ids of the whole.
    """
    start = 0
    while len(text) - start > CHUNK and (cut := CUT.search(text, start + CHUNK)):
        yield text[start : cut.end()]
        start = cut.end()
    yield text[start:]


def check_ids(ids: Iterable[int], vocab_size: int) -> list[int]:
    """Return the ids as a list of integers.

    Raises:
        UserError: for an id outside 0 … vocab_size - 1.
    """
    checked = [int(i) for i in ids]
    for i in checked:
        if not 0 <= i < vocab_size:
            raise UserError(
                f"token id {i} is not in this vocabulary of {vocab_size} tokens "
                f"(0 to {vocab_size - 1}); is this the tokenizer that the model was trained with?"
            )
    return checked


def digest(content: Any) -> str:
    """Return the sha256 of plain JSON content, written in one way only."""
    canonical = json.dumps(content, ensure_ascii=True, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode("ascii")).hexdigest()


def check_vocab_size(vocab_size: int) -> None:
    """Refuse a vocabulary that is too small for the bytes and the end-of-text token."""
    if vocab_size < 257:
        raise UserError(
            f"vocab_size {vocab_size} is too small: 256 bytes and the end-of-text token need 257; "
            "take 257 or more, or the character tokenizer"
        )


def check_not_empty(size: int) -> None:
    """Refuse to train on nothing."""
    if not size:
        raise UserError(
            "no text to train a tokenizer on: the documents hold 0 characters; check the source"
        )


def warn_if_short(made: T, vocab_size: int) -> T:
    """Say so when the text had too few repeated pairs; return the tokenizer."""
    if made.vocab_size < vocab_size:
        said = "the text has too few repeated pairs for %d tokens; the vocabulary has %d"
        log.warning(said, vocab_size, made.vocab_size)
    return made
