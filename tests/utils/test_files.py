"""Folders that are whole or absent, and that prove it."""

import errno
import json
import math
import os
import re
from pathlib import Path

import pytest

from gpt2lib.utils import files as storage
from gpt2lib.utils.errors import UserError
from gpt2lib.utils.files import atomic_folder, expand, file_lock, verify, write_text
from gpt2lib.utils.formats import read_json, read_jsonl, read_yaml, to_json, write_json


def fill(folder: Path, text: str = "new") -> None:
    (folder / "sub").mkdir()
    (folder / "a.txt").write_text(text, encoding="utf-8")
    (folder / "sub" / "b.bin").write_bytes(bytes(range(256)))


@pytest.fixture
def sealed(tmp_path) -> Path:
    with atomic_folder(tmp_path / "target") as folder:
        fill(folder, "old")
    return tmp_path / "target"


def entries(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


def refused(match: str):
    """Expect one line that matches."""
    return pytest.raises(UserError, match=re.compile(f"^[^\n]*{match}[^\n]*$"))


def assert_old_state(target: Path) -> None:
    """The folder is as the fixture made it, and nothing lies beside it."""
    verify(target)
    assert (target / "a.txt").read_text(encoding="utf-8") == "old"
    assert entries(target.parent) == ["target"]


# ── writing ─────────────────────────────────────────────────────────────────────────────────────


def test_a_folder_is_written_with_a_manifest_of_every_file(sealed):
    manifest = read_json(sealed / "manifest.json")
    assert sorted(manifest["files"]) == ["a.txt", "sub/b.bin"]
    entry = manifest["files"]["a.txt"]
    assert entry["size"] == 3 and len(entry["sha256"]) == 64
    assert_old_state(sealed)


def test_it_is_not_in_place_before_the_block_ends(tmp_path):
    with atomic_folder(tmp_path / "deep" / "target") as folder:
        fill(folder)
        assert not (tmp_path / "deep" / "target").exists()
        assert folder.parent == tmp_path / "deep"  # same file system, so the rename is one move
    verify(tmp_path / "deep" / "target")


def test_it_replaces_an_old_folder_whole(sealed):
    (sealed / "leftover.txt").write_text("x", encoding="utf-8")
    with atomic_folder(sealed) as folder:
        fill(folder, "new")
    assert (sealed / "a.txt").read_text(encoding="utf-8") == "new"
    assert not (sealed / "leftover.txt").exists()
    assert entries(sealed.parent) == ["target"]
    verify(sealed)


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_a_crash_in_the_block_leaves_the_old_state(sealed, error):
    with pytest.raises(error), atomic_folder(sealed) as folder:
        fill(folder)
        raise error
    assert_old_state(sealed)


def test_a_crash_in_the_first_write_leaves_nothing(tmp_path):
    with pytest.raises(RuntimeError), atomic_folder(tmp_path / "target") as folder:
        fill(folder)
        raise RuntimeError
    assert entries(tmp_path) == []


def no_space(*_):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_full_disk_in_the_block_is_one_line_and_leaves_the_old_state(sealed):
    with refused("cannot write .*target: No space left"), atomic_folder(sealed) as folder:
        fill(folder)
        no_space()
    assert_old_state(sealed)


@pytest.mark.parametrize("function", ["flush", "sha256"])
def test_a_full_disk_while_sealing_leaves_the_old_state(sealed, monkeypatch, function):
    with monkeypatch.context() as patched:
        patched.setattr(storage, function, no_space)
        with refused("No space left"), atomic_folder(sealed) as folder:
            fill(folder)
    assert_old_state(sealed)


def test_a_rename_that_fails_puts_the_old_folder_back(sealed, monkeypatch):
    rename = Path.rename

    def failing(self, to):
        if ".tmp-" in self.name:  # the second of the two: the old folder is aside by now
            raise OSError(errno.EIO, "Input/output error")
        return rename(self, to)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "rename", failing)
        with refused("Input/output error"), atomic_folder(sealed) as folder:
            fill(folder)
    assert_old_state(sealed)


def test_every_file_is_flushed_before_the_manifest_and_the_manifest_before_the_rename(
    sealed, monkeypatch
):
    events = []
    flush, rename = storage.flush, Path.rename
    monkeypatch.setattr(storage, "flush", lambda p: (events.append(p.name), flush(p)))
    monkeypatch.setattr(
        Path, "rename", lambda self, to: (events.append("rename"), rename(self, to))[1]
    )
    with atomic_folder(sealed) as folder:
        fill(folder)
    temporary = f".target.tmp-{os.getpid()}"
    flushed = ["a.txt", "b.bin", "manifest.json", temporary, "sub"]
    # The old folder goes aside only when the new one is sealed.
    assert events == [*flushed, "rename", "rename", sealed.parent.name]


def test_leftovers_of_killed_writers_are_cleared_away(sealed):
    for name in (".target.tmp-1", f".target.tmp-{os.getpid()}", ".target.old-2"):
        (sealed.parent / name).mkdir()
        (sealed.parent / name / "half").write_text("x", encoding="utf-8")
    with atomic_folder(sealed) as folder:
        fill(folder, "old")
    assert_old_state(sealed)


def test_what_a_killed_writer_had_moved_aside_is_put_back(sealed):
    sealed.rename(sealed.parent / ".target.old-1")  # killed between the two renames
    with pytest.raises(RuntimeError), atomic_folder(sealed):
        raise RuntimeError
    assert_old_state(sealed)


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path):
    (tmp_path / "file").write_text("x", encoding="utf-8")
    with refused("cannot write .*: Not a directory"), atomic_folder(tmp_path / "file" / "target"):
        pass


# ── verifying ───────────────────────────────────────────────────────────────────────────────────


def truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def flipped(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda f: (f / "sub/b.bin").unlink(), "target lacks sub/b.bin"),
        (lambda f: truncated(f / "sub/b.bin"), "b.bin has 255 bytes instead of 256"),
        (lambda f: flipped(f / "sub/b.bin"), "b.bin was altered: its sha256 differs"),
        (lambda f: (f / "manifest.json").unlink(), "not complete: manifest.json is missing"),
        (lambda f: truncated(f / "manifest.json"), "manifest.json cannot be read"),
    ],
    ids=["missing", "truncated", "flipped", "no manifest", "truncated manifest"],
)
def test_damage_is_named_in_one_line_with_a_way_out(sealed, damage, says):
    damage(sealed)
    with refused(f"{says}.*; use another copy"):
        verify(sealed)


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "7", "{}", '{"files": []}', '{"files": {"a.txt": 3}}', '{"files": {"a": {}}}'],
)
def test_a_garbled_manifest_is_one_line(sealed, text):
    (sealed / "manifest.json").write_text(text, encoding="utf-8")
    with refused("manifest.json cannot be read"):
        verify(sealed)


def test_a_manifest_of_bytes_that_are_no_text_is_one_line(sealed):
    (sealed / "manifest.json").write_bytes(b"\xff\xfe\x00")
    with refused("manifest.json cannot be read"):
        verify(sealed)


# ── single files ────────────────────────────────────────────────────────────────────────────────


def test_json_goes_around(tmp_path):
    write_json(tmp_path / "x.json", {"größe": 1, "b": [1.5, None]})
    assert read_json(tmp_path / "x.json") == {"größe": 1, "b": [1.5, None]}
    assert entries(tmp_path) == ["x.json"]


def test_bad_json_is_one_line(tmp_path):
    path = tmp_path / "x.json"
    with refused("x.json is missing"):
        read_json(path)
    for text, says in (("{", "x.json is not JSON"), ("[1]", "must hold a JSON object")):
        path.write_text(text, encoding="utf-8")
        with refused(says):
            read_json(path)


@pytest.mark.parametrize("where", ["flush", "replace"])
def test_a_text_file_that_cannot_be_written_stays_as_it_was(tmp_path, monkeypatch, where):
    path = tmp_path / "x.txt"
    write_text(path, "old")
    with monkeypatch.context() as patched:
        if where == "flush":
            patched.setattr(storage, "flush", no_space)
        else:
            patched.setattr(Path, "replace", no_space)
        with refused("cannot write .*x.txt: No space left"):
            write_text(path, "new")
    assert path.read_text(encoding="utf-8") == "old"
    assert entries(tmp_path) == ["x.txt"]


def test_a_manifest_is_json_that_others_can_check(sealed):
    """The hash is the plain sha256 of the file, as `sha256sum` prints it."""
    import hashlib

    files = json.loads((sealed / "manifest.json").read_text(encoding="utf-8"))["files"]
    for name, entry in files.items():
        assert entry["sha256"] == hashlib.sha256((sealed / name).read_bytes()).hexdigest()


def test_a_home_folder_is_put_in_place_and_an_unknown_user_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    assert expand("~/runs/a") == tmp_path / "runs" / "a"
    assert expand(Path("runs") / "~") == Path("runs") / "~"
    with refused("~no-such-user/x begins with ~no-such-user, but no such user"):
        expand("~no-such-user/x")


# ── lines, fields and locks ─────────────────────────────────────────────────────────────────────


def test_lines_are_read_while_one_is_written(tmp_path):
    path = tmp_path / "x.jsonl"
    assert read_jsonl(path, "step") == []
    path.write_bytes(b'{"step": 1}\n\n{"step": 2, "text": "\xc3\xa4"}\n{"step": 3, "te\xc3')
    wanted = [{"step": 1}, {"step": 2, "text": "ä"}]
    assert read_jsonl(path, "step") == read_jsonl(path, "step", strict=True) == wanted


@pytest.mark.parametrize(
    "line", [b'{"step": 1, "lo', b"[1]", b'{"a": 1}', b'{"step": "x"}', b"\xff"]
)
def test_a_damaged_line_is_left_out_or_named(tmp_path, line):
    path = tmp_path / "x.jsonl"
    path.write_bytes(b'{"step": 1}\n' + line + b'\n{"step": 2}\n')
    assert read_jsonl(path, "step") == [{"step": 1}, {"step": 2}]
    with refused("x.jsonl, line 2 is damaged"):
        read_jsonl(path, "step", strict=True)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (b"a: [", "is not YAML"),
        (b"\xff", "is not YAML"),
        (b"- 1", "must hold fields"),
        (b"a: 1\na: 2", "has 'a' twice"),
    ],
)
def test_bad_yaml_is_one_line(tmp_path, text, says):
    path = tmp_path / "x.yaml"
    path.write_bytes(text)
    with refused(f"x.yaml {says}"):
        read_yaml(path)
    path.write_text("a: {b: 1}", encoding="utf-8")
    assert read_yaml(path) == {"a": {"b": 1}}


def test_json_is_written_in_the_asked_style(tmp_path):
    path = tmp_path / "x.json"
    write_json(path, {"a": "ä"})
    assert path.read_bytes() == b'{\n "a": "\\u00e4"\n}\n'
    write_json(path, {"a": "ä"}, indent=None, ensure_ascii=False)
    assert path.read_text(encoding="utf-8") == '{"a": "ä"}\n'


def test_a_lock_is_held_by_one_and_let_go_of(tmp_path):
    def busy():
        raise UserError("busy")

    for _ in range(2):
        with file_lock(tmp_path / "lock"), refused("busy"), file_lock(tmp_path / "lock", busy):
            pass


def test_a_lock_is_waited_for(tmp_path):
    import threading

    mine, told = file_lock(tmp_path / "lock"), threading.Event()
    mine.__enter__()
    got = []

    def wait():
        with file_lock(tmp_path / "lock", told.set):
            got.append(True)

    other = threading.Thread(target=wait)
    other.start()
    assert told.wait(10) and not got
    mine.__exit__(None, None, None)
    other.join(10)
    assert got


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="asks Linux what is flushed")
def test_every_file_is_on_the_disk_before_it_takes_its_place(tmp_path, monkeypatch):
    done: list[str] = []
    real_sync, real_rename, real_replace = os.fsync, Path.rename, Path.replace

    def sync(descriptor: int) -> None:
        real_sync(descriptor)
        done.append(os.path.realpath(f"/proc/self/fd/{descriptor}"))

    def move(real, path, target):
        done.append("moved")
        return real(path, target)

    monkeypatch.setattr(os, "fsync", sync)
    monkeypatch.setattr(Path, "rename", lambda path, target: move(real_rename, path, target))
    monkeypatch.setattr(Path, "replace", lambda path, target: move(real_replace, path, target))
    write_text(tmp_path / "a.txt", "text")
    assert len(done) == 2 and done[1] == "moved" and Path(done[0]).name.startswith(".a.txt")
    done.clear()
    with atomic_folder(tmp_path / "made") as folder:
        (folder / "inner").mkdir()
        (folder / "inner" / "b.txt").write_text("text", encoding="utf-8")
    before, after = done[: done.index("moved")], done[done.index("moved") + 1 :]
    assert [Path(name).name for name in before[:2]] == ["b.txt", "manifest.json"]
    assert Path(before[-1]).name == "inner" and after == [os.path.realpath(tmp_path)]


def test_json_has_no_number_that_is_none():
    values = {"a": math.nan, "b": [math.inf, 1.5], "c": (-math.inf,)}
    assert to_json(values) == '{"a": null, "b": [null, 1.5], "c": [null]}'
