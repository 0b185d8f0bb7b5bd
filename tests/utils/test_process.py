"""Which process this is, and memory: kept when it is freed, given back when that is asked."""

from __future__ import annotations

import json
import os
import platform
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from gpt2lib.utils import process
from gpt2lib.utils.process import interruptible

RUN = """
import json, sys
from pathlib import Path
from gpt2lib.utils.process import give_back_freed_memory, keep_freed_memory

def resident():
    rows = dict(r.split(":", 1) for r in Path("/proc/self/status").read_text().splitlines())
    return int(rows["VmRSS"].split()[0]) / 1000

told = keep_freed_memory() if sys.argv[1] == "kept" else None
before = resident()
blocks = [bytearray(10_000_000) for _ in range(20)]
last = bytearray(100)  # above them: what is free lies inside, not at the end
held = resident() - before
del blocks
freed = resident() - before
give_back_freed_memory()
print(json.dumps([told, held, freed, resident() - before, "torch" in sys.modules]))
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="speaks to glibc")
@pytest.mark.parametrize("how", ["kept", "as it comes"])
def test_freed_memory_is_kept_until_it_is_given_back(how: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", RUN, how],
        capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2],
    )  # fmt: skip
    told, held, freed, given_back, torch = json.loads(done.stdout)
    assert held > 190
    assert told is (True if how == "kept" else None)
    assert freed > 190 if how == "kept" else freed < 30
    assert given_back < 30 and not torch


def test_another_library_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    from gpt2lib.utils import process

    monkeypatch.setattr(platform, "libc_ver", lambda: ("", ""))
    monkeypatch.setattr(process.ctypes, "CDLL", None)
    assert process.keep_freed_memory() is False
    process.give_back_freed_memory()


def test_a_launcher_says_which_process_this_is(monkeypatch: pytest.MonkeyPatch) -> None:
    from gpt2lib.utils.process import rank, world_size

    for name in ("RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    assert (rank(), world_size()) == (0, 1)
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert (rank(), world_size()) == (1, 2)


LONG = """
import random, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's & has it ignored
from gpt2lib.tokenizer import gpt2_tokenizer, train_bpe
letters = random.Random(0).choices("ACGT", k=8_000_000)
text = "".join(letters)
print("ready", flush=True)
if sys.argv[1] == "learn":
    train_bpe([text], 60_000)
elif sys.argv[1] == "read":
    train_bpe(("".join(random.choices("ACGT ", k=2000)) for _ in iter(int, 1)), 1024)
else:
    gpt2_tokenizer().encode(text)
"""


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGINT for another process")
@pytest.mark.parametrize("stage", ["learn", "read", "encode"])
def test_ctrl_c_is_heard_while_a_library_computes(stage):
    command = [sys.executable, "-c", LONG, stage]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True) as running:
        assert running.stdout.readline() == "ready\n"
        time.sleep(1)
        running.send_signal(signal.SIGINT)
        sent = time.monotonic()
        try:
            _, said = running.communicate(timeout=60)
        finally:
            running.kill()
    assert time.monotonic() - sent < 5  # two on a machine that has nothing else to do
    assert said.rstrip().endswith("KeyboardInterrupt")  # and no abort after it


def test_an_interruptible_call_returns_and_raises():
    assert interruptible(lambda: 3) == 3
    with pytest.raises(ZeroDivisionError):
        interruptible(lambda: 1 // 0)


def test_a_container_with_less_than_the_machine_is_seen(tmp_path: Path) -> None:
    assert process.cgroup_left(tmp_path) is None
    stat = "anon 5\ninactive_file 40\n"
    files = {"memory.max": "1000\n", "memory.current": "300\n", "memory.stat": stat}
    for name, text in files.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    assert process.cgroup_left(tmp_path) == 740
    (tmp_path / "memory.max").write_text("max\n", encoding="utf-8")
    assert process.cgroup_left(tmp_path) is None
    old = tmp_path / "v1" / "memory"
    old.mkdir(parents=True)
    files = {"memory.limit_in_bytes": "900", "memory.usage_in_bytes": "300"}
    for name, text in {**files, "memory.stat": "total_inactive_file 7\n"}.items():
        (old / name).write_text(text, encoding="utf-8")
    assert process.cgroup_left(tmp_path / "v1") == 607


def test_processes_of_one_launch_share_what_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    alone = process.available_memory("cpu")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    assert process.available_memory("cpu") == pytest.approx(alone / 4, rel=0.2)
