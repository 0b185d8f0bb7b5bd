"""Byte-level byte-pair encoding, written to be read.

    training:  text → pre-tokens → bytes → count pairs → merge the most frequent one → count again
    encoding:  text → pre-tokens → bytes → the merges in the order of learning → ids

What was never seen stays bytes, so there is no unknown token. Ids are laid out as GPT-2's: 256
bytes in the order of `byte_to_unicode`, one token for each merge, and last the end-of-text token.

`gpt2lib.tokenizer.fast` gives the same ids through the `tokenizers` library. (The two may differ
on code points that newer versions of Unicode assign, where their tables of letters differ.)

Reference: Sennrich et al. 2016, arXiv 1508.07909, section 3.2; Radford et al. 2019, section 2.2.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path

from gpt2lib.tokenizer import base, files
from gpt2lib.tokenizer.base import EOT, Tokenizer
from gpt2lib.tokenizer.merges import Pair, apply_merges, learn_merges
from gpt2lib.tokenizer.pretokenizer import (
    BYTES,
    LONGEST,
    byte_to_unicode,
    pretokenize,
    to_byte_ids,
    to_learn_from,
)
from gpt2lib.utils.errors import UserError

CACHED = 200_000  # pre-tokens; a cap on memory: natural text repeats far fewer than this


class BPE(Tokenizer):
    """A byte-level BPE: `BPE.train(documents, 1024)`, `encode`, `decode`, `save`.

    Attributes:
        merges: pairs of token ids in the order of learning.
        eot: id of `<|endoftext|>`, the last one.
        vocab_size: 256 bytes, the merges and the end-of-text token.
    """

    eot: int

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
        base.check_vocab_size(vocab_size)
        # Equal pre-tokens are merged alike, so it is enough to know how often each occurs.
        counted = Counter(p for text in documents for p in to_learn_from(base.check_text(text)))
        base.check_not_empty(len(counted))
        n_merges = vocab_size - len(BYTES) - 1
        return base.warn_if_short(cls(learn_merges(counted, n_merges, min_frequency)), vocab_size)

    def encode(self, text: str, allow_special: bool = False) -> list[int]:
        """Return the ids of a text; `<|endoftext|>` in it is the token `eot` only if allowed."""
        parts = base.check_text(text).split(EOT) if allow_special else [base.check_text(text)]
        ids: list[int] = []
        for i, part in enumerate(parts):
            if i:
                ids.append(self.eot)
            for pretoken in pretokenize(part):
                ids.extend(self._merged(pretoken))
        return ids

    def _merged(self, pretoken: str) -> list[int]:  # a text repeats them: merge each once
        if len(pretoken) > LONGEST:  # will not come again, and fills the memory
            return apply_merges(to_byte_ids(pretoken), self._ranks)
        if pretoken not in self._cache:
            if len(self._cache) >= CACHED:
                self._cache.clear()
            self._cache[pretoken] = apply_merges(to_byte_ids(pretoken), self._ranks)
        return self._cache[pretoken]

    def symbols(self) -> list[str]:
        """Return each token as it is written in vocab.json, in the order of the ids."""
        visible = byte_to_unicode()
        return ["".join(visible[byte] for byte in token) for token in self._bytes[:-1]] + [EOT]

    @cached_property
    def fingerprint(self) -> str:
        """Return the sha256 of the vocabulary and its merges."""
        return base.digest([self.symbols(), self.merges, self.eot, "gpt2"])

    def save(self, folder: Path | str, model_max_length: int | None = None) -> None:
        """Write vocab.json, merges.txt and the files that transformers reads."""
        vocab = {symbol: token for token, symbol in enumerate(self.symbols())}
        inner = files.pipeline(vocab, self.merges, EOT)
        config = {"bos_token": EOT, "eos_token": EOT}
        files.write(Path(folder), vocab, self.merges, inner, config, model_max_length)
