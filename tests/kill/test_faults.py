"""Faults of disks, files, folders and processes, injected into real runs.

Of each is asked: nothing whole is lost, the run ends with one clear line and exit code 2 (or
goes on), and once the fault is gone the same command ends bitwise as a run that never had it.

Injected here:
- the disk is full at any write, flush, rename or deletion of a run: settings, lines of the logs,
  every file of a checkpoint, its manifest, rotation, result (ENOSPC, the file half written);
- the system itself refuses to let a file grow (a real limit, not a replaced function);
- the folder is on a read-only disk;
- in the newest checkpoint and in all of them: a file truncated, a byte flipped, a file missing,
  the manifest missing or garbled;
- two processes begin in one folder at once, with the same or with other settings;
- with two processes: the disk of rank 0 is full; the loss of rank 1 alone is NaN;
- SIGTERM and SIGINT: in an update, an evaluation, a save, the last evaluation, while starting; on
  one rank and on both; twice.

The same faults on single functions are in test_files.py and test_checkpoint.py, NaN and
infinity on one process in test_guard.py, SIGKILL in test_kill.py.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

if not hasattr(os, "fork"):
    pytest.skip("forks its processes", allow_module_level=True)
from kill_runs import Ended, Kill, Lab, Server, digest, lines_of

from gpt2lib.runs.checkpoint import checkpoints
from gpt2lib.utils.files import verify

WRITES = ("half of", "before fsync", "before rename", "within a removal")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with Server(tmp_path_factory.mktemp("server")) as running:
        yield running


@pytest.fixture(scope="module")
def lab(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Lab:
    return Lab(server, tmp_path_factory.mktemp("lab"))


@pytest.fixture(scope="module")
def pair(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Lab:
    """The same on two processes."""
    return Lab(server, tmp_path_factory.mktemp("pair"), ranks=2)


def refusals(ended: Ended) -> list[str]:
    """Return the lines of refusal; there must be no traceback."""
    assert not [line for line in ended.lines if "Traceback" in line], ended.lines
    return [line for line in ended.lines if line.startswith("gpt2lib")]


def check_goes_on(lab: Lab, out: Path) -> None:
    """Every checkpoint is whole, and the same command ends as the uninterrupted run."""
    for folder in checkpoints(out):
        verify(folder)
    ended = lab.start(out, None)
    assert set(ended.codes) == {0}, ended.lines
    assert not lab.compare(out)


# ── disks ───────────────────────────────────────────────────────────────────────────────────────


def full_disk(lab: Lab, place: str, out: Path) -> None:
    """Run into a full disk in the middle of a run, then go on with free space."""
    n = (lab.counts[place] + 1) // 2
    ended = lab.server.train(lab.config, out, place=place, n=n, what="ENOSPC")
    assert ended.codes == [2], (place, ended.lines)
    (line,) = refusals(ended)
    assert "No space left on device" in line and str(out) in line
    if place.endswith(".safetensors"):  # a save is every two updates: nothing went before its heir
        newest = [folder.name for folder in checkpoints(out)][-2:]
        assert newest == [f"step-{2 * k:08d}" for k in (n - 2, n - 1)]
    check_goes_on(lab, out)


@pytest.mark.parametrize(
    "place",
    [
        "half of optimizer.safetensors",
        "half of a line of metrics.jsonl",
        "within a removal",
    ],
)
def test_a_full_disk_is_one_line_and_the_run_goes_on_afterwards(
    lab: Lab, tmp_path: Path, place: str
) -> None:
    full_disk(lab, place, tmp_path / "run")


@pytest.mark.slow
def test_a_full_disk_at_every_write(lab: Lab, tmp_path: Path) -> None:
    places = [place for place in lab.counts if place.startswith(WRITES)]
    assert len(places) > 30
    for i, place in enumerate(places):
        full_disk(lab, place, tmp_path / str(i))


def test_a_real_refusal_of_the_system(lab: Lab, tmp_path: Path) -> None:
    out = tmp_path / "run"
    ended = lab.server.train(lab.config, out, prepare=("kill_faults:small_files",))
    assert ended.codes == [2]
    (line,) = refusals(ended)
    assert "File too large" in line and "step-00000002" in line
    check_goes_on(lab, out)


@pytest.mark.parametrize("place", ["requested.yaml", "config.yaml"])
def test_a_read_only_disk_is_one_line(lab: Lab, tmp_path: Path, place: str) -> None:
    place = f"before rename of temporary {place} to {place}"
    ended = lab.server.train(lab.config, tmp_path / "run", place=place, n=1, what="EROFS")
    assert ended.codes == [2]
    (line,) = refusals(ended)
    assert "Read-only file system" in line
    check_goes_on(lab, tmp_path / "run")


@pytest.mark.slow
def test_a_full_disk_on_rank_0_ends_every_rank_with_its_line(pair: Lab, tmp_path: Path) -> None:
    out = tmp_path / "run"
    place = "half of model.safetensors"
    ended = pair.server.train(pair.config, out, place=place, n=3, what="ENOSPC", ranks=2)
    assert ended.codes == [2, 2] and ended.seconds < 30
    lines = refusals(ended)
    assert sorted(line.split(":")[0] for line in lines) == ["gpt2lib", "gpt2lib[1]"]
    assert all("No space left" in line for line in lines)
    check_goes_on(pair, out)


# ── damaged checkpoints ─────────────────────────────────────────────────────────────────────────


def truncated(folder: Path) -> None:
    path = folder / "optimizer.safetensors"
    path.write_bytes(path.read_bytes()[:-5])


def flipped(folder: Path) -> None:
    path = folder / "random.safetensors"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 16
    path.write_bytes(content)


def missing(folder: Path) -> None:
    (folder / "tokenizer" / "vocab.json").unlink()


def without_manifest(folder: Path) -> None:
    (folder / "manifest.json").unlink()


def garbled_manifest(folder: Path) -> None:
    (folder / "manifest.json").write_bytes(b"\x00" * 100)


@pytest.fixture(scope="module")
def killed(lab: Lab) -> Path:
    """A run that was killed when it had checkpoints of step 4, 6 and 8 or so."""
    out = lab.folder / "killed"
    assert lab.start(out, Kill("before save", 5)).killed
    assert len(checkpoints(out)) >= 2
    return out


DAMAGES = [truncated, flipped, missing, without_manifest, garbled_manifest]


@pytest.mark.parametrize(
    "damage", [flipped, *(pytest.param(d, marks=pytest.mark.slow) for d in DAMAGES if d != flipped)]
)
def test_a_damaged_checkpoint_is_skipped_and_all_of_them_are_a_refusal(
    lab: Lab, killed: Path, tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    out = tmp_path / "newest"
    shutil.copytree(killed, out)
    damage(checkpoints(out)[-1])
    ended = lab.start(out, None)
    assert ended.codes == [0]
    assert [line for line in ended.lines if "skipped a damaged checkpoint" in line]
    assert not lab.compare(out)

    out = tmp_path / "all"
    shutil.copytree(killed, out)
    for folder in checkpoints(out):
        damage(folder)
    before = {p: p.read_bytes() for p in out.rglob("*") if p.is_file()}
    ended = lab.start(out, None)
    assert ended.codes == [2]
    (line,) = refusals(ended)
    assert "is whole, and starting over would overwrite its logs" in line
    assert before == {p: p.read_bytes() for p in out.rglob("*") if p.is_file()}


# ── two in one folder ───────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("seed", ["1337", "3"])
def test_of_two_that_begin_at_once_one_trains(lab: Lab, tmp_path: Path, seed: str) -> None:
    """With other settings too: what is written down as asked for is what was trained."""
    out = tmp_path / "run"
    both = [["--seed", "1337"], ["--seed", seed]]
    ended = lab.server.train(lab.config, out, apart=both)
    if seed == "1337" and ended.codes == [0, 0]:  # a busy machine let one come after the other
        assert sum("is complete already" in line for line in ended.lines) == 1, ended.lines
        assert not lab.compare(out)
        return
    assert sorted(ended.codes) == [0, 2], ended.lines
    (line,) = refusals(ended)
    assert "another process is training in" in line or "other settings" in line
    winner = ended.codes.index(0)
    again = lab.server.train(lab.config, out, *both[winner])
    assert again.codes == [0] and "is complete already" in "".join(again.lines)
    if both[winner][1] == "1337":
        assert not lab.compare(out)


# ── signals ─────────────────────────────────────────────────────────────────────────────────────


def check_stopped(lab: Lab, out: Path, ended: Ended, code: int) -> None:
    """It said how to go on; doing that ends as the uninterrupted run."""
    assert set(ended.codes) <= {code, 143}, ended.lines
    assert not refusals(ended)[1:], ended.lines  # "stopped at step", and nothing else
    (line,) = (line for line in ended.lines if line.startswith("to go on: "))
    for folder in checkpoints(out):
        verify(folder)
    words = shlex.split(line.removeprefix("to go on: "))
    names = [Path(word).name for word in words]  # the program stands with its folder, off PATH
    argv = words[names.index("gpt2lib") + 1 :]
    assert lab.server.run(argv, ranks=lab.ranks).codes == [0] * lab.ranks
    found = digest(out)
    last = [name for name in lab.expected if name.startswith("step-00000012")]
    for name in ["metrics", "samples", "configs", *last]:  # it kept one checkpoint more, perhaps
        assert found[name] == lab.expected[name], name


SIGNALS = [
    ("between forward and backward", 9, "15"),
    ("half of a line of metrics.jsonl", 8, "2"),
    ("within an evaluation", 6, "2"),
    ("half of model.safetensors", 3, "15"),
    ("half of optimizer.safetensors", 6, "15"),
    ("within an evaluation", 12, "15"),
]


@pytest.mark.parametrize(
    ("place", "n", "signum"),
    [SIGNALS[0], *(pytest.param(*s, marks=pytest.mark.slow) for s in SIGNALS[1:])],
)
def test_a_signal_is_answered_with_a_checkpoint_and_a_command(
    lab: Lab, tmp_path: Path, place: str, n: int, signum: str
) -> None:
    out = tmp_path / "run"
    ended = lab.server.train(lab.config, out, place=place, n=n, what=signum)
    check_stopped(lab, out, ended, 128 + int(signum))


@pytest.mark.parametrize(("signals", "code"), [("15 15", -15), ("2 2", 130)])
def test_a_second_signal_leaves_at_once(lab: Lab, tmp_path: Path, signals: str, code: int) -> None:
    """Within the very update, and even from within a save: as after a kill."""
    out = tmp_path / "run"
    ended = lab.server.train(lab.config, out, place="before a micro-batch", n=11, what=signals)
    assert ended.codes == [code]
    assert max(line["step"] for line in lines_of(out / "metrics.jsonl")) == 5
    place = "half of optimizer.safetensors"
    assert lab.server.train(lab.config, out, place=place, n=1, what=signals).codes == [code]
    check_goes_on(lab, out)


@pytest.mark.slow
@pytest.mark.parametrize(("signum", "code"), [("15", -15), ("2", 130)])
def test_a_signal_while_a_run_starts_leaves_at_once(
    lab: Lab, tmp_path: Path, signum: str, code: int
) -> None:
    out = tmp_path / "run"
    place = "before fsync of temporary config.yaml"
    assert lab.server.train(lab.config, out, place=place, n=1, what=signum).codes == [code]
    check_goes_on(lab, out)


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 1, -1])
def test_a_signal_to_one_rank_or_to_all_stops_them_all(
    pair: Lab, tmp_path: Path, rank: int
) -> None:
    out = tmp_path / "run"
    place = "between forward and backward"
    ended = pair.server.train(pair.config, out, place=place, n=5, what="15", rank=rank, ranks=2)
    assert ended.codes == [143, 143]
    check_stopped(pair, out, ended, 143)


# ── not finite ──────────────────────────────────────────────────────────────────────────────────


@pytest.mark.slow
def test_a_nan_on_one_rank_is_skipped_by_all(pair: Lab, tmp_path: Path) -> None:
    out = tmp_path / "run"
    prepare = ("kill_faults:nan_on_one_rank",)
    ended = pair.server.train(pair.config, out, prepare=prepare, ranks=2)
    assert ended.codes == [0, 0], ended.lines
    result = json.loads((out / "result.json").read_text(encoding="utf-8"))
    assert (result["skipped"], result["steps"]) == (1, 12)
    (skipped,) = (line for line in lines_of(out / "metrics.jsonl") if "skipped" in line)
    assert skipped["step"] == 5 and "loss nan" in skipped["skipped"]
