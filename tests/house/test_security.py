"""Files of a stranger: for each sentence of SECURITY.md, a file that would have it broken."""

from __future__ import annotations

import ast
import gzip
import importlib
import io
import itertools
import json
import logging
import os
import pickle
import re
import struct
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tokenizers
import torch
from safetensors.torch import save_file

from gpt2lib import cli
from gpt2lib.config import DataConfig, load_config
from gpt2lib.course import guesses, launch
from gpt2lib.course.live import Samples
from gpt2lib.data.sources import bounds, load_corpus
from gpt2lib.hub import load_pretrained
from gpt2lib.tokenizer import load_tokenizer
from gpt2lib.tokenizer.pretokenizer import byte_to_unicode
from gpt2lib.utils.errors import UserError, visible
from gpt2lib.utils.files import clear_leftovers, verify, write_text
from gpt2lib.utils.formats import write_json

ROOT = Path(__file__).parents[2]
LIBRARY = sorted((ROOT / "gpt2lib").rglob("*.py"))
SHAPE = {"n_layer": 1, "n_head": 1, "n_embd": 4}
GPT2 = {"model_type": "gpt2", **SHAPE, "n_positions": 8, "vocab_size": 10}
NANOGPT = {**SHAPE, "block_size": 8, "vocab_size": 10, "bias": False, "dropout": 0.0}
BYTES = {symbol: i for i, symbol in enumerate(byte_to_unicode().values())}
DEEP = 100_000


class Bomb:
    """What a pickle would run when it is opened."""

    def __reduce__(self) -> tuple[Callable[[str], Any], tuple[str]]:
        return os.mkdir, ("exploded",)


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Work in an empty folder, in which nothing may explode."""
    monkeypatch.chdir(tmp_path)
    yield
    assert not Path("exploded").exists()


def refused(pattern: str, call: Callable[..., Any], *arguments: Any) -> None:
    with pytest.raises(UserError, match=pattern) as caught:
        call(*arguments)
    assert len(str(caught.value)) < 2000


def model(config: Any = GPT2, weights: bytes | None = None) -> Path:
    """Write a folder of transformers."""
    folder = Path("model")
    folder.mkdir(exist_ok=True)
    text = config if isinstance(config, str) else json.dumps(config)
    (folder / "config.json").write_text(text, encoding="utf-8")
    save_file({"a": torch.zeros(2)}, folder / "model.safetensors")
    if weights is not None:
        (folder / "model.safetensors").write_bytes(weights)
    return folder


def tokenizer(content: Any, name: str = "tokenizer.json") -> Path:
    """Write a tokenizer's folder."""
    Path("tokenizer").mkdir(exist_ok=True)
    text = content if isinstance(content, str) else json.dumps(content)
    Path("tokenizer", name).write_text(text, encoding="utf-8")
    return Path("tokenizer")


def bytes_alone(**changes: Any) -> dict[str, Any]:
    """Return a tokenizer.json whose tokens are the bytes, with changes."""
    inner: Any = tokenizers.Tokenizer(tokenizers.models.BPE(vocab=BYTES, merges=[]))
    inner.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    return {**json.loads(inner.to_str()), **changes}


def read(path: Path) -> str:
    """Read a text as a training does."""
    corpus = load_corpus(DataConfig(source=str(path)))
    return "".join(corpus.read("train"))


def settings(text: str) -> Any:
    Path("a.yaml").write_text(text, encoding="utf-8")
    return load_config("a.yaml")


# ── what is never done ──────────────────────────────────────────────────────────────────────────


def test_a_pickle_is_refused_and_not_run() -> None:
    torch.save({"model": {"a": Bomb()}, "model_args": NANOGPT}, "ckpt.pt")
    refused("could run code", load_pretrained, Path("ckpt.pt"))
    Path("ckpt.pt").write_bytes(pickle.dumps(Bomb()))
    refused("ckpt.pt", load_pretrained, Path("ckpt.pt"))
    folder = model()
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Bomb()))
    refused("a pickle, which can run any code", load_pretrained, folder)
    folder = model(weights=pickle.dumps(Bomb()))
    refused("no safetensors file", load_pretrained, folder)


def test_code_of_a_model_is_not_run() -> None:
    folder = model({**GPT2, "auto_map": {"AutoModelForCausalLM": "evil.Model"}})
    (folder / "evil.py").write_text("import os; os.mkdir('exploded')", encoding="utf-8")
    refused("never run here", load_pretrained, folder)


@pytest.mark.parametrize(
    "text",
    [
        "!!python/object/apply:os.mkdir [exploded]",
        "steps: !!python/object/apply:os.mkdir [exploded]",
        "steps: !!python/name:os.mkdir",
    ],
)
def test_yaml_makes_plain_values(text: str) -> None:
    refused("is not YAML", settings, text)
    assert cli.main(["train", "smoke", "--steps", text.partition(": ")[2] or text]) == 2


def test_the_library_evaluates_no_text() -> None:
    """What could run a stranger's text has these names, and the course alone has some of them."""
    own = {"eval", "exec", "compile", "__import__"}
    others = {"os.system", "os.popen", "yaml.unsafe_load", "yaml.full_load", "torch.package"}
    fixed = {"shell": "False", "allow_pickle": "False", "trust_remote_code": "False"}
    for path in LIBRARY:
        text = path.read_text(encoding="utf-8")
        assert not re.search(r"^\s*(import|from) (pickle|marshal|shelve|dill)\b", text, re.M), path
        for node in ast.walk(ast.parse(text)):
            if not isinstance(node, ast.Call):
                continue
            name, where = ast.unparse(node.func), f"{path.name}, line {node.lineno}"
            given = {str(k.arg): ast.unparse(k.value) for k in node.keywords}
            assert name not in own | others, where
            assert all(given.get(key, value) == value for key, value in fixed.items()), where
            if name == "torch.load":
                assert given.get("weights_only") == "True", where


def test_a_record_beside_a_run_starts_no_other_program() -> None:
    Path("run").mkdir()
    Path("run", "requested.yaml").write_text("steps: 1", encoding="utf-8")
    evil = ["-c", "import os; os.mkdir('exploded')"]
    for arguments in (evil, ["-m", "gpt2lib", *evil], ["-m", "accelerate.commands.launch", *evil]):
        record = {"pid": 2**22 + 1, "started": 0.0, "log_from": 0, "arguments": arguments}
        write_json(Path("run.process.json"), record)
        refused("names no training", launch.attach("run").resume)


def test_the_network_is_used_where_something_is_named() -> None:
    names = "urllib.request|http|requests|httpx|socket|huggingface_hub|datasets"
    network = rf"^\s*(?:import|from) ({names})\b"
    found = {p.stem for p in LIBRARY if re.search(network, p.read_text("utf-8"), re.M)}
    assert found == {"find", "hf", "named"}


# ── what a file may cost ────────────────────────────────────────────────────────────────────────


def test_anchors_of_anchors_are_refused() -> None:
    names = "abcdefghij"
    pairs = itertools.pairwise(names)
    rows = [f"&{new} [{', '.join([f'*{old}'] * 10)}]" for old, new in pairs]
    bomb = f"[&a [1, 1], {', '.join(rows)}]"
    refused("131072 values", settings, f"data: {{mixture: {{x: {bomb}}}}}")
    refused("131072 values", settings, "data: &a {mixture: *a}")
    assert settings("model: {n_layer: &n 3, n_head: *n, n_embd: 12}").model.n_head == 3


@pytest.mark.parametrize("text", ["[" * DEEP, "{a: " * DEEP, "steps: " + "9" * 5000])
def test_yaml_beyond_measure_is_one_line(text: str) -> None:
    refused("nested too deeply|cannot be read", settings, text[: 4 * 20_000])


def test_a_date_that_there_is_not_is_one_line() -> None:
    refused("month must be in", settings, "steps: 2001-99-99")


def test_json_beyond_measure_is_one_line() -> None:
    for text in ("[" * DEEP, '{"a":' * DEEP, '{"a": ' + "9" * 5000 + "}"):
        refused("is not JSON", load_pretrained, model(text))
        refused("is garbled", load_tokenizer, tokenizer(text))
        refused("is garbled", load_tokenizer, tokenizer(text, "chars.json"))
        Path("tokenizer", "chars.json").unlink()
        Path("rows.jsonl").write_text(text, encoding="utf-8")
        refused("cannot be read|not JSON", read, Path("rows.jsonl"))
        Path("sealed").mkdir(exist_ok=True)
        Path("sealed", "manifest.json").write_text(text, encoding="utf-8")
        refused("cannot be read", verify, Path("sealed"))


@pytest.mark.parametrize("token", [2**24, 2**31, 2**32 - 1, 10**12])
def test_an_id_beyond_measure_is_refused(token: int) -> None:
    """Of the larger ones a table would end the process: the library aborts."""
    added = {"id": token, "content": "<x>", "special": True, "normalized": False}
    added |= dict.fromkeys(("single_word", "lstrip", "rstrip"), False)
    refused("it has the id", load_tokenizer, tokenizer(bytes_alone(added_tokens=[added])))
    whole = bytes_alone()
    whole["model"]["vocab"]["ab"] = token
    refused("it has the id", load_tokenizer, tokenizer(whole))
    Path("tokenizer", "tokenizer.json").unlink()
    tokenizer("#version: 0.2\n", "merges.txt")
    refused("it has the id", load_tokenizer, tokenizer({**BYTES, "ab": token}, "vocab.json"))


def test_a_tokenizer_does_not_make_a_text_longer_without_bound() -> None:
    def replace(content: str, times: int, **pattern: str) -> Path:
        step = {"type": "Replace", "pattern": pattern, "content": content}
        steps = {"type": "Sequence", "normalizers": [step] * times}
        return tokenizer(bytes_alone(normalizer=steps))

    refused("10000000 times as long", load_tokenizer, replace("a" * 10, 7, String="a"))
    refused("times as long", load_tokenizer, replace("a" * 10, 2, Regex=""))
    assert len(load_tokenizer(replace("b" * 8, 2, String="a")).encode("aa")) == 16


def test_a_regular_expression_does_not_try_for_ever() -> None:
    split = {"type": "Split", "behavior": "Isolated", "invert": False}
    split |= {"pattern": {"Regex": "(a+)+$"}}
    steps = {"type": "Sequence", "pretokenizers": [split, bytes_alone()["pre_tokenizer"]]}
    loaded = load_tokenizer(tokenizer(bytes_alone(pre_tokenizer=steps)))
    assert len(loaded.encode("aab")) == 3
    refused("cannot split the text", loaded.encode, "a" * 40 + "b")


@pytest.mark.parametrize(
    "promised",
    [{"n_embd": 2**20}, {"n_layer": 10**9}, {"vocab_size": 10**9}, {"n_positions": 10**12}],
)
def test_a_configuration_that_promises_too_much_is_refused_before_memory_is_taken(
    promised: dict[str, int],
) -> None:
    refused("no place for|must be at most", load_pretrained, model({**GPT2, **promised}))


@pytest.mark.parametrize(
    "weights",
    [
        struct.pack("<Q", 2**62) + b"{}",
        struct.pack("<Q", 100_000_001) + b"{}",
        struct.pack("<Q", DEEP) + b"[" * DEEP,
        struct.pack("<Q", 2) + b"{}" + bytes(100),
    ],
)
def test_a_damaged_header_of_safetensors_is_one_line(weights: bytes) -> None:
    refused("no safetensors file", load_pretrained, model(weights=weights))


def test_tensors_that_overlap_or_overflow_are_refused() -> None:
    for entries in (
        {"a": [2, 0, 8], "b": [2, 0, 8]},  # one place for two
        {"a": [2**62, 0, 0]},
        {"a": [2, 0, 1 << 40]},
    ):
        header = {
            n: {"dtype": "F32", "shape": [e[0]], "data_offsets": e[1:]} for n, e in entries.items()
        }
        text = json.dumps(header).encode()
        weights = struct.pack("<Q", len(text)) + text + bytes(8)
        refused("no safetensors file", load_pretrained, model(weights=weights))


def test_few_stored_numbers_do_not_make_a_large_model() -> None:
    wide = {**NANOGPT, "n_embd": 2**14, "vocab_size": 2**17}
    shown = torch.zeros(1).expand(2**17, 2**14)
    torch.save({"model": {"transformer.wte.weight": shown}, "model_args": wide}, "ckpt.pt")
    assert Path("ckpt.pt").stat().st_size < 5000
    refused("but only 4 are stored", load_pretrained, Path("ckpt.pt"))


def packed_rows(name: str, head: str, tail: str) -> Path:
    with gzip.open(name, "wb") as file:
        file.write(f"{head}{'a' * 200_000}{tail}".encode())
    return Path(name)


def test_a_row_without_an_end_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounds, "LARGEST", 100_000)
    said = "is longer than 100,000 characters"
    refused(f"line 1 {said}", read, packed_rows("a.jsonl.gz", '{"text": "', '"}\n'))
    refused(f"line 2 {said}", read, packed_rows("a.csv.gz", "text\n", "\n"))
    Path("open.csv").write_text('text\n"' + "word\n" * 40_000, encoding="utf-8")
    refused(f"line 20001 {said}", read, Path("open.csv"))


@pytest.mark.parametrize(
    "kind", ["txt.gz", "txt.zst", "jsonl.gz", "parquet.gz", "parquet", "arrow"]
)
def test_an_archive_bomb_is_refused(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounds, "UNPACKED", 1 << 22)
    path, text = Path(f"bomb.{kind}"), "a" * (1 << 20)
    once = pa.DictionaryArray.from_arrays(pa.array([0] * 50, pa.int32()), pa.array([text]))
    table, sink = pa.table({"text": once}), io.BytesIO()
    if kind.startswith("parquet"):
        pq.write_table(table, sink, compression="zstd")
    elif kind == "arrow":
        options = pa.ipc.IpcWriteOptions(compression="zstd")
        with pa.ipc.new_file(sink, table.schema, options=options) as writer:
            writer.write_table(table)
    data = sink.getvalue() or f'{{"text": "{text[:1000]}"}}\n'.encode() * 50_000
    if kind == "parquet.gz":
        data += bytes(50 << 20)  # unpacked to the disk, to be read at its end
    if kind.endswith("gz"):
        data = gzip.compress(data)
    if kind.endswith("zst"):
        data = pa.compress(data, "zstd", asbytes=True)
    path.write_bytes(data)
    refused("over 200 times as many, as no text does", read, path)


def test_text_that_packs_well_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounds, "UNPACKED", 1 << 16)
    text = "".join(f"{i:08} a line of a log that hardly changes\n" for i in range(20_000))
    Path("log.txt.gz").write_bytes(gzip.compress(text.encode()))
    assert text.startswith(read(Path("log.txt.gz")))


# ── where files lie ─────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "name", ["../secret", "/etc/passwd", "a/../../secret", "..\\secret", "C:/x"]
)
def test_a_list_names_nothing_outside_of_its_folder(name: str) -> None:
    Path("secret").write_bytes(b"x")
    sealed = Path("sealed")
    sealed.mkdir()
    entry = {"size": 1, "sha256": "0" * 64}
    write_json(sealed / "manifest.json", {"format": 1, "files": {name: entry}})
    refused("leads out of", verify, sealed)
    folder = model()
    (folder / "model.safetensors").unlink()
    write_json(folder / "model.safetensors.index.json", {"weight_map": {"a": name}})
    refused("outside of the folder", load_pretrained, folder)
    saved = Path("saved")
    saved.mkdir()
    write_json(saved / "state.json", {"_data_files": [{"filename": name}]})
    write_json(saved / "dataset_info.json", {})
    refused("leads out of", read, saved)
    write_json(saved / "dataset_dict.json", {"splits": ["train", name]})
    write_json(saved / "dataset_dict.json", {"splits": [name]})
    refused("leads out of|no split", read, saved)


def test_no_archive_is_unpacked() -> None:
    with zipfile.ZipFile("evil.txt", "w") as archive:
        archive.writestr("../../exploded", "x")
    refused("a zip archive", read, Path("evil.txt"))


@pytest.mark.skipif(sys.platform == "win32", reason="links need a right there")
def test_links_are_not_followed_where_folders_are_read_or_cleared(
    caplog: pytest.LogCaptureFixture,
) -> None:
    Path("private").mkdir()
    Path("private", "diary.txt").write_text("secret " * 100, encoding="utf-8")
    Path("texts").mkdir()
    Path("texts", "a.txt").write_text("to be read\n" * 100, encoding="utf-8")
    Path("texts", "more").symlink_to(Path("private").resolve())
    with caplog.at_level(logging.WARNING):
        assert "secret" not in read(Path("texts"))
    assert "more (a link)" in caplog.text
    for left in (".step.tmp-1", ".step.gone-1"):
        Path("texts", left).symlink_to(Path("private").resolve())
        with pytest.raises(OSError, match="symbolic link"):
            clear_leftovers(Path("texts"))
        Path("texts", left).unlink()
    assert Path("private", "diary.txt").exists()


@pytest.mark.skipif(sys.platform == "win32", reason="links need a right there")
def test_a_link_is_replaced_and_not_written_through() -> None:
    Path("mine").write_text("mine", encoding="utf-8")
    Path("result.json").symlink_to("mine")
    write_text(Path("result.json"), "{}")
    assert Path("mine").read_text(encoding="utf-8") == "mine"
    assert not Path("result.json").is_symlink()


# ── what is shown ───────────────────────────────────────────────────────────────────────────────

EVIL = "<script>alert(1)</script><img src=x onerror=alert(1)>"


def test_a_sample_in_a_notebook_is_text() -> None:
    line = json.dumps({"step": 1, "text": EVIL})
    Path("samples.jsonl").write_text(line + "\n", encoding="utf-8")
    html = Samples.read(Path())._repr_html_()
    assert "&lt;script&gt;" in html
    assert "<script" not in html and "<img" not in html


def test_every_html_of_the_course_escapes_what_it_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[str] = []
    monkeypatch.setattr(guesses, "show", lambda text, html="", **_: shown.append(html))
    guesses.predict(EVIL, 1.0)
    assert shown and all("<script" not in html and "<img" not in html for html in shown)


def test_a_terminal_obeys_nothing(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    evil = "\x1b]0;owned\x07\x9b31m\r\x08"
    assert visible(f"{evil}\n\té") == "�]0;owned��31m��\n\té"
    name = "\x1b[31m.txt"
    Path(name).write_text("short", encoding="utf-8")
    assert cli.main(["train", "smoke", "--data.source", name]) == 2
    assert "\x1b" not in capsys.readouterr().err
    with cli._messages_shown():
        logging.getLogger("gpt2lib.data").warning("column %s", evil)
    assert "\x1b" not in capsys.readouterr().err
    command: Any = importlib.import_module("gpt2lib.cli.generate")
    monkeypatch.setattr(command, "_continuation", lambda options: iter([evil]))
    command.generate(["run", "--prompt", "x"])
    assert evil in capsys.readouterr().out  # a pipe
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    command.generate(["run", "--prompt", "x"])
    assert "\x1b" not in capsys.readouterr().out
