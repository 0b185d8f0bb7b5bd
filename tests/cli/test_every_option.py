"""Every option of every command takes effect, or is refused, or it is said that nothing reads it.

Each field is changed by itself, and what the command then leaves is compared with what it leaves
without the change. Where both are the same, a message must name the field.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tiny import verse

from gpt2lib.cli import main
from gpt2lib.config import DataConfig
from gpt2lib.config.schema import all_kinds
from gpt2lib.data import prepare
from gpt2lib.utils.errors import UserError

pytestmark = pytest.mark.usefixtures("private_cache")

ROWS = [verse(2, seed=i) + "é" * 3 + "<|endoftext|>" * (i == 1) + "love" for i in range(12)]
DATA: dict[str, Any] = {
    "tokenizer": "char",
    "vocab_size": 270,
    "val_fraction": 0.3,
    "column": "body",
    "template": "{text}\n[[{body}]]",
    "split": "other",
    "streaming": True,
    "encoding": "latin-1",
    "encoding_errors": "skip",
    "special_tokens": True,
    "mask_documents": True,
    "cache": "elsewhere",
}
"""Another value of each field that says how a text is read."""


def text_file(folder: Path) -> str:
    (folder / "text.txt").write_text("".join(ROWS), encoding="utf-8")
    return str(folder / "text.txt")


def json_lines(folder: Path) -> str:
    rows = [json.dumps({"text": row, "body": row[::-1]}, ensure_ascii=False) for row in ROWS]
    (folder / "rows.jsonl").write_text("\n".join(rows), encoding="utf-8")
    return str(folder / "rows.jsonl")


def table(folder: Path) -> Any:
    import pyarrow as pa

    return pa.table({"text": ROWS, "body": [row[::-1] for row in ROWS]})


def parquet(folder: Path) -> str:
    import pyarrow.parquet as pq

    pq.write_table(table(folder), folder / "rows.parquet")
    return str(folder / "rows.parquet")


def saved(folder: Path) -> str:
    import datasets

    rows = datasets.Dataset(table(folder))
    datasets.DatasetDict(train=rows, other=rows.select(range(6))).save_to_disk(folder / "saved")
    return str(folder / "saved")


def named(folder: Path) -> str:
    return "plays"


def prepared(folder: Path) -> str:
    source = text_file(folder)
    out = folder / "prepared"
    prepare(DataConfig(source, vocab_size=300), out, progress=False)
    return str(out)


KINDS = [text_file, json_lines, parquet, saved, named, prepared]


def test_how_a_text_is_read_is_told_by_fields_that_are_all_tried() -> None:
    assert set(DATA) == set(all_kinds(DataConfig)) - {"source", "mixture"}


@pytest.mark.parametrize("field", [name for name in DATA if name != "mask_documents"])
@pytest.mark.parametrize("kind", KINDS)
def test_how_a_text_is_read(
    kind: Callable[[Path], str], field: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """What `train` and `prepare` read: a change of a field changes the tokens, or is spoken of."""
    source, learned = kind(tmp_path), kind is not named  # learning from the plays takes long
    base = DataConfig(source, tokenizer="auto" if learned else "gpt2", vocab_size=280)
    values = DATA | {"cache": str(tmp_path / "elsewhere")}
    if not learned and field in ("tokenizer", "special_tokens"):
        return  # the plays hold no special token
    before, said = what_is_prepared(base), caplog.text
    caplog.clear()
    try:
        changed = what_is_prepared(base.replace(**{field: values[field]}))
    except UserError as error:
        assert field in str(error)
    else:
        assert changed != before or f"data.{field} is" in caplog.text, said


def what_is_prepared(config: DataConfig) -> tuple[Any, ...]:
    """Return where the tokens of a text lie, and what tells them from others."""
    made = prepare(config, progress=False)
    parts = [part.header.sha256 for part in (made.train, made.val) if part]
    return made.folder.parent, made.tokenizer.fingerprint, parts


def test_a_mixture_names_its_sources(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    mixture = {text_file(tmp_path): 1.0, json_lines(tmp_path): 2.0}
    config = DataConfig("notes.txt", mixture=mixture, vocab_size=280, column="body")
    prepare(config, progress=False)
    assert "data.source is notes.txt, but nothing reads it" in caplog.text
    assert "data.column" not in caplog.text  # one of the two is a table
    caplog.clear()
    prepare(config.replace(source="plays", encoding="utf-8-sig", cache=None), progress=False)
    assert "data.source" not in caplog.text


@pytest.mark.parametrize("field", ["mixture", "source", "cache", "mask_documents"])
def test_prepare_refuses_what_training_alone_reads(
    field: str, tmp_path: Path, refused: Callable[..., str]
) -> None:
    argv = ["prepare", text_file(tmp_path), "--out", tmp_path / "out", f"--data.{field}", "true"]
    assert f"unknown option --data.{field}" in refused(*argv)


# ── evaluate ────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(json_lines(tmp_path_factory.mktemp("rows")))


@pytest.fixture(scope="module")
def masked(tmp_path_factory: pytest.TempPathFactory, rows: Path) -> Path:
    """A run in which each document is read by itself."""
    out = tmp_path_factory.mktemp("runs") / "masked"
    data = ["--data.source", str(rows), "--data.vocab_size", "280", "--data.mask_documents", "true"]
    few = ["--steps", "20", "--sample_tokens", "0", "--data.val_fraction", "0.3"]
    assert main(["train", "smoke", "--out", str(out), *data, *few]) == 0
    return out


def scores(capsys: pytest.CaptureFixture[str], *argv: str | Path) -> dict[str, Any]:
    capsys.readouterr()
    assert main(["evaluate", *map(str, argv), "--json"]) == 0
    return dict(json.loads(capsys.readouterr().out))


def test_evaluate_reads_documents_as_the_run_did(
    masked: Path, rows: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    result = json.loads((masked / "result.json").read_text(encoding="utf-8"))
    own = scores(capsys, masked)
    assert own["loss"] == pytest.approx(result["loss"], rel=1e-5)
    assert (own["text"], own["mask_documents"]) == ("the held-out part of rows.jsonl", True)
    across = scores(capsys, masked, "--data.mask_documents", "false")
    assert across["loss"] != pytest.approx(result["loss"], rel=1e-4)
    other = scores(capsys, masked, "--data", rows)  # the model is the same, so is how it reads
    assert other["mask_documents"] is True
    joined = scores(capsys, masked, "--data", rows, "--data.mask_documents", "false")
    assert joined["loss"] != pytest.approx(other["loss"], rel=1e-4)


def test_evaluate_reads_how_other_text_is_read(
    masked: Path, rows: Path, refused: Callable[..., str], capsys: pytest.CaptureFixture[str]
) -> None:
    """The other fields speak of other text: they change its score, or there is none to speak of."""
    text = scores(capsys, masked, "--data", rows)
    body = scores(capsys, masked, "--data", rows, "--data.column", "body")
    assert body["loss"] != text["loss"]
    latin = scores(capsys, masked, "--data", rows, "--data.encoding", "latin-1")
    assert latin["loss"] != text["loss"]
    for field in ("column", "split", "encoding"):
        said = refused("evaluate", masked, f"--data.{field}", "other")
        assert f"--data.{field} says how other text is read" in said
    for field in ("mixture", "tokenizer", "vocab_size", "val_fraction"):
        said = refused("evaluate", masked, "--data", rows, f"--data.{field}", "1")
        assert f"unknown option --data.{field}" in said


def test_evaluate_refuses_a_text_that_has_changed(
    masked: Path, rows: Path, refused: Callable[..., str], capsys: pytest.CaptureFixture[str]
) -> None:
    before = rows.read_bytes()
    try:
        rows.write_bytes(before + b'\n{"text": "one more", "body": "x"}')
        said = refused("evaluate", masked)
        assert "rows.jsonl is not the text that" in said and "--data SOURCE" in said
        assert scores(capsys, masked, "--data", rows)["text"] == "rows.jsonl"
    finally:
        rows.write_bytes(before)


def test_evaluate_refuses_documents_that_cannot_be_told_apart(
    tmp_path: Path, refused: Callable[..., str]
) -> None:
    source = text_file(tmp_path)
    data = ["--data.source", source, "--data.tokenizer", "char"]
    few = ["--steps", "1", "--sample_tokens", "0"]
    assert main(["train", "smoke", "--out", str(tmp_path / "run"), *data, *few]) == 0
    for more in ([], ["--data", source]):
        said = refused("evaluate", tmp_path / "run", *more, "--data.mask_documents", "true")
        assert "needs an end-of-text token" in said
