"""Tiny runs in real processes, killed and resumed, and what is compared at the end."""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

import yaml

from gpt2lib.runs.checkpoint import checkpoints
from gpt2lib.utils.files import verify

HERE = Path(__file__).parent
STEPS = 12
TIMINGS = {"seconds", "tokens_per_second", "mfu", "memory"}
"""What may differ between two runs of the same numbers, in a line of metrics."""
SPENT = TIMINGS | {"train_seconds", "evaluate_seconds", "save_seconds"}
"""The same in result.json."""


def write_config(folder: Path, **changes: Any) -> Path:
    """Write a text and the configuration of a tiny run on it; return the YAML file.

    With dropout, two micro-batches an update, evaluations and samples, checkpoints every two
    updates of which two and the best are kept; the 40 lines hold about 13 windows of 32, so
    12 updates of 4 sequences read them several times.
    """
    draw = random.Random(0)
    words = ["the", "king", "and", "queen", "of", "night", "do", "love", "thee"]
    text = "".join(" ".join(draw.choices(words, k=6)) + "\n" for _ in range(40))
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "verse.txt").write_text(text, encoding="utf-8")
    values: dict[str, Any] = {
        "model": {"block_size": 16, "n_layer": 2, "n_head": 2, "n_embd": 16, "dropout": 0.2},
        "data": {"source": str(folder / "verse.txt"), "vocab_size": 280},
        "optim": {"lr": 1e-2, "warmup_steps": 2},
        "steps": STEPS,
        "batch_size": 4,
        "micro_batch": 2,
        "precision": "fp32",
        "device": "cpu",
        "eval_every": 3,
        "eval_batches": 2,
        "save_every": 2,
        "keep": 2,
        "sample_tokens": 3,
    }
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump({**values, **changes}), encoding="utf-8")
    return path


class Ended(NamedTuple):
    """How the processes of a run ended.

    Attributes:
        codes: exit code of each rank; -9 if SIGKILL ended it.
        lines: what they wrote on stdout and stderr.
        seconds: how long the slowest took.
    """

    codes: list[int]
    lines: list[str]
    seconds: float

    @property
    def killed(self) -> bool:
        return -9 in self.codes


class Server:
    """A warm process that forks runs; see `kill_server`."""

    program = HERE / "kill_server.py"

    def __init__(self, folder: Path) -> None:
        self.folder, self.jobs = folder, 0
        folder.mkdir(parents=True, exist_ok=True)
        threads = {f"{name}_NUM_THREADS": "1" for name in ("OMP", "OPENBLAS", "MKL")}
        path = os.pathsep.join([str(HERE), str(HERE.parent), os.environ.get("PYTHONPATH", "")])
        more = {"PYTHONPATH": path, "GPT2LIB_CACHE": str(folder / "cache"), "MPLBACKEND": "agg"}
        self.process = subprocess.Popen(
            [sys.executable, str(self.program)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, **threads, **more, "TORCHINDUCTOR_COMPILE_THREADS": "1"},
        )
        assert self._answer() == "ready"

    def __enter__(self) -> Server:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self.process.stdin
        self.process.stdin.close()
        self.process.wait(30)

    def _answer(self) -> str:
        assert self.process.stdout
        return self.process.stdout.readline().strip()

    def train(self, config: Path, out: Path, *arguments: str, **how: Any) -> Ended:
        """Run `gpt2lib train CONFIG --out OUT` with more arguments; see `run`."""
        return self.run(["train", str(config), "--out", str(out), *arguments], **how)

    def run(
        self,
        argv: list[str],
        place: str | None = None,
        n: int = 0,
        what: str = "kill",
        rank: int = 0,
        ranks: int = 1,
        apart: list[list[str]] | None = None,
        counts: Path | None = None,
        prepare: tuple[str, ...] = (),
        meanwhile: Callable[[list[int]], None] | None = None,
    ) -> Ended:
        """Run a command of `gpt2lib` in a fork, and wait for its end.

        Args:
            argv: its arguments.
            place: where it kills itself, if anywhere; `n`: at which passage; `what`: what happens
                there instead of a kill; `rank`: to which process, -1 for all.
            ranks: number of processes that train together.
            apart: more arguments of each of several processes that know nothing of each other.
            counts: file for how often each place was passed.
            prepare: `module:function` to call first, with the rank.
            meanwhile: called with the process numbers once they run.
        """
        env = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())} if ranks > 1 else {}
        job = {
            "argv": argv,
            "more": apart,
            "env": env,
            "ranks": len(apart) if apart else ranks,
            "rank": rank,
            "what": what,
            "place": place,
            "n": n,
            "counts": str(counts or ""),
            "prepare": prepare,
        }
        return self.send(job, meanwhile)

    def send(
        self, job: dict[str, Any], meanwhile: Callable[[list[int]], None] | None = None
    ) -> Ended:
        """Have the server fork `ranks` processes for a job, and wait for their end."""
        self.jobs += 1
        log = self.folder / f"job-{self.jobs}.log"
        assert self.process.stdin
        started = time.perf_counter()
        self.process.stdin.write(json.dumps({**job, "log": str(log)}) + "\n")
        self.process.stdin.flush()
        pids = json.loads(self._answer())
        if meanwhile is not None:
            meanwhile(pids)
        codes = json.loads(self._answer())
        logs = [Path(f"{log}.{rank}") for rank in range(job["ranks"])]
        lines = [line for one in logs for line in one.read_text(encoding="utf-8").splitlines()]
        return Ended(codes, lines, time.perf_counter() - started)


class Kill(NamedTuple):
    """Where a process is killed.

    Attributes:
        place: see `kill_points`; "at random" is a time drawn by who kills.
        n: at which passage, or milliseconds after the start.
        rank: which process; -1 is all of them, for a random time.
    """

    place: str
    n: int
    rank: int = 0


RANDOM = "at random"


class Lab:
    """An uninterrupted run, and others that are killed, resumed and compared with it.

    Attributes:
        kills: place of each kill that happened.
        broken: for each run that ended otherwise, its kills and what differs.
        counts: how often an uninterrupted run passes each place.
    """

    def __init__(self, server: Server, folder: Path, ranks: int = 1, **changes: Any) -> None:
        self.server, self.folder, self.ranks = server, folder, ranks
        self.config = write_config(folder, **changes)
        whole = server.train(self.config, folder / "whole", ranks=ranks)
        assert set(whole.codes) == {0}, whole.lines
        self.expected, self.uninterrupted = digest(folder / "whole"), whole.seconds
        # Counted apart: the text is prepared by now, as it is for the runs that are killed.
        path = folder / "counts.json"
        again = server.train(self.config, folder / "again", ranks=ranks, counts=path)
        assert digest(folder / "again") == self.expected, "two runs without kills differ"
        self.uninterrupted = again.seconds
        self.counts: dict[str, int] = json.loads(path.read_text(encoding="utf-8"))
        self.kills: list[Kill] = []
        self.broken: list[str] = []
        self.runs = 0

    def chain(self, kills: list[Kill], resume: str = "auto") -> bool:
        """Start a run, kill it in turn at each place, resume it to its end, and compare.

        A kill whose place the rest of the run does not pass that often does not happen: the run
        is then complete.
        """
        self.runs += 1
        out, happened = self.folder / f"run-{self.runs}", list[Kill]()
        for kill in [*kills, None]:
            ended = self.start(out, kill, resume)
            if kill is None or not ended.killed:
                break
            happened.append(kill)
        self.kills += happened
        if set(ended.codes) != {0}:
            different = f"exit codes {ended.codes}: {ended.lines[-1:]}"
        else:
            different = self.compare(out)
        if different:
            self.broken.append(f"{happened}: {different}")
        else:
            shutil.rmtree(out)
        return not different

    def start(self, out: Path, kill: Kill | None, resume: str = "auto") -> Ended:
        """Start or resume the run, and kill it if asked to."""
        arguments = ("--resume", resume)
        if kill is None:
            return self.server.train(self.config, out, *arguments, ranks=self.ranks)
        if kill.place != RANDOM:
            place, n, rank = kill
            return self.server.train(
                self.config, out, *arguments, place=place, n=n, rank=rank, ranks=self.ranks
            )

        def after_a_while(pids: list[int]) -> None:
            time.sleep(kill.n / 1000)
            for pid in pids if kill.rank < 0 else [pids[kill.rank]]:
                with suppress(ProcessLookupError):  # it has ended already
                    os.kill(pid, signal.SIGKILL)

        return self.server.train(
            self.config, out, *arguments, ranks=self.ranks, meanwhile=after_a_while
        )

    def compare(self, out: Path) -> str:
        """Say what differs from the uninterrupted run, or nothing."""
        found = digest(out)
        names = sorted({*found, *self.expected})
        return ", ".join(n for n in names if found.get(n) != self.expected.get(n))

    def plan(self, n_kills: int, seed: int) -> list[list[Kill]]:
        """Draw places for about `n_kills` kills: every place once before any comes again.

        The chains have one to three kills each; every fourth kill is at a random time.
        """
        draw = random.Random(seed)
        chains: list[list[Kill]] = []
        places: list[str] = []
        while (missing := n_kills - sum(map(len, chains))) > 0:
            chain = []
            for i in range(min(missing, draw.choice((1, 1, 2, 3)))):
                if draw.random() < 0.25:
                    chain.append(Kill(RANDOM, draw.randrange(int(900 * self.uninterrupted))))
                    continue
                if not places:
                    places = list(self.counts)
                    draw.shuffle(places)
                place = places.pop()
                # Later in a chain fewer passages are left; the second may not be reached.
                n = draw.randint(1, self.counts[place]) if not i else 1
                chain.append(Kill(place, n, draw.randrange(self.ranks)))
            chains.append(chain)
        return chains


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def lines_of(path: Path) -> list[dict[str, Any]]:
    """Read a `.jsonl` file without its timings."""
    lines = path.read_text(encoding="utf-8").splitlines()
    return [{k: v for k, v in json.loads(line).items() if k not in TIMINGS} for line in lines]


def digest(run: Path) -> dict[str, str]:
    """Return the sha256 of everything that a finished run holds, timings left out.

    Every checkpoint is verified first. "names" are those of all files and folders, hidden ones
    too, so that what a killed process left behind shows.
    """
    found: dict[str, Any] = {
        "metrics": lines_of(run / "metrics.jsonl"),
        "samples": lines_of(run / "samples.jsonl"),
        "result": without(json.loads((run / "result.json").read_text(encoding="utf-8")), SPENT),
        "configs": [
            (run / f"{n}.yaml").read_text(encoding="utf-8") for n in ("config", "requested")
        ],
        "names": sorted(p.relative_to(run).as_posix() for p in run.rglob("*") if p.name != ".lock"),
    }
    hashes = {name: hashlib.sha256(json.dumps(v).encode()).hexdigest() for name, v in found.items()}
    for folder in checkpoints(run):
        verify(folder)
        for file in sorted(folder.glob("*.safetensors")):
            hashes[f"{folder.name}/{file.stem}"] = hashlib.sha256(file.read_bytes()).hexdigest()
        state = json.loads((folder / "state.json").read_text(encoding="utf-8"))
        kept = json.dumps(without(state, {"spent"})).encode()
        hashes[f"{folder.name}/state"] = hashlib.sha256(kept).hexdigest()
    return hashes


def without(values: dict[str, Any], names: set[str]) -> dict[str, Any]:
    """Return a mapping without some of its entries."""
    return {k: v for k, v in values.items() if k not in names}
