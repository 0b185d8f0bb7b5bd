"""Learning merges through the `tokenizers` library, for corpora in megabytes and more."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator

import tokenizers

from gpt2lib.tokenizer.base import (
    EOT,
    check_not_empty,
    check_text,
    check_vocab_size,
    warn_if_short,
)
from gpt2lib.tokenizer.chunks import pieces
from gpt2lib.tokenizer.fast import FastBPE, pipeline


def train_bpe(documents: Iterable[str], vocab_size: int, min_frequency: int = 2) -> FastBPE:
    """Learn a vocabulary of at most `vocab_size` tokens from documents, fast.

    The merges are those of `BPE.train`, ties included. A text that runs out of pairs occurring
    `min_frequency` times gives fewer tokens.

    Raises:
        UserError: for vocab_size below 257, documents without text, or a lone surrogate.
    """
    check_vocab_size(vocab_size)
    size = 0

    def parts() -> Iterator[str]:
        nonlocal size
        for text in documents:
            size += len(text)
            yield from pieces(check_text(text))

    byte_level = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner = tokenizers.Tokenizer(tokenizers.models.BPE())
    inner.pre_tokenizer = byte_level
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=vocab_size - 1,  # end-of-text is added last, as in GPT-2
        min_frequency=max(1, min_frequency),
        initial_alphabet=byte_level.alphabet(),
        special_tokens=[],
        show_progress=False,
    )
    inner.train_from_iterator(parts(), trainer)
    check_not_empty(size)
    model = json.loads(inner.to_str())["model"]
    merges = [(a, b) for a, b in model["merges"]]
    vocab = {**model["vocab"], EOT: len(model["vocab"])}
    made = FastBPE(pipeline(vocab, merges), vocab[EOT])
    return warn_if_short(made, vocab_size)
