"""What preparing a large source takes: time, and memory over all processes.

    python benchmarks/preparation.py [--mb 2000] [--form txt|jsonl] [--tokenizer gpt2|bpe|char]
        [--runs 2] [--folder DIR]

Makes a source of the given size out of the plays: copy after copy, each with every 50th word
replaced by one made up, so that the text has ever more different words, as a real one has. It is
one document of one .txt, or documents of about 2 kB in a .jsonl. Each run prepares it anew, in a
process of its own. Every 0.2 s the proportional set sizes of that process and its children are
summed (`smaps_rollup`, so Linux only): memory that is shared counts once, as do the pages of files
that are mapped.

It needs free disk for the source, and half of that again for the tokens, in DIR.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil

from gpt2lib.data.sources import documents

RUN = """
import json, logging, sys, time
logging.basicConfig(level=logging.INFO, format="  %(message)s")
from gpt2lib.config import DataConfig
from gpt2lib.data import prepare
source, out, tokenizer = sys.argv[1:]
start, cpu = time.perf_counter(), time.process_time()
made = prepare(DataConfig(source=source, tokenizer=tokenizer, vocab_size=8192), out, progress=False)
seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
parts = [part.header for part in (made.train, made.val) if part]
print(json.dumps({
    "seconds": seconds, "cores busy": cpu / seconds, "torch": "torch" in sys.modules,
    "bytes": sum(part.n_bytes for part in parts), "tokens": sum(part.n_tokens for part in parts),
    "shards": sum(len(part.shards) for part in parts), "source": parts[0].source,
    "hash": [part.sha256 for part in parts], "tokenizer": made.tokenizer.fingerprint,
    "learned from": made.info["learned_from"],
}))
"""


def text(size: int) -> Iterator[str]:
    """Yield copies of the plays, each varied, until there are `size` bytes."""
    words = re.findall(r"\S+\s*", "".join(documents("plays")))
    kept = ["".join(words[i : i + 49]) for i in range(0, len(words), 50)]
    rng = random.Random(0)
    letters = "etaoinshrdlucmfwyp"
    while size > 0:
        made_up = ("".join(rng.choices(letters, k=7)) + " " for _ in kept)
        copy = "".join(part + word for part, word in zip(kept, made_up, strict=True))
        copy = copy[:size]
        yield copy
        size -= len(copy.encode("utf-8"))


def write_source(path: Path, size: int) -> None:
    """Write the source, as text or as JSONL."""
    with path.open("w", encoding="utf-8", newline="\n") as file:
        for copy in text(size):
            if path.suffix == ".txt":
                file.write(copy)
                continue
            for i in range(0, len(copy), 2000):
                file.write(json.dumps({"text": copy[i : i + 2000]}, ensure_ascii=False) + "\n")


def pss(process: psutil.Process) -> int:
    """Return the proportional set size of a process and its children, in bytes."""
    total = 0
    for one in [process, *process.children(recursive=True)]:
        try:
            lines = Path(f"/proc/{one.pid}/smaps_rollup").read_text(encoding="ascii")
        except OSError:  # it has just ended
            continue
        total += 1024 * int(next((f.split()[1] for f in lines.split("\n") if "Pss:" in f), 0))
    return total


def prepare_once(source: Path, out: Path, tokenizer: str) -> dict[str, Any]:
    """Prepare in a process of its own, and watch its memory."""
    process = subprocess.Popen(
        [sys.executable, "-c", RUN, str(source), str(out), tokenizer],
        stdout=subprocess.PIPE,
        text=True,
    )
    watched, peak = psutil.Process(process.pid), 0
    while process.poll() is None:
        peak = max(peak, pss(watched))
        time.sleep(0.2)
    if process.returncode or process.stdout is None:
        raise SystemExit("the preparation failed")
    return {**json.loads(process.stdout.read()), "peak": peak}


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--mb", type=int, default=2000, help="size of the source, 10**6 bytes")
    parser.add_argument("--form", choices=("txt", "jsonl"), default="txt")
    parser.add_argument("--tokenizer", default="gpt2", help="gpt2, bpe or char")
    parser.add_argument("--runs", type=int, default=2, help="how often it is prepared, anew")
    parser.add_argument("--folder", help="where to write; by default the system's")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        source = Path(folder) / f"source.{args.form}"
        write_source(source, args.mb * 10**6)
        print(f"{source.name}, {source.stat().st_size / 1e6:,.0f} MB; tokenizer {args.tokenizer}\n")
        print("| run | text | tokens | shards | time | speed | cores busy | peak PSS | torch |")
        print("| --- | --- | --- | --- | --- | --- | --- | --- | --- |", flush=True)
        found = []
        for i in range(args.runs):
            run = prepare_once(source, Path(folder) / f"run{i}", args.tokenizer)
            found.append([run[key] for key in ("source", "hash", "tokenizer")])
            print(
                f"| {i + 1} | {run['bytes'] / 1e6:,.0f} MB | {run['tokens']:,} | {run['shards']} | "
                f"{run['seconds']:.0f} s | {run['bytes'] / 1e6 / run['seconds']:.1f} MB/s | "
                f"{run['cores busy']:.2f} | {run['peak'] / 1e6:,.0f} MB | "
                f"{'imported' if run['torch'] else 'no'} |",
                flush=True,
            )
        if run["learned from"]:
            print(
                "\ntokenizer learned from {n_bytes:,} of {of:,} bytes".format(**run["learned from"])
            )
        print(f"\nsource {found[0][0][:16]}, tokens {found[0][1][0][:16]}")
        if args.runs > 1:
            same = all(one == found[0] for one in found)
            print(f"all runs have the same fingerprints and hashes: {'yes' if same else 'NO'}")


if __name__ == "__main__":
    main()
