"""Byte-level byte-pair encoding, written to be read.

A text is cut into chunks (words with the space before them, numbers, punctuation, white space),
each chunk is a row of bytes, and the pair of neighbouring tokens that is most frequent becomes a
new token, again and again. The learnt merges, replayed in their order, encode any text: what was
never seen falls back to bytes, so there is no unknown token.

Ids are laid out as GPT-2's: the 256 bytes in the order of `byte_to_unicode`, one token for each
merge in the order of learning, and last the end-of-text token.

`gpt2lib.tokenizer.fast` gives the same ids through the `tokenizers` library. (The two may differ
on code points that newer versions of Unicode assign, where their tables of letters differ.)

Reference: Sennrich et al. 2016, arXiv 1508.07909, section 3.2; Radford et al. 2019, section 2.2.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path

from gpt2lib.tokenizer import files
from gpt2lib.tokenizer.base import (
    EOT,
    check_ids,
    check_not_empty,
    check_text,
    check_vocab_size,
    warn_if_short,
)
from gpt2lib.tokenizer.chunks import BYTES, byte_to_unicode, split, to_byte_ids
from gpt2lib.tokenizer.merges import Pair, apply_merges, learn_merges
from gpt2lib.utils.errors import UserError

CACHED_CHUNKS = 200_000  # a cap on memory; natural text repeats far fewer chunks than this


class BPE:
    """A byte-level BPE: `BPE.train(documents, 1024)`, `encode`, `decode`, `save`, `BPE.load`.

    Attributes:
        merges: pairs of token ids in the order of learning.
        eot: id of `<|endoftext|>`, the last one.
        vocab_size: 256 bytes, the merges and the end-of-text token.
    """

    encodes_pieces = True

    def __init__(self, merges: Sequence[Pair]) -> None:
        self.merges = [(int(a), int(b)) for a, b in merges]
        self._bytes = list(BYTES)
        for token, (a, b) in enumerate(self.merges, start=len(BYTES)):
            if not (0 <= a < token and 0 <= b < token):
                raise UserError(f"merge {token - 256} joins tokens {a} and {b}, not made before it")
            self._bytes.append(self._bytes[a] + self._bytes[b])
        self._bytes.append(EOT.encode("ascii"))
        self.eot = len(self._bytes) - 1
        self.vocab_size = len(self._bytes)
        self._ranks = {pair: rank for rank, pair in enumerate(self.merges)}
        self._cache: dict[str, list[int]] = {}

    @classmethod
    def train(cls, documents: Iterable[str], vocab_size: int, min_frequency: int = 2) -> BPE:
        """Learn a vocabulary of at most `vocab_size` tokens from documents.

        A text that runs out of pairs occurring `min_frequency` times gives fewer tokens.

        Raises:
            UserError: for vocab_size below 257, documents without text, or a lone surrogate.
        """
        check_vocab_size(vocab_size)
        words = Counter(chunk for text in documents for chunk in split(check_text(text)))
        check_not_empty(len(words))
        n_merges = vocab_size - len(BYTES) - 1
        made = cls(learn_merges(words, n_merges, min_frequency))
        return warn_if_short(made, vocab_size)

    def encode(self, text: str, allow_special: bool = False) -> list[int]:
        """Return the ids of a text.

        Args:
            text: any text; `<|endoftext|>` in it is spelled like other text,
            allow_special: unless this is true: then it becomes the token `eot`.

        Raises:
            UserError: for a lone surrogate.
        """
        parts = check_text(text).split(EOT) if allow_special else [check_text(text)]
        ids = self._encode_ordinary(parts[0])
        for part in parts[1:]:
            ids.append(self.eot)
            ids.extend(self._encode_ordinary(part))
        return ids

    def _encode_ordinary(self, text: str) -> list[int]:
        ids: list[int] = []
        for chunk in split(text):
            if chunk not in self._cache:  # natural text repeats its words: merge each once
                if len(self._cache) >= CACHED_CHUNKS:
                    self._cache.clear()
                self._cache[chunk] = apply_merges(to_byte_ids(chunk), self._ranks)
            ids.extend(self._cache[chunk])
        return ids

    def encode_batch(self, texts: Sequence[str], allow_special: bool = False) -> list[list[int]]:
        """Return the ids of each text."""
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
        """Return the bytes of one token."""
        return self._bytes[check_ids([token], self.vocab_size)[0]]

    @property
    def name(self) -> str:
        """Return "gpt2" for GPT-2's own vocabulary, "bpe" for any other."""
        return files.name_of(self.fingerprint)

    @cached_property
    def fingerprint(self) -> str:
        """Return the sha256 of the vocabulary and its merges."""
        return files.fingerprint(self.symbols(), self.merges, self.eot)

    def symbols(self) -> list[str]:
        """Return each token as it is written in vocab.json, in the order of the ids."""
        visible = byte_to_unicode()
        written = ["".join(visible[byte] for byte in token) for token in self._bytes[:-1]]
        return [*written, EOT]

    def save(self, folder: Path | str, model_max_length: int | None = None) -> None:
        """Write vocab.json, merges.txt and the files that transformers reads.

        Args:
            folder: made if need be.
            model_max_length: the model's block size, if known.
        """
        files.write(Path(folder), self.symbols(), self.merges, model_max_length)

    @classmethod
    def load(cls, folder: Path | str) -> BPE:
        """Read vocab.json and merges.txt.

        Raises:
            UserError: if one is missing or garbled, or the ids are not laid out as GPT-2's.
        """
        vocab, merges = files.read(Path(folder))
        loaded = cls(merges)
        if loaded.symbols() != sorted(vocab, key=vocab.__getitem__):
            raise UserError(
                f"{folder}: the ids are not laid out as GPT-2's (bytes, merges, {EOT}); "
                "load_tokenizer() reads other layouts"
            )
        return loaded
