"""Files of every kind: the same documents, in bounded memory, with one line for what is wrong."""

from __future__ import annotations

import csv
import gzip
import json
import os
import subprocess
import sys
import tarfile
from itertools import chain, pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.feather as feather
import pyarrow.parquet as parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpt2lib.cli.train import parse
from gpt2lib.config import DataConfig
from gpt2lib.data import sources as corpora
from gpt2lib.data.sources import corpus as corpus_module
from gpt2lib.data.sources import files
from gpt2lib.data.sources import split as split_module
from gpt2lib.data.sources.corpus import Corpus, cut_in_chunks
from gpt2lib.tokenizer import CharTokenizer, train_bpe
from gpt2lib.utils.errors import UserError

TEXTS = [
    'plain, with a comma and "quotes"',
    "two\nlines and a\ttab",
    "windows\r\nlines",
    "ünïcode \u2028 日本語 🙂",
    " spaces at both ends ",
    "null",
    *(f"document {i}" for i in range(30)),
]
ROWS = [TEXTS[0], "", *TEXTS[1:], ""]  # empty texts are no documents
TABLE = pa.table({"id": range(len(ROWS)), "body": ROWS, "score": [0.5] * len(ROWS)})


def write_json(path):
    rows = (json.dumps(row, ensure_ascii=i % 2 == 0) for i, row in enumerate(TABLE.to_pylist()))
    path.write_text("\n\n".join(rows) + "\n", encoding="utf-8", newline="")


def write_csv(path, comma=","):
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, delimiter=comma)
        writer.writerows([TABLE.column_names, *(row.values() for row in TABLE.to_pylist())])


def write_stream(path, table=TABLE):
    with pa.ipc.new_stream(path, table.schema) as writer:
        writer.write_table(table, max_chunksize=7)


def write_file(path):
    with pa.ipc.new_file(path, TABLE.schema) as writer:
        writer.write_table(TABLE, max_chunksize=7)


WRITERS = {
    "a.jsonl": write_json,
    "a.ndjson": write_json,
    "a.json": write_json,
    "a.csv": write_csv,
    "a.tsv": lambda path: write_csv(path, "\t"),
    "a.parquet": lambda path: parquet.write_table(TABLE, path, row_group_size=10),
    "stream.arrow": write_stream,
    "file.arrow": write_file,
    "a.feather": lambda path: feather.write_feather(TABLE, path),
}


def compress(path, suffix):
    data = path.read_bytes()
    packed = {
        "": data,
        ".gz": gzip.compress(data[:99]) + gzip.compress(data[99:]),  # two members, as `cat` makes
        ".zst": pa.compress(data, codec="zstd", asbytes=True),
    }[suffix]
    target = path.with_name(path.name + suffix)
    target.write_bytes(packed)
    return target


def load(source, **fields):
    return corpora.load_corpus(DataConfig(source=str(source), **fields))


def both(corpus):
    return list(corpus.train()), list(corpus.val())


# --- the same documents --------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", ["", ".gz", ".zst"])
@pytest.mark.parametrize("name", WRITERS)
def test_each_kind_holds_the_same_documents(tmp_path, name, suffix):
    WRITERS[name](tmp_path / name)
    path = compress(tmp_path / name, suffix)
    corpus = load(path, val_fraction=0.0)
    assert both(corpus) == (TEXTS, [])
    assert both(load(path, column="body", val_fraction=0.0)) == (TEXTS, [])
    held = split_module.by_bytes(([text] for text in TEXTS), 0.2)
    assert held.cut is None and len(held.whole) > 1
    train, val = both(load(path, val_fraction=0.2))
    assert train == [text for i, text in enumerate(TEXTS) if not held.holds(i)]
    assert val == [text for i, text in enumerate(TEXTS) if held.holds(i)]
    # The fingerprint is that of the content, wherever it lies, and of the column.
    (tmp_path / "elsewhere").mkdir()
    moved = path.rename(tmp_path / "elsewhere" / f"b{''.join(path.suffixes)}")
    assert load(moved).fingerprint == corpus.fingerprint


@pytest.mark.parametrize("suffix", ["", ".gz", ".zst"])
def test_text_files_compressed(tmp_path, suffix):
    path = tmp_path / "notes.tex"
    path.write_bytes(b"\xef\xbb\xbf" + "Zürich\r\nand more\n".encode())
    path = compress(path, suffix)
    assert both(load(path, val_fraction=0.0)) == (["Zürich\r\nand more\n"], [])
    with pytest.raises(UserError, match="is not ascii: byte 0xef at offset 0"):
        load(path, encoding="ascii")


def test_a_folder_of_many_kinds(tmp_path):
    parquet.write_table(pa.table({"text": ["p1", "p2"]}), tmp_path / "c.parquet")
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "a.csv").write_text("text,id\nc1,1\n", encoding="utf-8")
    (tmp_path / "b.jsonl").write_text('{"story": "j1", "n": null}\n', encoding="utf-8")
    (tmp_path / "a.txt").write_text("t1", encoding="utf-8")
    compress(tmp_path / "a.txt", ".gz").rename(tmp_path / "d.md.GZ")
    (tmp_path / "config.json").write_text("{}", encoding="utf-8")
    (tmp_path / "z.parquet").write_bytes(b"")
    write_stream(tmp_path / "e.arrow", pa.table({"text": pa.array([], pa.string())}))
    train, val = both(load(tmp_path, val_fraction=0.0))
    assert (train, val) == (["t1", "j1", "p1", "p2", "t1", "c1"], [])
    some = load(tmp_path / "*.*[lt]", val_fraction=0.0)
    assert sorted(some.train()) == ["j1", "p1", "p2", "t1"]


def test_kinds_of_text_columns(tmp_path):
    for kind in (pa.large_string(), pa.dictionary(pa.int32(), pa.string()), pa.string_view()):
        table = pa.table({"a": pa.array(["x", None, "", "y"], kind), "n": [1, 2, 3, 4]})
        write_stream(tmp_path / "a.arrow", table)
        assert both(load(tmp_path / "a.arrow", val_fraction=0.0)) == (["x", "y"], [])


def test_the_encoding_holds_for_json_and_csv(tmp_path):
    for name, text in [
        ("a.jsonl", '{"text": "ç"}\n{"text": "é"}\n'),
        ("a.csv", "text,n\nç,1\né,2\n"),
    ]:
        (tmp_path / name).write_text(text, encoding="utf-16")
        assert both(load(tmp_path / name, encoding="utf-16", val_fraction=0.0)) == (["ç", "é"], [])
        with pytest.raises(UserError, match=r"is not utf-8: byte 0xff at offset 0; .*utf-16"):
            load(tmp_path / name)


def test_the_fingerprint_follows_content_column_and_kind(tmp_path):
    def prints(text, suffix="csv", **fields):
        path = tmp_path / f"a.{suffix}"
        path.write_text(text, encoding="utf-8")
        return load(path, **fields).fingerprint

    rows = "text,other\na,b\n"
    seen = [
        prints(rows),
        prints(rows, column="other"),
        prints(rows, "txt"),
        prints(rows, "tsv.txt"),
    ]
    assert prints(rows, column="text") == seen[0] and seen[2] == seen[3]
    assert len({*seen, prints(rows + "c,d\n"), prints(rows, encoding="latin-1")}) == 5


def test_reading_imports_no_torch(tmp_path):
    for name, write in WRITERS.items():
        write(tmp_path / name)
    code = (
        "import sys; from gpt2lib.data.sources import documents; "
        f"assert len(list(documents({str(tmp_path)!r}))) == {len(WRITERS) - 1} * {len(TEXTS)}; "
        "assert not {'torch', 'datasets', 'pandas', 'transformers'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    ("name", "reader"),
    [
        ("a.txt", ""),
        ("a.jsonl", "json_lines"),
        ("a.csv", "csv_tables"),
        ("a.parquet", "arrow_tables"),
    ],
)
def test_only_the_reader_of_the_kind_is_imported(tmp_path, name, reader):
    WRITERS.get(name, lambda path: path.write_text("text", encoding="utf-8"))(tmp_path / name)
    kinds = "json_lines", "csv_tables", "arrow_tables", "columns", "hf", "saved", "named", "plays"
    code = (
        "import sys; from gpt2lib.data.sources import documents; "
        f"list(documents({str(tmp_path / name)!r})); "
        f"print(*(k for k in {kinds!r} if 'gpt2lib.data.sources.' + k in sys.modules)); "
        "print('pyarrow' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    imported, arrow = done.stdout.split("\n")[:2]
    assert imported.split() == ([reader, "columns"] if reader else [])
    assert arrow == str(reader == "arrow_tables")


# --- chunks --------------------------------------------------------------------------------------


@pytest.fixture
def small_chunks(monkeypatch):
    monkeypatch.setattr(corpus_module, "CHUNK", 40)
    monkeypatch.setattr(corpus_module, "LONGEST", 200)
    monkeypatch.setattr(files, "PART", 7)


PROSE = (
    "It's a  long\n\n tale, told\r\nin 12 345 words… ça  va? 日本語 🙂\t tabs \u2028 end.  \n" * 40
)


def test_chunks_have_the_ids_of_the_whole(small_chunks, tmp_path):
    (tmp_path / "a.txt").write_text(PROSE, encoding="utf-8", newline="")
    (tmp_path / "b.jsonl").write_text(json.dumps({"text": PROSE[::-1]}), encoding="utf-8")
    corpus = load(tmp_path, val_fraction=0.0)
    chunks = list(corpus.chunks("train"))
    assert list(corpus.train()) == [PROSE, PROSE[::-1]]
    assert [chunk.ends for chunk in chunks].count(True) == 2 and len(chunks) > 60
    assert max(len(chunk.text) for chunk in chunks) < 80
    tokenizers = train_bpe([PROSE], 400), CharTokenizer.train([PROSE])
    for tokenizer in tokenizers:
        cut = [token for chunk in chunks for token in tokenizer.encode(chunk.text)]
        assert cut == [token for text in corpus.train() for token in tokenizer.encode(text)]


@given(st.lists(st.text(alphabet="ab \n\r\té日", max_size=60)))
@settings(max_examples=200)
def test_chunks_do_not_depend_on_the_parts(parts):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(corpus_module, "CHUNK", 5)
        patch.setattr(corpus_module, "LONGEST", 20)
        whole = "".join(parts)
        chunks = list(cut_in_chunks(part for part in parts if part))
        assert chunks == list(cut_in_chunks(iter(whole)))
        assert "".join(chunk.text for chunk in chunks) == whole
        assert [chunk.ends for chunk in chunks] == [False] * (len(chunks) - 1) + [True]
        assert all(0 < len(chunk.text) <= 20 for chunk in chunks) or not whole
        for chunk, after in pairwise(chunks):
            good = not chunk.text[-1].isspace() and after.text[0] in " \n"
            assert good or len(chunk.text) == 20


def corpus_of(documents, fraction):
    return Corpus("the texts", "f" * 64, "", "", documents, val_fraction=fraction)


def expected_split(text, fraction):
    """Split one document as it is documented: at its share, or at a line's end just before."""
    if fraction <= 0 or len(text) < 2:
        return text, ""
    cut = min(max(1, round(len(text) * (1 - fraction))), len(text) - 1)
    cut = (text.rfind("\n", max(0, cut - corpus_module.LINE), cut) + 1) or cut
    return text[:cut], text[cut:]


@given(
    st.text(alphabet="ab\n", max_size=300),
    st.floats(0.01, 0.99),
    st.integers(1, 50),
    st.sampled_from([1, 3, 10, 100]),
)
@settings(max_examples=300)
def test_a_document_in_parts_is_split_as_a_whole(text, fraction, size, chunk):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(corpus_module, "LINE", 20)
        patch.setattr(corpus_module, "CHUNK", chunk)
        patch.setattr(corpus_module, "LONGEST", 2 * chunk)
        starts = range(0, len(text), size)
        parts = [text[i : i + size] for i in starts]
        corpus = corpus_of(lambda: iter([iter(parts)] if text else []), fraction)
        split = tuple("".join(corpus.read(s)) for s in ("train", "val"))
        assert split == expected_split(text, fraction)
        together = list(corpus.chunks("train", "val"))
        for s in ("train", "val"):
            chunks = list(corpus.chunks(s))
            assert chunks == [chunk for chunk in together if chunk.split == s]
            ends = [chunk.ends for chunk in chunks]
            assert ends == [False] * (len(ends) - 1) + [True] * bool(ends)
            assert all(chunk.text for chunk in chunks)


def test_one_text_is_split_by_its_end_also_in_a_table(tmp_path, small_chunks):
    (tmp_path / "a.txt").write_text(PROSE, encoding="utf-8", newline="")
    parquet.write_table(pa.table({"text": ["", PROSE]}), tmp_path / "a.parquet")
    expected = expected_split(PROSE, 0.25)
    for name in ("a.txt", "a.parquet"):
        (train,), (val,) = both(load(tmp_path / name, val_fraction=0.25))
        assert (train, val) == expected and len(val) > 100


# --- which documents are held out ----------------------------------------------------------------


def test_many_documents_are_not_all_counted(monkeypatch):
    monkeypatch.setattr(split_module, "COUNTED", 1000)
    made = []

    def texts(n):
        def documents():
            for i in range(n):
                made.append(i)
                yield [f"{i:04}"]

        return documents

    for n in (999, 1000, 1001, 5000):
        corpus = corpus_of(texts(n), 0.1)
        val = [int(text) for text in corpus.val()]
        assert made.count(0) == 2 and made.count(n - 1) == (2 if n <= 1001 else 1)
        assert val == list(np.flatnonzero(corpora.held_out(n, 0.1)))
        assert sorted(val + [int(text) for text in corpus.train()]) == list(range(n))
        made.clear()
    assert 400 < len(val) < 600
    for fraction, least in ((1e-12, 1), (1 - 1e-12, 4999)):  # never none, never all
        held = corpora.held_out(5000, fraction).sum()
        assert 1 <= held <= 4999 and abs(held - least) < 10


# --- what is wrong -------------------------------------------------------------------------------


def refused(path, *said, **fields):
    """Read it all; return the one line that is said of it."""
    with pytest.raises(UserError) as caught:
        list(chain(*both(load(path, **fields))))
    line = str(caught.value)
    assert "\n" not in line and all(part in line for part in said), line


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ('{"text": "a"}\n\n{"text": "b"\n', ["line 3 is not JSON", "Expecting ',' delimiter"]),
        ('{"text": "a"}\nnot\n', ["a.jsonl, line 2 is not JSON: Expecting value at column 1"]),
        ('{"text": "a"}\n{"txt": "b"}\n', ["a.jsonl, line 2: there is no key 'text', only txt"]),
        ('{"text": "a"}\n{"text": 7}\n', ["a.jsonl, line 2: 'text' holds numbers, not text"]),
        ('{"text": "a"}\n{"text": {}}\n', ["line 2: 'text' holds objects, not text"]),
        ('{"text": "a"}\n["b"]\n', ["a.jsonl, line 2 holds lists, not an object"]),
        ('{"text": "a"}\nnull\n', ["a.jsonl, line 2 holds null, not an object"]),
        ('{"text": "a"}\n{"text": "\\ud83d"}\n', ["line 2 holds half a character (\\ud83d)"]),
        ('{"text": "a"}\n' + "[" * 100_000, ["a.jsonl, line 2"]),
        ('{"body": "a", "title": "b", "n": 1}\n', [
            "2 columns of text and none called 'text'; choose one with --data.column: ",
            "body (text), title (text), n (numbers)",
        ]),
        ('{"n": 1, "l": [2], "ok": true}\n', ["no column of text", "ok (true or false)"]),
        ('{"text": ""}\n{"text": null}\n', ["column 'text' of a.jsonl holds no text"]),
        ("\n\n", ["a.jsonl holds no text"]),
        ("", ["a.jsonl is empty (0 bytes)"]),
    ],
)  # fmt: skip
def test_bad_json(tmp_path, rows, said):
    (tmp_path / "a.jsonl").write_text(rows, encoding="utf-8")
    refused(tmp_path / "a.jsonl", *said)


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ("text,n\na,1\nb,2,3\n", ["line 3 ends a row of 3 values, but the first row names 2"]),
        ('text,n\n"a\nb",1\nc\n', ["line 4 ends a row of 1 values"]),
        ('text,n\n"a,1\n', ["line 2 is not CSV: unexpected end of data"]),
        ("n,m\n1,2\n", ["no column of text", "n (numbers), m (numbers)"]),
        ("text,n\n,1\n", ["column 'text' of a.csv holds no text"]),
        ("text,n\n", ["a.csv holds no text"]),
    ],
)
def test_bad_csv(tmp_path, rows, said):
    (tmp_path / "a.csv").write_text(rows, encoding="utf-8")
    refused(tmp_path / "a.csv", *said)


def test_csv_with_a_long_text(tmp_path):
    (tmp_path / "a.csv").write_text(f'text,n\n"{"word " * 100_000}",1\n', encoding="utf-8")
    assert list(load(tmp_path / "a.csv", val_fraction=0.0).train()) == ["word " * 100_000]


@pytest.mark.parametrize("name", WRITERS)
def test_a_wrong_column(tmp_path, name):
    WRITERS[name](tmp_path / name)
    refused(tmp_path / name, "no column 'bodi'", "did you mean 'body'", column="bodi")
    refused(tmp_path / name, "'id' of", "not text; columns: id (", column="id")


@pytest.mark.parametrize("name", ["a.parquet", "stream.arrow", "file.arrow", "a.feather"])
def test_a_damaged_table(tmp_path, name):
    path = tmp_path / name
    WRITERS[name](path)
    data = path.read_bytes()
    for damaged in (data[: len(data) // 2], b"junk" * 20, data[:20], b"x"):
        path.write_bytes(damaged)
        refused(path, f"cannot read {path}: ", f"or no {path.suffix[1:]} file")
    path.write_bytes(b"")
    refused(path, f"{name} is empty (0 bytes)")


@pytest.mark.parametrize("name", ["a.txt", "a.jsonl", "a.parquet"])
def test_a_damaged_archive(tmp_path, name):
    (tmp_path / name).write_text("word\n" * 1000, encoding="utf-8")
    if name in WRITERS:
        WRITERS[name](tmp_path / name)
    for suffix, kind in ((".gz", "gzip"), (".zst", "zstd")):
        path = compress(tmp_path / name, suffix)
        for damaged in (path.read_bytes()[:-3], b"plain text"):
            path.write_bytes(damaged)
            refused(path, f"cannot read {path}: ", f"it is damaged or no {kind} file")


def test_text_that_is_not_utf_8_in_a_table(tmp_path):
    bad = pa.array([b"\xff\xfe"], pa.binary()).view(pa.string())
    write_stream(tmp_path / "a.arrow", pa.table({"text": bad}))
    refused(tmp_path / "a.arrow", "holds text that is not UTF-8")


# --- memory --------------------------------------------------------------------------------------

PEAK = """
import sys, time
from pathlib import Path
from gpt2lib.cli.train import parse
from gpt2lib.config import DataConfig
from gpt2lib.data.sources import load_corpus
def peak():
    # Not ru_maxrss, which begins with the memory of the process that started this one.
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024
def load(path):
    return load_corpus(DataConfig(source=path))
def read(corpus):
    return sum(len(chunk.text) for chunk in corpus.chunks("train", "val"))
read(load(sys.argv[1]))
before = peak()
start = time.perf_counter()
print(read(load(sys.argv[2])), peak() - before, peak(), time.perf_counter() - start)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
@pytest.mark.parametrize("name", ["a.txt", "a.txt.gz", "a.jsonl", "a.csv", "a.parquet", "a.arrow"])
def test_memory_does_not_grow_with_the_file(tmp_path, name):
    line = "The memory that is needed does not grow with the file that is read. " * 3
    row = line.strip() + "\n"
    n = 200_000_000 // len(row)
    for folder, count in (("small", 20_000), ("large", n)):
        path = tmp_path / folder / name
        path.parent.mkdir()
        if name == "a.txt":
            path.write_text(row * count, encoding="utf-8")
        elif name == "a.txt.gz":
            path.write_bytes(gzip.compress((row * count).encode(), 1))
        elif name == "a.jsonl":
            path.write_text((json.dumps({"text": row}) + "\n") * count, encoding="utf-8")
        elif name == "a.csv":
            path.write_text("text\n" + f'"{row}"\n' * count, encoding="utf-8")
        else:
            table = pa.table({"text": [row] * count})
            if name == "a.parquet":
                parquet.write_table(table, path, use_dictionary=False)
            else:
                with pa.ipc.new_stream(path, table.schema) as writer:
                    writer.write_table(table, max_chunksize=1000)
    paths = [str(tmp_path / folder / name) for folder in ("small", "large")]
    done = subprocess.run(
        [sys.executable, "-c", PEAK, *paths], check=True, capture_output=True, text=True
    )
    read, grown, peak, seconds = done.stdout.split()
    assert int(read) == len(row) * n
    mb = n * len(row) / 1e6
    print(f"{name}: {mb:.0f} MB, {grown} MiB more, peak {peak} MiB, {float(seconds):.1f} s")
    assert float(grown) < 40, f"{grown} MiB more for {mb:.0f} MB"


def test_what_is_hidden_in_a_folder_is_not_read(tmp_path):
    (tmp_path / "notes.txt").write_text("seen", encoding="utf-8")
    for hidden in (tmp_path / ".checkpoints" / "notes.txt", tmp_path / ".old.txt"):
        hidden.parent.mkdir(exist_ok=True)
        hidden.write_text("not seen", encoding="utf-8")
    assert files.find_files(str(tmp_path)) == [tmp_path / "notes.txt"]


@pytest.mark.parametrize("kind", ["csv", "parquet", "arrow"])
def test_a_column_name_that_two_columns_have_cannot_be_chosen(tmp_path, kind):
    path = tmp_path / f"twins.{kind}"
    table = pa.Table.from_arrays([pa.array(["a"]), pa.array(["b"])], names=["text", "text"])
    if kind == "csv":
        path.write_text("text,text\na,b\n", encoding="utf-8")
    elif kind == "parquet":
        parquet.write_table(table, path)
    else:
        with pa.ipc.new_file(path, table.schema) as file:
            file.write_table(table)
    with pytest.raises(UserError, match=r"'text' of .* holds 2 columns, not text"):
        corpora.load_corpus(DataConfig(source=str(path), column="text"))


def test_a_table_with_another_separator_is_refused(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("id;text\n1;O\n2;A\n", encoding="utf-8")
    with pytest.raises(UserError, match=r"a single column, 'id;text', with ';' in its name"):
        list(corpora.load_corpus(DataConfig(source=str(path))).train())


def test_the_column_of_a_broken_line_is_counted_in_that_line(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "O"}\n{"text": "A"\n', encoding="utf-8")
    with pytest.raises(UserError, match=r"line 2 is not JSON: .* at column 13"):
        list(corpora.load_corpus(DataConfig(source=str(path))).train())


# --- what is said rather than guessed ------------------------------------------------------------


ENGLISH, FRENCH, RUSSIAN, CHINESE = (
    "The quick brown fox jumps over the lazy dog. " * 90,
    "Où est l'été, et à quoi sert la forêt ? " * 90,
    "Съешь же ещё этих мягких французских булок, да выпей чаю. " * 40,
    "学而时习之，不亦说乎？有朋自远方来，不亦乐乎？" * 40,
)
DAMAGED = "the rest is utf-8, so the byte is damaged: mend it, or --data.encoding_errors"


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (FRENCH.encode() + b"\xff" + FRENCH.encode(), [f"offset {len(FRENCH.encode())}", DAMAGED]),
        (FRENCH.encode() * 900 + b"\xe9 " + FRENCH.encode() * 100, [DAMAGED]),
        (
            ENGLISH.encode() + b"\xe9 " + ENGLISH.encode(),
            ["lazy dog. é", "latin-1; if that is"],
        ),
        (FRENCH.encode("latin-1"), ['it would read "Où est', "--data.encoding latin-1"]),
        ("It’s “so”. ".encode("cp1252") * 90, ["it would read 'It’s", "--data.encoding cp1252"]),
        (RUSSIAN.encode("koi8-r"), ["it would read 'Съешь же", "--data.encoding koi8_r"]),
        (RUSSIAN.encode("cp1251"), ["it would read 'Съешь же", "--data.encoding cp1251"]),
        (CHINESE.encode("gbk"), ["it would read '学而", "--data.encoding gb18030"]),
        (ENGLISH.encode("utf-16-le"), ["no text", "--data.encoding utf-16-le"]),
        (ENGLISH.encode("utf-16-be"), ["no text", "--data.encoding utf-16-be"]),
        (ENGLISH.encode("utf-32-le"), ["no text", "--data.encoding utf-32-le"]),
        (FRENCH.encode("utf-16-be"), ["--data.encoding utf-16-be"]),
        (FRENCH.encode("utf-32"), ["--data.encoding utf-32"]),
        (b"\0" * 9000 + b"text", ["no text", "binary file"]),
        (b"%PDF-1.7\n\xff", ["PDF"]),
    ],
)
def test_what_is_no_utf_8_is_told_apart(tmp_path, data, said):
    (tmp_path / "a.txt").write_bytes(data)
    refused(tmp_path / "a.txt", *said)


def test_a_tar_archive_is_refused(tmp_path):
    (tmp_path / "a.md").write_text("text", encoding="utf-8")
    with tarfile.open(tmp_path / "a.txt", "w") as archive:
        archive.add(tmp_path / "a.md")
    refused(tmp_path / "a.txt", "it is a tar archive: unpack it")


@pytest.mark.parametrize("name", ["a.txt", "a.jsonl", "a.csv"])
def test_bytes_that_are_no_text_can_be_replaced_or_skipped(tmp_path, name, caplog):
    rows = {"a.txt": "%s", "a.jsonl": '{"text": "%s"}\n', "a.csv": "text,n\n%s,1\n"}
    data = (rows[name] % "café|caf").encode().replace(b"|", b"\xff|\xfe")
    (tmp_path / name).write_bytes(data)
    seen = {}
    for errors in ("replace", "skip"):
        corpus = load(tmp_path / name, val_fraction=0.0, encoding_errors=errors)
        seen[errors] = list(corpus.train())
        assert f"{name} has 2 errors in utf-8" in caplog.messages[-1]
    assert seen == {"replace": ["café\ufffd|\ufffdcaf"], "skip": ["café|caf"]}
    refused(tmp_path / name, "is not utf-8: byte 0xff")


@pytest.mark.parametrize("encoding", ["utf-8", "U8", "utf-16", "utf-16-le", "utf-32-be", "gb18030"])
def test_a_byte_order_mark_goes_in_every_encoding(tmp_path, encoding):
    mark = "" if encoding == "utf-16" else "\ufeff"
    (tmp_path / "a.txt").write_bytes(f"{mark}text".encode(encoding))
    assert files.read_text(tmp_path / "a.txt", encoding) == "text"
    (tmp_path / "a.csv").write_bytes(f"{mark}text\na\n".encode(encoding))
    assert list(load(tmp_path / "a.csv", val_fraction=0.0, encoding=encoding).train()) == ["a"]


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"id": "x1", "conversations": [{"from": "human"}]}, ["'conversations' (lists)", "a chat"]),
        ({"title": "T", "text": None}, ["'title', but 'text' (null) is more likely meant"]),
        ({"url": "http://a", "data": {"text": "b"}}, ["'url', but 'data' (objects)"]),
        ({"story": "a", "content": 3}, ["'story', but 'content' (numbers)"]),
    ],
)
@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_a_column_that_is_doubtful_is_not_guessed(tmp_path, row, said, kind):
    path = tmp_path / f"a.{kind}"
    path.write_text(json.dumps(row) + "\n", encoding="utf-8")
    if kind == "parquet":
        parquet.write_table(pa.Table.from_pylist([row]), path)
        said = [part.split(" (")[0] for part in said]
    refused(path, *said, "choose one with --data.column")


def test_the_column_is_said_and_null_rows_are_counted(tmp_path, caplog):
    caplog.set_level("INFO", "gpt2lib")
    rows = [{"title": "T", "n": 1}] * 150 + [{"title": "T", "text": None}] * 3
    rows = [json.dumps({"text": None, **row}) for row in [*rows, {"text": "late"}]]
    (tmp_path / "a.jsonl").write_text("\n".join(rows), encoding="utf-8")
    corpus = load(tmp_path / "a.jsonl", val_fraction=0.0)
    assert list(corpus.train()) == list(corpus.train()) == ["late"]
    assert caplog.messages == [
        "a.jsonl: the text is in the column 'text'",
        f"{tmp_path / 'a.jsonl'}: 'text' is null in 153 of 154 rows, which are left out",
    ]


@pytest.mark.parametrize(
    "written",
    [
        json.dumps(TABLE.to_pylist(), ensure_ascii=False),
        json.dumps(TABLE.to_pylist(), indent=2),
        "\n".join(json.dumps(row, indent=1) for row in TABLE.to_pylist()),
    ],
    ids=["an array in a line", "a printed array", "printed objects"],
)
def test_arrays_and_printed_objects(tmp_path, written, monkeypatch):
    monkeypatch.setattr("gpt2lib.data.sources.json_lines.PART", 7)
    (tmp_path / "a.json").write_text(written, encoding="utf-8")
    assert list(load(tmp_path / "a.json", val_fraction=0.0, column="body").train()) == TEXTS
    (tmp_path / "a.json").write_text(written[:-20], encoding="utf-8")
    refused(tmp_path / "a.json", f"entry {len(ROWS)} is not JSON", column="body")
    (tmp_path / "a.json").write_text('[\n {"text": "a"},\n 7\n]', encoding="utf-8")
    refused(tmp_path / "a.json", "entry 2 holds numbers, not an object")


def test_a_quote_that_swallows_rows(tmp_path):
    rows = ["id\ttext", '1\t"Hello', "2\tno quote", '3\tHello again"', "4\tthe end"]
    (tmp_path / "a.tsv").write_text("\n".join(rows), encoding="utf-8")
    refused(tmp_path / "a.tsv", "lines 2 to 4 are 3 rows, but a quote that opens in the first")
    lines = [row.replace("\t", ",") for row in [*rows[:3], *rows[2:]]]
    (tmp_path / "a.csv").write_text("\n".join(lines), encoding="utf-8")
    refused(tmp_path / "a.csv", "lines 2 to 5 are 4 rows")
    (tmp_path / "a.tsv").write_text("\n".join([*rows[:3], rows[4]]), encoding="utf-8")
    refused(tmp_path / "a.tsv", "line 2 is not CSV", "a quote that opens in that row never closes")


def test_prose_in_quotes_is_no_row(tmp_path):
    for text in ("To be,\nor not,\nto be", "I do,\nyou, too\nshe, it\nthey, we"):
        (tmp_path / "a.csv").write_text(f'id,text\n1,"{text}"\n', encoding="utf-8")
        assert list(load(tmp_path / "a.csv", val_fraction=0.0, column="text").train()) == [text]
    (tmp_path / "a.csv").write_text('name,text\nBrutus,"I do,\nyou, too\nshe, it\nthey, we"\n')
    assert len(list(load(tmp_path / "a.csv", val_fraction=0.0, column="text").train())) == 1


def test_carriage_returns_alone_end_no_row(tmp_path):
    (tmp_path / "a.csv").write_text("text,n\ra,1\r", encoding="utf-8", newline="")
    refused(tmp_path / "a.csv", "line 1 is not CSV: its lines end in carriage returns alone")


def test_subfolders_that_are_not_read_are_said(tmp_path, caplog, monkeypatch):
    for name in ("elsewhere", "texts/closed", "texts/.git"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "texts" / "a.txt").write_text("a", encoding="utf-8")
    (tmp_path / "texts" / "linked").symlink_to(tmp_path / "elsewhere")
    scan = os.scandir

    def refuse(path):
        if Path(path).name in ("closed", ".git"):
            raise PermissionError(13, "Permission denied", str(path))
        return scan(path)

    monkeypatch.setattr(os, "scandir", refuse)
    assert files.find_files(str(tmp_path / "texts")) == [tmp_path / "texts" / "a.txt"]
    (said,) = caplog.messages
    assert "closed (Permission denied)" in said and "linked (a link)" in said
    assert ".git" not in said


def test_a_column_beside_a_structure_of_the_same_name(tmp_path):
    table = pa.table({"meta": [{"text": "inner"}], "meta.text": ["outer"], "n": [1]})
    parquet.write_table(table, tmp_path / "a.parquet")
    corpus = load(tmp_path / "a.parquet", val_fraction=0.0, column="meta.text")
    assert list(corpus.train()) == ["outer"]


@pytest.mark.skipif(sys.platform != "linux", reason="names are any bytes on Linux only")
def test_a_file_name_that_is_no_utf_8(tmp_path):
    path = tmp_path / os.fsdecode(b"caf\xe9.txt")
    path.write_text("text", encoding="utf-8")
    corpus = load(path)
    assert corpus.name == corpus.origin == "caf\ufffd.txt"


@pytest.mark.skipif(os.name == "nt", reason="needs pipes and links")
def test_what_is_no_file_is_named(tmp_path):
    os.mkfifo(tmp_path / "pipe.txt")
    refused(tmp_path / "pipe.txt", "is no file and no folder, but a pipe")
    (tmp_path / "link.txt").symlink_to("nowhere.txt")
    refused(tmp_path / "link.txt", "is a link to nowhere.txt, which does not exist")


@pytest.mark.skipif(os.name == "nt", reason="needs pipes and links")
@pytest.mark.parametrize("source", ["", "/*.txt"])
def test_what_is_no_file_is_said_where_others_are(tmp_path, source, caplog):
    (tmp_path / "a.txt").write_text("a", encoding="utf-8")
    os.mkfifo(tmp_path / "pipe.txt")
    os.mkfifo(tmp_path / "pipe.log")
    (tmp_path / "link.txt").symlink_to("nowhere.txt")
    assert files.find_files(f"{tmp_path}{source}") == [tmp_path / "a.txt"]
    (said,) = caplog.messages
    assert "link.txt (a broken link)" in said and "pipe.txt (a pipe or a device)" in said
    assert "pipe.log" not in said


def test_a_relative_path_is_looked_for_here_and_a_long_name_is_named(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=f"'none.txt'; it was looked for in {tmp_path}"):
        load("none.txt")
    with pytest.raises(UserError, match=r"'To be or .*… cannot be a file .* 255 bytes, .* 300"):
        load("To be or not" * 25)


def test_an_encoding_for_each_file(tmp_path, caplog):
    caplog.set_level("INFO")
    (tmp_path / "old").mkdir()
    for name, encoding in (("a.txt", "utf-8"), ("b.lat.txt", "cp1252"), ("old/c.txt", "koi8-r")):
        text = {"cp1252": "The café is closed today", "koi8-r": "Я тут"}.get(encoding, "naïve")
        (tmp_path / name).write_bytes(text.encode(encoding))
    with pytest.raises(
        UserError, match=r"one of several files, --data.encoding '\{b.lat.txt: latin-1\}'"
    ):
        list(load(tmp_path).train())
    each = {"*.lat.txt": "cp1252", "old/*": "koi8-r", "*.none": "ascii"}
    corpus = load(tmp_path, encoding=each, val_fraction=0.0)
    assert list(corpus.train()) == ["naïve", "The café is closed today", "Я тут"]
    assert "read 1 as utf-8, 1 as cp1252, 1 as koi8-r" in caplog.text
    assert "is ascii for '*.none', but nothing reads it" in caplog.text
    prints = {load(tmp_path, encoding=e).fingerprint for e in (each, each | {"a.*": "latin-1"})}
    assert len(prints) == 2
    assert parse(["smoke", "--data.encoding", "{'*.lat.txt': cp1252}"])[1].data.encoding == {
        "*.lat.txt": "cp1252"
    }
    assert parse(["smoke", "--data.encoding", "437"])[1].data.encoding == "437"


@pytest.mark.parametrize("name", ["a.arrow", "a.feather"])
def test_values_outside_of_a_damaged_arrow_file_are_not_read(tmp_path, name):
    """pyarrow itself would read them from anywhere in the memory, or end the process."""
    offsets = pa.array([0, 1 << 20, 8], pa.int32()).buffers()[1]
    text = pa.Array.from_buffers(pa.string(), 2, [None, offsets, pa.py_buffer(b"textmore")])
    table = pa.table({"text": text})
    if name == "a.arrow":
        write_stream(tmp_path / name, table)
    else:
        feather.write_feather(table, tmp_path / name, compression="uncompressed")
    refused(tmp_path / name, "it is damaged or no")
    refused(tmp_path / name, "it is damaged or no", template="[[{text}]]")
