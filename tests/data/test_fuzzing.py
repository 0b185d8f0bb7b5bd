"""Every reader, given a valid file with some bytes changed: rows, or one line that says why not.

`FUZZ_EXAMPLES=5000 pytest tests/data/test_fuzzing.py` tries more than the suite does.
"""

from __future__ import annotations

import csv
import gzip
import json
import os
import shutil
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyarrow import feather, parquet

from gpt2lib.config import DataConfig
from gpt2lib.data.sources import load_corpus
from gpt2lib.tokenizer import load_tokenizer, train_bpe
from gpt2lib.utils.errors import UserError

pytestmark = pytest.mark.usefixtures("private_cache")

ROWS = [f"row {i}: naïve “quotes”, a tab\t and 🙂" for i in range(20)]
TABLE = pa.table({"id": range(len(ROWS)), "text": ROWS})
TOKENIZER = train_bpe(ROWS, 300)

Make = Callable[[Path], Path]
"""Writes a valid file or folder into an empty folder, and returns what is to be read."""


def text(folder: Path) -> Path:
    (folder / "a.txt").write_text("\n".join(ROWS), encoding="utf-8")
    return folder / "a.txt"


def json_lines(folder: Path) -> Path:
    lines = (json.dumps({"text": row, "n": [1, {"a": None}]}, ensure_ascii=False) for row in ROWS)
    (folder / "a.jsonl").write_text("\n".join(lines), encoding="utf-8")
    return folder / "a.jsonl"


def json_array(folder: Path) -> Path:
    rows = json.dumps([{"text": row} for row in ROWS], indent=1)
    (folder / "a.json").write_text(rows, encoding="utf-8")
    return folder / "a.json"


def table(name: str) -> Make:
    def make(folder: Path) -> Path:
        with (folder / name).open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, delimiter="\t" if name.endswith(".tsv") else ",")
            writer.writerows([("id", "text"), *enumerate(ROWS)])
        return folder / name

    return make


def arrow(name: str, write: Callable[[Path], Any]) -> Make:
    def make(folder: Path) -> Path:
        write(folder / name)
        return folder / name

    return make


def stream(path: Path) -> None:
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, TABLE.schema) as out:
        out.write_table(TABLE)


def packed(make: Make, pack: Callable[[bytes], bytes], suffix: str) -> Make:
    def made(folder: Path) -> Path:
        plain = make(folder)
        path = plain.with_name(plain.name + suffix)
        path.write_bytes(pack(plain.read_bytes()))
        plain.unlink()
        return path

    return made


def zipped(folder: Path) -> Path:
    with zipfile.ZipFile(folder / "a.zip", "w") as archive:
        archive.writestr("a.txt", "\n".join(ROWS))
    return folder / "a.zip"


def saved(folder: Path) -> Path:
    import datasets

    datasets.DatasetDict(train=datasets.Dataset(TABLE)).save_to_disk(folder / "saved")
    return folder / "saved"


def bpe(folder: Path) -> Path:
    TOKENIZER.save(folder / "t")
    return folder / "t"


def older_bpe(folder: Path) -> Path:
    (bpe(folder) / "tokenizer.json").unlink()
    return folder / "t"


def read_corpus(path: Path) -> None:
    corpus = load_corpus(DataConfig(str(path), val_fraction=0.2))
    for _ in (*corpus.train(), *corpus.val()):
        pass


def read_tokenizer(path: Path) -> None:
    tokenizer = load_tokenizer(path)
    tokenizer.decode(tokenizer.encode("row 1"))


def zstd(data: bytes) -> bytes:
    return bytes(pa.compress(data, codec="zstd", asbytes=True))


KINDS: dict[str, tuple[Make, Callable[[Path], Any]]] = {
    "txt": (text, read_corpus),
    "jsonl": (json_lines, read_corpus),
    "json": (json_array, read_corpus),
    "csv": (table("a.csv"), read_corpus),
    "tsv": (table("a.tsv"), read_corpus),
    "parquet": (arrow("a.parquet", lambda path: parquet.write_table(TABLE, path)), read_corpus),
    "feather": (arrow("a.feather", lambda path: feather.write_feather(TABLE, path)), read_corpus),
    "arrow": (arrow("a.arrow", stream), read_corpus),
    "txt.gz": (packed(text, gzip.compress, ".gz"), read_corpus),
    "jsonl.zst": (packed(json_lines, zstd, ".zst"), read_corpus),
    "zip": (zipped, read_corpus),
    "saved dataset": (saved, read_corpus),
    "bpe": (bpe, read_tokenizer),
    "older bpe": (older_bpe, read_tokenizer),
}


@st.composite
def changes(draw: st.DrawFn) -> list[tuple[float, int, bytes]]:
    """Draw where in a file, as a share of it, how many bytes go, and which come."""
    piece = st.one_of(
        st.binary(max_size=4),
        st.sampled_from(
            [b"\0", b"\xff", b'"', b"{", b"[", b"\n", b"-1", b"null", b"1e999", b"9" * 30]
        ),
    )
    share = st.one_of(st.floats(0, 1), st.sampled_from([0.0, 0.999]))
    size = st.sampled_from([0, 1, 1, 2, 4, 50, 10**9])
    return draw(st.lists(st.tuples(share, size, piece), min_size=1, max_size=3))


@pytest.mark.parametrize("kind", KINDS)
def test_changed_bytes_end_in_rows_or_in_one_line(
    kind: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    make, read = KINDS[kind]
    valid = make(tmp_path)
    read(valid) if kind != "zip" else None
    files = sorted(p for p in tmp_path.rglob("*") if p.is_file() and p.name != "manifest.json")

    @settings(
        max_examples=int(os.environ.get("FUZZ_EXAMPLES", "12")),
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(st.integers(0, len(files) - 1), changes())
    def change(number: int, mutations: list[tuple[float, int, bytes]]) -> None:
        with tempfile.TemporaryDirectory(dir=tmp_path.parent) as name:
            shutil.copytree(tmp_path, name, dirs_exist_ok=True)
            here = Path(name)
            path = here / files[number].relative_to(tmp_path)
            data = bytearray(path.read_bytes())
            for share, size, piece in mutations:
                at = int(share * len(data))
                data[at : at + size] = piece
            path.write_bytes(data)
            try:
                read(here / valid.relative_to(tmp_path))
            except UserError as error:
                assert len(str(error).splitlines()) == 1, str(error)

    change()
