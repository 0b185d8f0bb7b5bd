"""The same byte-level BPE through the `tokenizers` library, for text in megabytes.

`FastBPE` gives the ids of `BPE` for the same merges on all cores, and also reads the byte-level
BPE of any transformers checkpoint, whatever its layout of ids.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from functools import cached_property, partial
from itertools import takewhile
from pathlib import Path
from threading import Event
from typing import Any

import tokenizers

from gpt2lib.tokenizer import base, files
from gpt2lib.tokenizer.base import EOT, Tokenizer
from gpt2lib.tokenizer.bpe import BPE
from gpt2lib.tokenizer.merges import Pair
from gpt2lib.tokenizer.pretokenizer import byte_to_unicode, has_stretch, to_learn_from
from gpt2lib.utils.errors import UserError
from gpt2lib.utils.process import interruptible

CHUNKS = 256  # encoded in one call, to bound memory
QUICK = 1 << 19  # characters that are encoded before a Ctrl-C could be missed
STRIPPING = ("single_word", "lstrip", "rstrip")
CONTENT = ("vocab", "merges", "dropout")


class FastBPE(Tokenizer):
    """A byte-level BPE on top of a `tokenizers.Tokenizer`.

    Attributes:
        eot: id of the end-of-text token (for a transformers folder, of its eos token).
        vocab_size: the highest id plus one.
        merges: pairs of token ids in the order of learning.
    """

    def __init__(
        self,
        inner: Any,
        eot: int | None,
        config: dict[str, Any] | None = None,
        where: Path = Path(),
    ) -> None:
        """Take a `tokenizers.Tokenizer` over.

        Args:
            inner: its model must be a byte-level BPE.
            eot: id of the end-of-text token.
            config: what tokenizer_config.json says, kept for `save`.
            where: the file it came from, for messages.

        Raises:
            UserError: if it is another kind of tokenizer.
        """
        inner.no_truncation()  # files may ask for these, and text would be lost or gained
        inner.no_padding()
        self._parsed: dict[str, Any] = json.loads(inner.to_str())
        model = self._parsed["model"]
        if model["type"] != "BPE" or '"ByteLevel"' not in json.dumps(self._parsed["pre_tokenizer"]):
            raise UserError(
                f"{where} holds a {model['type']} tokenizer that does not work on bytes; "
                "only byte-level BPE, as GPT-2's, can be loaded"
            )
        inner.model.dropout = None  # a dropout of merges would give other ids at each call
        inner.encode_special_tokens = True  # i.e. spell them like other text
        self._inner, self._config, self.eot = inner, dict(config or {}), eot
        self._vocab = files.check_vocab(model["vocab"], where)
        self._added = {token["content"]: token["id"] for token in self._parsed["added_tokens"]}
        self.vocab_size = max([*self._vocab.values(), *self._added.values()]) + 1
        self.merges: list[Pair] = [(self._vocab[a], self._vocab[b]) for a, b in model["merges"]]

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle for worker processes: made anew there, so that special tokens stay text."""
        return FastBPE, (self._inner, self.eot, self._config)

    def readable(self) -> BPE:
        """Return the readable form.

        Raises:
            UserError: if the ids or the pipeline are not laid out as GPT-2's.
        """
        with suppress(UserError):  # of merges that are not in the order of their ids
            readable = BPE(self.merges)
            if readable.fingerprint == self.fingerprint:
                return readable
        raise UserError(
            f"this tokenizer has another layout than GPT-2's (bytes, merges, {EOT}); its fast form "
            "is the only one"
        )

    @cached_property
    def special(self) -> dict[str, int]:
        """The special tokens: those added, and the end-of-text token wherever it stands."""
        return self._added | {
            symbol: token
            for symbol, token in self._vocab.items()
            if token == self.eot and token not in self._added.values()
        }

    def encode(self, text: str, allow_special: bool = False) -> list[int]:
        """Return the ids of a text."""
        return self.encode_batch([text], allow_special)[0]

    def encode_batch(self, texts: Sequence[str], allow_special: bool = False) -> list[list[int]]:
        """Return the ids of each text; the work is spread over the processor's cores."""
        cut = base.chunks if self.encodes_chunks else lambda text: iter([text])
        parts = [(i, part) for i, text in enumerate(texts) for part in cut(base.check_text(text))]
        ids: list[list[int]] = [[] for _ in texts]
        inner = self._with_special if allow_special else self._inner
        for start in range(0, len(parts), CHUNKS):
            group = parts[start : start + CHUNKS]
            texts = [part for _, part in group]
            call = partial(inner.encode_batch_fast, texts, add_special_tokens=False)
            try:
                encodings = interruptible(call) if sum(map(len, texts)) > QUICK else call()
            except BaseException as error:  # a panic of the library is no Exception
                if type(error).__name__ != "PanicException":
                    raise
                raise UserError(f"this tokenizer cannot split the text: {error}") from error
            for (i, _), encoding in zip(group, encodings, strict=True):
                ids[i].extend(encoding.ids)
        return ids

    @cached_property
    def _with_special(self) -> Any:
        """A second tokenizer that knows special tokens in the text; a switch would not be safe."""
        return tokenizers.Tokenizer.from_str(self._inner.to_str())

    @cached_property
    def _bytes(self) -> list[bytes]:
        byte = {character: byte for byte, character in byte_to_unicode().items()}
        table = [b""] * self.vocab_size
        for symbol, token in self._vocab.items():
            known = all(character in byte for character in symbol)
            table[token] = bytes(byte[c] for c in symbol) if known else symbol.encode("utf-8")
        for content, token in self._added.items():
            table[token] = content.encode("utf-8")
        return table

    @cached_property
    def encodes_chunks(self) -> bool:
        """Whether all is done as by GPT-2; the tokens of others may span two chunks."""
        pre, model = self._parsed["pre_tokenizer"], self._parsed["model"]
        return (
            pre["type"] == "ByteLevel"
            and not pre["add_prefix_space"]
            and pre.get("use_regex", True)
            and self._parsed["normalizer"] is None
            and not model.get("ignore_merges")
            and not model.get("continuing_subword_prefix")
            and not model.get("end_of_word_suffix")
            and list(self._added.values()) == ([] if self.eot is None else [self.eot])
            and not any(t[k] for t in self._parsed["added_tokens"] for k in STRIPPING)
        )

    @cached_property
    def fingerprint(self) -> str:
        """Return the sha256 of all that determines the ids; equal to that of the readable form."""
        symbols: list[str | None] = [None] * self.vocab_size
        for symbol, token in [*self._vocab.items(), *self._added.items()]:
            symbols[token] = symbol
        steps: Any = "gpt2"
        if not self.encodes_chunks:
            steps = [self._parsed[k] for k in ("added_tokens", "normalizer", "pre_tokenizer")]
            steps += [{k: v for k, v in self._parsed["model"].items() if k not in CONTENT}]
        return base.digest([symbols, self.merges, self.eot, steps])

    def save(self, folder: Path | str, model_max_length: int | None = None) -> None:
        """Write vocab.json, merges.txt and the files that transformers reads."""
        config = self._config
        if self.eot is not None:
            eos = next(written for written, token in self.special.items() if token == self.eot)
            config = {"bos_token": eos, **config, "eos_token": eos}
        vocab = {**self._vocab, **self._added}
        files.write(Path(folder), vocab, self.merges, self._inner, config, model_max_length)


def train_bpe(documents: Iterable[str], vocab_size: int, min_frequency: int = 2) -> FastBPE:
    """Learn a vocabulary of at most `vocab_size` tokens from documents, fast.

    The merges are those of `BPE.train`, ties included. A text that runs out of pairs occurring
    `min_frequency` times gives fewer tokens.

    Raises:
        UserError: for vocab_size below 257, documents without text, or a lone surrogate.
    """
    base.check_vocab_size(vocab_size)
    size, stopped = 0, Event()

    def parts() -> Iterator[str]:
        nonlocal size
        for text in takewhile(lambda _: not stopped.is_set(), documents):
            size += len(text)
            for part in base.chunks(base.check_text(text)):
                yield from to_learn_from(part) if has_stretch(part) else (part,)

    byte_level = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner: Any = tokenizers.Tokenizer(tokenizers.models.BPE())
    inner.pre_tokenizer = byte_level
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=vocab_size - 1,  # end-of-text is added last, as in GPT-2
        min_frequency=max(1, min_frequency),
        initial_alphabet=byte_level.alphabet(),
        special_tokens=[],
        show_progress=False,
    )
    interruptible(lambda: inner.train_from_iterator(parts(), trainer), stopped.set)
    base.check_not_empty(size)
    model = json.loads(inner.to_str())["model"]
    vocab = {**model["vocab"], EOT: len(model["vocab"])}
    merges = [(vocab[a], vocab[b]) for a, b in model["merges"]]
    made = FastBPE(files.pipeline(vocab, merges, EOT), vocab[EOT])
    return base.warn_if_short(made, vocab_size)
