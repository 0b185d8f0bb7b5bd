"""Ten megabytes, and every code point of Unicode 14, against independent tokenizers."""

from __future__ import annotations

import random
import time
from collections.abc import Callable

import pytest
from tokenizer_reference import (
    EOT,
    assigned_in_unicode_14,
    tokenizers_gpt2,
    tokenizers_merges,
    transformers_gpt2,
)

from gpt2lib.tokenizer import BPE, gpt2_tokenizer, pretokenize, train_bpe

pytestmark = pytest.mark.slow

TEN_MB = 10_000_000


def natural_like(size: int) -> str:
    """Words with the frequencies of natural text (Zipf), of several scripts, and punctuation."""
    rng = random.Random(3)
    latin, others = (
        "abcdefghijklmnopqrstuvwxyz",
        ["àéïöü", "абвгд", "漢字仮名交文", "०१२३", "😀👍🏽🎉"],
    )
    letters = [latin] * 8 + others
    words = ["".join(rng.choices(rng.choice(letters), k=rng.randint(1, 9))) for _ in range(60_000)]
    weights = [1 / rank for rank in range(1, len(words) + 1)]
    ends = [" "] * 12 + [", ", ".\n", "\n\n\t", "  ", "'s ", f"{EOT}"]
    parts: list[str] = []
    length = 0
    while length < size:
        for word in rng.choices(words, weights, k=10_000):
            parts += [word, rng.choice(ends)]
        length = sum(len(part.encode()) for part in parts)
    return "".join(parts)


INPUTS: dict[str, Callable[[], str]] = {
    "natural": lambda: natural_like(TEN_MB),
    "one letter": lambda: "a" * TEN_MB,
    "no white space": lambda: "".join(random.Random(4).choices("acgtxyz", k=TEN_MB)),
    "white space only": lambda: " \n\t  "[:5] * (TEN_MB // 5),
    "digits": lambda: " ".join(map(str, range(TEN_MB // 8))),
    "CJK": lambda: "".join(random.Random(5).choices("天地玄黄宇宙洪荒,。", k=TEN_MB // 3)),
}
ONE_PRETOKEN = ("one letter", "no white space", "white space only")


@pytest.mark.parametrize("kind", INPUTS)
def test_ten_megabytes_have_the_ids_of_transformers(kind: str) -> None:
    text = INPUTS[kind]()
    expected = transformers_gpt2()(text)["input_ids"]
    tokenizer = gpt2_tokenizer()
    start = time.perf_counter()
    assert tokenizer.encode(text, allow_special=True) == expected
    fast = time.perf_counter() - start
    assert tokenizer.decode(expected) == text
    if kind in ONE_PRETOKEN:  # Python needs about a minute and 2 GB for a single pre-token of 10 MB
        text = text[: len(text) // 20]
        expected = tokenizer.encode(text, allow_special=True)
    start = time.perf_counter()
    assert tokenizer.readable().encode(text, allow_special=True) == expected
    print(f"\n{kind}: fast {fast:.1f} s, readable {time.perf_counter() - start:.1f} s")


def test_five_megabytes_to_4096_tokens_in_seconds() -> None:
    text = natural_like(5_000_000).replace(EOT, "\n")
    start = time.process_time()  # of this process: a busy machine does not matter
    fast = train_bpe([text], 4096)
    assert time.process_time() - start < 30
    readable = BPE.train([text], 4096)
    assert fast.vocab_size == 4096
    assert readable.fingerprint == fast.fingerprint
    symbols = readable.symbols()
    learnt = [[symbols[a], symbols[b]] for a, b in readable.merges]
    assert learnt == tokenizers_merges([text], 4096, 2)


def test_every_assigned_code_point_is_split_alike() -> None:
    split_theirs = tokenizers_gpt2().pre_tokenizer
    characters = sorted(assigned_in_unicode_14())
    for start in range(0, len(characters), 2000):
        some = characters[start : start + 2000]
        text = "".join(f"a{c}1{c} {c}!{c}\n" for c in some)
        spans = [span for _, span in split_theirs.pre_tokenize_str(text)]
        assert [text[a:b] for a, b in spans] == pretokenize(text)
