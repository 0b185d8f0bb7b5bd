"""Rows with fields: which text becomes of them, and that only the answers are learned."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gpt2lib import data
from gpt2lib.cli import main
from gpt2lib.config import IGNORE, DataConfig
from gpt2lib.data import encode, packing, writer
from gpt2lib.data.packing import RowFile, pack
from gpt2lib.data.sources import load_corpus
from gpt2lib.data.sources.hf import corpus_from_dataset
from gpt2lib.data.sources.templates import shown, template_for
from gpt2lib.data.token_files import LAST, LEARNED
from gpt2lib.hub import load_tokenizer_for, resolve
from gpt2lib.tokenizer import train_bpe
from gpt2lib.training.evaluation import score
from gpt2lib.training.loop import train
from gpt2lib.utils.errors import UserError

pytestmark = pytest.mark.usefixtures("private_cache")
PAIRS = [
    {"prompt": f"{a} and {b} are ", "completion": f"{a + b}."} for a in range(7) for b in range(7)
]
TOKENIZER = train_bpe([row["prompt"] + row["completion"] for row in PAIRS], 280)


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def prepared(path: Path, template: str | None = "auto", **fields: Any) -> data.Prepared:
    config = DataConfig(source=str(path), template=template).replace(**fields)
    given = None if "tokenizer" in fields else TOKENIZER
    return data.prepare(config, progress=False, tokenizer=given)


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    return write(tmp_path / "pairs.jsonl", PAIRS)


# ── exact to the token ──────────────────────────────────────────────────────────────────────────

texts = st.text(st.characters(codec="utf-8", exclude_categories=["Cs"]), min_size=1, max_size=30)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(texts, texts), min_size=1, max_size=6), st.integers(4, 40))
def test_a_token_is_a_target_if_and_only_if_it_is_of_an_answer_or_ends_it(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, str]], extra: int
) -> None:
    folder = tmp_path_factory.mktemp("rows")
    path = write(folder / "a.jsonl", [{"q": q, "a": a, "n": 1} for q, a in rows])
    made = prepared(path, "Q:{q}\\n[[{a}]]!", val_fraction=0.0, cache=str(folder))
    encoded = made.tokenizer.encode
    ids, targets = [made.tokenizer.eot], [False]
    for q, a in rows:
        for part, learned in ((f"Q:{q}\n", False), (a, True), ("!", False)):
            ids += encoded(part)
            targets += [learned] * len(encoded(part))
        ids, targets = [*ids, made.tokenizer.eot], [*targets, False]  # "!" is not learned
    assert made.train.tokens.tolist() == ids
    assert (np.asarray(made.train.marks) & LEARNED > 0).tolist() == targets
    assert made.train.n_targets == sum(targets)
    longest = max(np.diff(np.flatnonzero(np.asarray(ids) == made.tokenizer.eot)))
    scored = [t for _, ts in data.eval_batches(made.train, int(longest) + extra, 3) for t in ts]
    wanted = [i for i, learned in zip(ids, targets, strict=True) if learned]
    assert [i for i in torch.cat(scored).tolist() if i != IGNORE] == wanted


def test_the_end_of_text_after_an_answer_is_learned(pairs: Path) -> None:
    made = prepared(pairs, val_fraction=0.0)
    marks, ids = np.asarray(made.train.marks), np.asarray(made.train.tokens)
    ends = np.flatnonzero(ids == made.tokenizer.eot)
    assert marks[ends].tolist() == [0] + [LEARNED | LAST] * len(PAIRS)
    learned = made.tokenizer.decode(ids[marks & LEARNED > 0].tolist())
    assert learned == "".join(row["completion"] + "<|endoftext|>" for row in PAIRS)
    assert made.train.header.n_scored_bytes == sum(len(row["completion"]) for row in PAIRS)


def test_a_prompt_has_the_ids_that_it_has_when_text_is_generated(pairs: Path) -> None:
    made = prepared(pairs, val_fraction=0.0)
    prompt = made.tokenizer.encode(PAIRS[0]["prompt"])
    assert made.train.tokens[1 : 1 + len(prompt)].tolist() == prompt


def test_a_character_tokenizer_has_no_end_of_text(pairs: Path) -> None:
    made = prepared(pairs, tokenizer="char", val_fraction=0.0)
    learned = made.train.tokens[np.flatnonzero(np.asarray(made.train.marks) & LEARNED)]
    assert made.tokenizer.decode(learned.tolist()) == "".join(r["completion"] for r in PAIRS)
    seen = [t for _, ts in data.eval_batches(made.train, 20, 4) for t in ts.flatten().tolist()]
    assert [t for t in seen if t != IGNORE] == learned.tolist()


def test_a_tokenizer_whose_tokens_span_chunks_gets_each_part_whole(
    pairs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    by_chunks = prepared(pairs)
    monkeypatch.setitem(vars(TOKENIZER), "encodes_chunks", False)
    by_parts = prepared(pairs, cache=str(pairs.parent / "other"))
    assert by_parts.train.header == by_chunks.train.header
    assert by_parts.train.marks.tolist() == by_chunks.train.marks.tolist()


# ── windows of whole rows ───────────────────────────────────────────────────────────────────────


def slowly_packed(rows: list[list[bool]], block_size: int) -> list[tuple[int, int]]:
    """Return start and end of each window, by adding one row after the other."""
    windows: list[tuple[int, int]] = []
    start = end = 0
    for row in rows:
        if end > start and end + len(row) - start > block_size:
            windows.append((start, min(end, start + block_size)))
            start = end
        end += len(row)
    windows.append((start, min(end, start + block_size)))
    learned = [False, *(mark for row in rows for mark in row)]
    return [(a, b + 1) for a, b in windows if any(learned[a + 1 : b + 1])]


@given(
    st.lists(st.lists(st.booleans(), min_size=1, max_size=12), min_size=1, max_size=20),
    st.integers(1, 30),
)
def test_windows_hold_whole_rows_each_once(rows: list[list[bool]], block_size: int) -> None:
    marks = [0]
    for row in rows:
        marks += [LEARNED * m for m in row]
        marks[-1] |= LAST
    packed = pack(np.array(marks), block_size)
    found = list(zip(packed.starts.tolist(), packed.ends.tolist(), strict=True))
    assert found == slowly_packed(rows, block_size)
    long = [row for row in rows if len(row) > block_size]
    assert packed.n_long == len(long) and packed.longest == max(map(len, rows))
    assert packed.n_lost == sum(not any(row[:block_size]) for row in long)


def test_every_window_is_drawn_once_in_an_epoch(pairs: Path) -> None:
    made = prepared(pairs)
    assert isinstance(made.train, RowFile)
    n = len(made.train.packed(64).starts)
    for epoch in range(3):
        drawn = made.train.windows(64, 7, range(epoch * n, (epoch + 1) * n))
        assert sorted(drawn.tolist()) == made.train.packed(64).starts.tolist()
    idx, targets = data.batch(made.train, made.train.windows(64, 7, range(n)), 64)
    assert (idx[:, 0] == made.tokenizer.eot).all()  # each begins with a row
    assert ((targets != IGNORE).sum(dim=1) > 0).all()


def test_rows_longer_than_the_block_are_counted_and_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    long = [
        {"prompt": "why " * 30, "completion": "so."},
        {"prompt": "why", "completion": "so " * 40},
    ]
    path = write(tmp_path / "long.jsonl", [*PAIRS, *long])
    settings = tiny.config(
        path,
        data={"template": "auto", "val_fraction": 0.0},
        model={"block_size": 24},
        sample_tokens=0,
        steps=2,
    )
    with caplog.at_level(logging.INFO):
        train(settings, tmp_path / "run")
    assert "2 rows are longer than block_size 24 (the longest has " in caplog.text
    assert "what is beyond is not read, and of 1 no answer is left" in caplog.text
    assert "the answers, are learned" in caplog.text and "[[0.]]" in caplog.text


def test_a_text_without_an_answer_that_fits_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", [{"prompt": "why " * 30, "completion": "so."}] * 3)
    with pytest.raises(UserError, match=r"3 rows are longer than block_size 16 .*nothing to learn"):
        prepared(path, val_fraction=0.0).train.require(16)


# ── what a row becomes ──────────────────────────────────────────────────────────────────────────

TURNS = [("system", "Be brief."), ("user", "Hi"), ("assistant", "Ho"), ("user", "So?")]
ALPACA = {"instruction": "Add.", "input": "1 2", "output": "3"}


@pytest.mark.parametrize(
    ("row", "becomes"),
    [
        ({"prompt": "a ", "completion": "b"}, "a [[b]]"),
        ({"prompt": "", "completion": 7}, "[[7]]"),
        (
            {"messages": [{"role": r, "content": c} for r, c in TURNS]},
            "System:\nBe brief.\n\nUser:\nHi\n\nAssistant:\n[[Ho\n\n]]User:\nSo?",
        ),
        (
            {"conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]},
            "User:\na\n\nAssistant:\n[[b]]",
        ),
        (ALPACA, "provides further context. Write"),
        (ALPACA, "### Instruction:\nAdd.\n\n### Input:\n1 2\n\n### Response:\n[[3]]"),
        (ALPACA | {"input": ""}, "task. Write"),
        (ALPACA | {"input": None}, "### Instruction:\nAdd.\n\n### Response:\n[[3]]"),
        ({"instruction": "Add.", "output": "3"}, "Instruction:\nAdd.\n\n### Response:\n[[3]]"),
    ],
)
def test_a_template_is_found_by_the_fields(row: dict[str, Any], becomes: str) -> None:
    kinds = dict.fromkeys(row, "text")
    assert becomes in shown(template_for(kinds, "auto", "here").fill(row, "here"))


def parquet(path: Path) -> Path:
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.Table.from_pylist(PAIRS), path)
    return path


def feather(path: Path) -> Path:
    import pyarrow as pa
    from pyarrow import feather

    feather.write_feather(pa.Table.from_pylist(PAIRS), path)
    return path


def array(path: Path) -> Path:
    path.write_text(json.dumps(PAIRS, indent=1), encoding="utf-8")
    return path


def table(path: Path) -> Path:
    lines = ["prompt,completion", *(f"{r['prompt']},{r['completion']}" for r in PAIRS)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("name", "make"),
    [("a.json", array), ("a.csv", table), ("a.parquet", parquet), ("a.feather", feather)],
)
def test_any_table_is_read_with_a_template(
    tmp_path: Path, pairs: Path, name: str, make: Callable[[Path], Path]
) -> None:
    made, lines = prepared(make(tmp_path / name)), prepared(pairs)
    assert made.train.tokens.tolist() == lines.train.tokens.tolist()
    assert made.train.marks.tolist() == lines.train.marks.tolist()


@pytest.mark.parametrize("kind", ["stored", "stream", "saved"])
def test_a_dataset_is_read_with_a_template(tmp_path: Path, pairs: Path, kind: str) -> None:
    import datasets

    rows = datasets.Dataset.from_list(PAIRS)
    lines = prepared(pairs, val_fraction=0.0)
    if kind == "saved":
        rows.save_to_disk(tmp_path / "saved")
        made = prepared(tmp_path / "saved", val_fraction=0.0)
    else:
        given = {"dataset": rows} if kind == "stored" else {"dataset": rows.to_iterable_dataset()}
        corpus = corpus_from_dataset(**given, template="auto", val_fraction=0.0, fingerprint=kind)
        config = DataConfig(val_fraction=0.0)
        made = data.prepare(config, progress=False, corpus=corpus, tokenizer=TOKENIZER)
    assert made.train.tokens.tolist() == lines.train.tokens.tolist()
    assert made.train.marks.tolist() == lines.train.marks.tolist()


def test_a_dataset_that_a_template_does_not_fit_is_refused() -> None:
    import datasets

    rows = datasets.Dataset.from_list([{"text": "a"}])
    with pytest.raises(UserError, match="no template fits the dataset, which has the fields text"):
        corpus_from_dataset(rows, template="auto")
    empty = datasets.Dataset.from_list([{"prompt": "a", "completion": ""}])
    with pytest.raises(UserError, match="no row with an answer"):
        corpus_from_dataset(empty, template="auto")
    with pytest.raises(UserError, match="needs a fingerprint"):
        corpus_from_dataset(rows.to_iterable_dataset(), template="[[{text}]]")


def test_a_pair_of_files_is_kept_apart(tmp_path: Path) -> None:
    folder = tmp_path / "both"
    folder.mkdir()
    write(folder / "train.jsonl", PAIRS[:40])
    write(folder / "validation.jsonl", PAIRS[40:])
    made = prepared(folder)
    assert made.train.header.n_documents == 40
    assert made.val is not None and made.val.header.n_documents == 9
    assert made.val.n_targets < made.val.header.n_tokens / 2


@pytest.mark.parametrize("n", [2, 20, 49])
def test_a_row_is_never_cut_to_be_held_out(tmp_path: Path, n: int) -> None:
    rows = [{"prompt": "a " * (1 if i else 5000), "completion": f"{i}"} for i in range(n)]
    made = prepared(write(tmp_path / "a.jsonl", rows))
    assert made.val is not None
    counts = [part.header.n_documents for part in (made.train, made.val)]
    assert sum(counts) == n and min(counts) >= 1


def test_a_command_shows_a_row(pairs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = ["--data.template", "{prompt}\\n[[{completion}]]", "--data.tokenizer", "char"]
    assert main(["prepare", str(pairs), "--out", str(pairs.parent / "out"), *given]) == 0
    said = capsys.readouterr().out
    assert "what is in [[ ]] is learned:\n\n0 and 0 are \n[[0.]]\n" in said
    assert "the answers, are learned" in said


# ── what cannot be used ─────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("rows", "template", "says"),
    [
        (PAIRS, "Q: {prompt}", "marks no answer; put what is to be learned between"),
        (PAIRS, "Q: {prompt} [[{completion}", "marks no answer"),
        (PAIRS, "Q: {prompt} [[Yes.]]", r"has no field between \[\[ and \]\]"),
        (PAIRS, "{promt}[[{completion}]]", "no field 'promt', only prompt, completion.*'prompt'"),
        (PAIRS, "chta", "no template 'chta', only auto, chat, .*did you mean 'chat'"),
        (PAIRS, "alpaca", "has no field 'instruction'"),
        ([{"text": "a"}], "auto", "no template fits .*a.jsonl, which has the fields text"),
        ([*PAIRS, {"prompt": "a"}], "prompt", r"a\.jsonl, line 50: there is no field 'completion'"),
        ([*PAIRS, PAIRS[0] | {"prompt": ["a"]}], "prompt", "line 50: 'prompt' holds a list"),
        ([{"messages": "Hi"}], "chat", "line 1: 'messages' must be a list such as"),
        ([{"messages": [{"role": "user"}]}], "chat", "line 1: message 1 has no role or no content"),
        (
            [{"messages": [{"role": "user", "content": "Hi"}]}],
            "auto",
            "line 1: no message is the assistant's, so there is nothing to learn",
        ),
        ([{"prompt": "a", "completion": ""}], "auto", "holds no text"),
    ],
)
def test_what_cannot_be_used_is_one_line(
    tmp_path: Path, rows: list[dict[str, Any]], template: str, says: str
) -> None:
    path = write(tmp_path / "a.jsonl", rows)
    with pytest.raises(UserError, match=says) as refused:
        prepared(path, template)
    assert "\n" not in str(refused.value)


def test_rows_without_an_answer_are_left_out_and_counted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rows = [*PAIRS, {"prompt": "a", "completion": ""}, {"prompt": None, "completion": "b"}]
    made = prepared(write(tmp_path / "a.jsonl", rows), val_fraction=0.0)
    assert made.train.header.n_documents == len(PAIRS)
    assert "a field is null or the answer empty in 2 of 51 rows, which are left out" in caplog.text


def test_a_template_that_nothing_reads_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "verse.txt"
    path.write_text(tiny.verse(40), encoding="utf-8")
    made = prepared(path)
    assert "data.template is auto, but nothing reads it: it is for rows" in caplog.text
    assert made.train.marks is None and not isinstance(made.train, RowFile)


# ── what is kept on the disk ────────────────────────────────────────────────────────────────────


def test_another_template_is_another_preparation(pairs: Path) -> None:
    config = DataConfig(source=str(pairs), column="prompt")
    templates = (None, "auto", "{prompt}\n[[{completion}]]", "[[{completion}]]")
    prints = {load_corpus(config.replace(template=t)).fingerprint for t in templates}
    assert len(prints) == len(templates)


def test_a_header_written_before_there_were_marks_is_opened(tmp_path: Path) -> None:
    path = tmp_path / "verse.txt"
    path.write_text(tiny.verse(40), encoding="utf-8")
    made = prepared(path, None)
    header = made.folder / "train.json"
    values = json.loads(header.read_text(encoding="utf-8"))
    assert values.pop("n_targets") == 0
    header.write_text(json.dumps(values), encoding="utf-8")
    again = data.open_prepared(made.folder).train
    assert again.header == made.train.header and not isinstance(again, RowFile)


def test_damaged_marks_are_found(pairs: Path) -> None:
    made = prepared(pairs)
    shard = made.folder / "train-marks-00000.tokens"
    blob = bytearray(shard.read_bytes())
    blob[20] ^= 1
    shard.write_bytes(blob)
    with pytest.raises(UserError, match=r"train-marks-00000\.tokens is damaged: its sha256"):
        made.train.verify()
    with pytest.raises(UserError, match="is damaged"):
        data.open_prepared(made.folder)
    shard.unlink()
    with pytest.raises(UserError, match="it is missing"):
        packing.open_tokens(made.folder / "train.json")


@pytest.mark.parametrize("stop", [1, 3])
def test_a_stopped_preparation_goes_on_with_its_marks(
    pairs: Path, monkeypatch: pytest.MonkeyPatch, stop: int
) -> None:
    monkeypatch.setattr(writer, "SHARD", 100)
    monkeypatch.setattr(encode, "GROUP", 64)
    whole = prepared(pairs, cache=str(pairs.parent / "whole"))
    assert len(whole.train.files()) > 3
    noted, calls = writer.Partial.note, 0

    def killed(self: writer.Partial, **state: Any) -> None:
        nonlocal calls
        noted(self, **state)
        calls += 1
        if calls > stop:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(writer.Partial, "note", killed)
        prepared(pairs, cache=str(pairs.parent / "cut"))
    again = prepared(pairs, cache=str(pairs.parent / "cut"))
    for ours, theirs in ((again.train, whole.train), (again.val, whole.val)):
        assert ours.header == theirs.header and ours._marks.header == theirs._marks.header
    again.train.verify()


# ── training ────────────────────────────────────────────────────────────────────────────────────


def run_config(path: Path, **changes: Any) -> Any:
    return tiny.config(
        path, **{"data": {"template": "auto"}, "model": {"block_size": 32}} | changes
    )


def test_a_run_learns_the_answers_alone_and_goes_on_bitwise(
    pairs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, cut = pairs.parent / "whole", pairs.parent / "cut"
    result = train(run_config(pairs), whole)
    with monkeypatch.context() as patch:
        tiny.stop_after(patch, 3)
        with pytest.raises(Exception, match="step"):
            train(run_config(pairs), cut)
    again = train(run_config(pairs), cut)
    assert tiny.same_tensors(whole, cut) and tiny.log(whole) == tiny.log(cut)
    targets = [line["targets"] for line in tiny.log(whole) if "targets" in line]
    assert result["train_targets"] == again["train_targets"] == sum(targets)
    assert 0 < sum(targets) < result["train_tokens"] / 2


def test_the_loss_is_that_of_the_answers(pairs: Path) -> None:
    from gpt2lib.config import GPTConfig
    from gpt2lib.model.gpt import GPT

    made = prepared(pairs)
    assert made.val is not None
    torch.manual_seed(0)
    shape = GPTConfig(vocab_size=280, block_size=64, n_layer=1, n_head=2, n_embd=16)
    model = GPT(shape).eval()
    eot = made.tokenizer.eot
    nats = count = 0.0
    ids, marks = np.asarray(made.val.tokens), np.asarray(made.val.marks)
    ends = np.flatnonzero(ids == eot)
    for a, b in pairwise(ends):  # each row by itself, each token by hand
        row = torch.from_numpy(ids[a : b + 1].astype(np.int64))[None]
        logprobs = model(row[:, :-1]).log_softmax(-1)[0]
        for t, mark in enumerate(marks[a + 1 : b + 1]):
            if mark & LEARNED:
                nats -= logprobs[t, row[0, t + 1]].item()
                count += 1
    found = score(model, made.val, 64, eot=eot)
    assert found["tokens"] == count
    assert found["loss"] == pytest.approx(nats / count, abs=1e-5)
    n_bytes = made.val.header.n_scored_bytes
    assert found["bits_per_byte"] == pytest.approx(nats / np.log(2) / n_bytes, rel=1e-5)


def test_rows_and_plain_text_are_mixed(pairs: Path) -> None:
    verse = pairs.parent / "verse.txt"
    verse.write_text(tiny.verse(60), encoding="utf-8")
    config = DataConfig(
        mixture={str(pairs): 1.0, str(verse): 3.0}, tokenizer="bpe", vocab_size=280, template="auto"
    )
    made = data.prepare(config, progress=False)
    rows = next(part for part in made.train.parts if part.marks is not None)
    plain = next(part for part in made.train.parts if part.marks is None)
    assert made.train.n_targets == rows.n_targets + len(plain) - 1
    _, targets = data.batch(made.train, made.train.windows(16, 0, range(8)), 16)
    full = (targets != IGNORE).all(dim=1)
    assert full.sum() == 6 and not full.all()  # a quarter of the windows are rows
    assert made.val is not None
    scored = sum(int((t != IGNORE).sum()) for _, t in data.eval_batches(made.val, 64, 2))
    assert scored == made.val.n_targets


def test_evaluate_scores_the_answers_of_other_rows_too(
    pairs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, other = pairs.parent / "run", write(pairs.parent / "other.jsonl", PAIRS[:7])
    train(run_config(pairs, steps=2), run)
    capsys.readouterr()
    assert main(["evaluate", str(run), "--json"]) == 0
    own = json.loads(capsys.readouterr().out)
    assert main(["evaluate", str(run), "--data", str(other), "--json"]) == 0
    theirs = json.loads(capsys.readouterr().out)
    assert own["tokens"] == json.loads((run / "result.json").read_text())["tokens"]
    tokenizer = load_tokenizer_for(resolve(str(run)))
    answers = [tokenizer.encode(row["completion"]) for row in PAIRS[:7]]
    assert theirs["tokens"] == sum(map(len, answers)) + len(answers)
