"""Exercises of notebook 10."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

from gpt2lib.course.exercise import Case, Exercise, Misconception, Seen, case, lazy
from gpt2lib.course.toy_disk import OTHER_DISK, ToyDisk, ToyPath

torch: Any = lazy("torch")
checkpoint: Any = lazy("gpt2lib.runs.checkpoint")
weights: Any = lazy("gpt2lib.model.weights")

Function = Callable[..., Any]
Files = dict[str, str]
Manifest = dict[str, dict[str, Any]]
Entry = dict[str, Any]

EPSILON = 2.0**-23
"""The distance from 1 to the next float32."""


def _bits(x: Any) -> int:
    return int(x.view(torch.int32))


def _minus(x: Any) -> int:
    """Return the place of a float32 in the order of all of them."""
    bits = _bits(x)
    return bits if bits >= 0 else -(bits + 2**31)


def _through_zero(count: Function) -> Function:
    """Count on each side of zero by itself: over all float32, NumPy's own sum overflows."""

    def ulps(a: Any, b: Any) -> int:
        ends = [(a, b)] if bool(a < 0) == bool(b < 0) else [(a, 0 * a), (b, 0 * b)]
        counted = [count(abs(x).numpy(), abs(y).numpy(), maxulp=2**31) for x, y in ends]
        return sum(int(n.item()) for n in counted)

    return ulps


def _wraps_around(a: Any, b: Any) -> int:
    """Take the distance in 32 bits, as tensors of int32 do."""
    return abs((_minus(a) - _minus(b) + 2**31) % 2**32 - 2**31)


def _floats(*pairs: tuple[float, float]) -> list[Case]:
    return [case(torch.tensor(a), torch.tensor(b)) for a, b in pairs]


ULPS = Exercise(
    id="ulps-apart",
    notebook="10",
    title="How many floats lie between two results",
    signature="my_ulps(a, b)",
    reference="numpy.testing:assert_array_max_ulp",
    adapt=_through_zero,
    cases=lambda: _floats(
        (1.0, 1.0 + EPSILON),
        (100.0, 100.0 + 2**-16),
        (1.99999, 2.00001),
        (0.3, 0.3),
        (-1.0, -1.0 + EPSILON),
        (5.6e-45, -2.8e-45),  # on both sides of zero
        (-(2.0**100), 2.0**100),  # farther apart than an int32 can say
    ),
    hints=[
        "The bits of a positive float32, read as a whole number, grow by one from each float to "
        "the next. `a.view(torch.int32)` reads them so.",
        "The first bit is the sign. Below zero the other 31 bits count away from zero.",
        "place = bits if bits >= 0 else -(bits + 2**31), and the answer is the distance of the "
        "two places.",
    ],
    misconceptions=[
        Misconception(
            "divides-by-epsilon",
            "you divide the difference by 2⁻²³. That is the distance of floats just above 1; it "
            "doubles at each power of two. Read the bits as whole numbers instead",
            wrong=lambda a, b: round(abs(a.item() - b.item()) / EPSILON),
        ),
        Misconception(
            "relative-difference",
            "a relative difference in units of 2⁻²³ is only near the number of floats: their "
            "distance stays the same between two powers of two, and does not grow with the number",
            wrong=lambda a, b: round(
                abs(a.item() - b.item()) / (EPSILON * max(abs(a.item()), abs(b.item())))
            ),
        ),
        Misconception(
            "bits-of-negatives",
            "across zero the bits jump: the first bit is the sign, and below zero the others count "
            "away from zero. Turn the bits of a negative number into a place below zero first",
            wrong=lambda a, b: abs(_bits(a) - _bits(b)),
        ),
        Misconception(
            "converts-the-value",
            "`.int()` converts the value 1.0 to the number 1; `.view(torch.int32)` reads the same "
            "32 bits as a whole number",
            test=lambda my_ulps: (
                [my_ulps(*c.args) for c in _floats((1.0, 3.0), (100.0, 103.0))] == [2, 3]
            ),
        ),
        Misconception(
            "with-a-sign",
            "the distance has no sign: my_ulps(a, b) must be my_ulps(b, a)",
            wrong=lambda a, b: _minus(b) - _minus(a),
        ),
        Misconception(
            "only-those-between",
            "two neighbours are one step apart, and a number is 0 from itself: count steps, not "
            "the floats strictly between",
            wrong=lambda a, b: max(0, abs(_minus(a) - _minus(b)) - 1),
        ),
        Misconception(
            "wraps-around",
            "from -2¹⁰⁰ to 2¹⁰⁰ there are more floats than an int32 can count, so the difference "
            "of two int32 wraps around: make Python numbers of them first, with int(...)",
            wrong=_wraps_around,
        ),
    ],
)


def _trained(updates: int) -> Case:
    """Return a small model and its optimiser after some updates."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(updates)
        model = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.Linear(3, 1))
        optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
        for _ in range(updates):
            optimizer.zero_grad()
            model(torch.randn(4, 2)).pow(2).mean().backward()
            optimizer.step()
        optimizer.zero_grad()
    return case(model, optimizer, updates)


def _snapshot(
    model: Any, optimizer: Any, step: int, keep: tuple[str, ...] = ("step", "exp_avg", "exp_avg_sq")
) -> dict[str, Any]:
    moments = weights.optimizer_tensors(model, optimizer).items()
    return {
        "weights": {n: p.clone() for n, p in weights.model_tensors(model).items()},
        "moments": {n: t.clone() for n, t in moments if n.partition("/")[0] in keep},
        "random": torch.get_rng_state(),
        "step": step,
    }


def _without(key: str) -> Function:
    def snapshot(model: Any, optimizer: Any, step: int) -> dict[str, Any]:
        return {k: v for k, v in _snapshot(model, optimizer, step).items() if k != key}

    return snapshot


def _changes_later(my_state: Function) -> bool:
    """Whether a snapshot changes when the training goes on."""
    model, optimizer, step = _trained(2).args
    taken = my_state(model, optimizer, step)
    tensors = [*taken["weights"].values(), *taken["moments"].values()]
    before = [t.clone() for t in tensors]
    model(torch.ones(4, 2)).mean().backward()
    optimizer.step()
    return any(not torch.equal(t, b) for t, b in zip(tensors, before, strict=True))


STATE = Exercise(
    id="state-to-save",
    notebook="10",
    title="All that a run needs to go on",
    signature="my_state(model, optimizer, step)",
    reference="gpt2lib.model.weights:optimizer_tensors",
    adapt=lambda _: _snapshot,
    shows="gpt2lib.training.state:TrainingState.save",
    cases=lambda: [_trained(1), _trained(3)],
    hints=[
        "named_parameters() gives the weights; optimizer.state[p] is a dictionary of what AdamW "
        "keeps for parameter p; torch.get_rng_state() is where the random numbers are.",
        "moments: for each parameter and each item of optimizer.state[p], the key is "
        'f"{what}/{name}".',
        "Training changes weights and moments in place: keep copies, p.detach().clone().",
    ],
    misconceptions=[
        Misconception(
            "forgets-the-random-state",
            "nothing is kept of the random numbers (`random`): from here on dropout would drop "
            "other activations than in the uninterrupted run",
            wrong=_without("random"),
        ),
        Misconception(
            "saves-the-seed",
            "the seed says where the random numbers began, not how far they are: with it the "
            "resumed run draws the first numbers again. torch.get_rng_state() is the position",
            wrong=lambda model, optimizer, step: {
                **_snapshot(model, optimizer, step),
                "random": torch.initial_seed(),
            },
        ),
        Misconception(
            "forgets-the-moments",
            "AdamW's averages are missing: after the resume they begin at zero, and the first "
            "updates go elsewhere. They are in optimizer.state[p]",
            wrong=lambda model, optimizer, step: _snapshot(model, optimizer, step, ()),
        ),
        Misconception(
            "forgets-the-counts",
            "optimizer.state[p] also has `step`, which corrects the bias of the averages. Without "
            "it full averages are treated as those of a first update",
            wrong=lambda model, optimizer, step: _snapshot(
                model, optimizer, step, ("exp_avg", "exp_avg_sq")
            ),
        ),
        Misconception(
            "first-average-only",
            "AdamW keeps two averages, exp_avg and exp_avg_sq, and a step: take all items of "
            "optimizer.state[p]",
            wrong=lambda model, optimizer, step: _snapshot(model, optimizer, step, ("exp_avg",)),
        ),
        Misconception(
            "off-by-one",
            "`step` is the number of updates made. One more, and the resumed run leaves a batch "
            "out; one less, and it reads one twice",
            wrong=lambda model, optimizer, step: _snapshot(model, optimizer, step + 1),
        ),
        Misconception(
            "shares-memory",
            "your snapshot changes when training goes on, because it holds the very tensors that "
            "are being trained: keep .clone() of each",
            test=_changes_later,
        ),
    ],
)


def _samples(step: int, batch_size: int, rank: int, processes: int) -> list[int]:
    share = batch_size // processes
    first = step * batch_size + rank * share
    return list(range(first, first + share))


def _samples_read(samples: Function) -> Function:
    def of(step: int, batch_size: int, rank: int, processes: int) -> list[int]:
        loader = SimpleNamespace(batch_size=batch_size, share=batch_size // processes, rank=rank)
        return list(samples(loader, step))

    return of


SHARE = Exercise(
    id="share-of-the-batch",
    notebook="10",
    title="The same samples on any number of processes",
    signature="my_samples(step, batch_size, rank, processes)",
    reference="gpt2lib.data.loader:Loader.samples",
    adapt=_samples_read,
    cases=lambda: [
        *(case(0, 8, 0, 1), case(3, 8, 0, 1)),
        *(case(5, 8, rank, 2) for rank in (1, 0)),
        *(case(2, 12, rank, 3) for rank in (2, 0, 1)),
    ],
    hints=[
        "The batch is that of all processes together: update 0 reads the samples 0 to "
        "batch_size - 1, update 1 the next ones.",
        "Each process reads batch_size // processes of them, one after the other; rank 0 the first "
        "ones.",
        "first = step * batch_size + rank * share",
    ],
    misconceptions=[
        Misconception(
            "whole-batch-each",
            "every process reads a whole batch, so two processes make it twice as large, and the "
            "run another run. batch_size is over all processes",
            wrong=lambda step, batch_size, rank, processes: list(
                range(
                    (step * processes + rank) * batch_size,
                    (step * processes + rank + 1) * batch_size,
                )
            ),
        ),
        Misconception(
            "all-read-the-same",
            "all processes read the same samples: the gradient is that of a smaller batch, "
            "computed several times. The rank must shift the start",
            wrong=lambda step, batch_size, rank, processes: _samples(
                step, batch_size, 0, processes
            ),
        ),
        Misconception(
            "steps-of-a-share",
            "one update moves all processes on by batch_size samples together, not by one share: "
            "yours read some samples twice",
            wrong=lambda step, batch_size, rank, processes: [
                step * (batch_size // processes) + i
                for i in _samples(0, batch_size, rank, processes)
            ],
        ),
        Misconception(
            "begins-again",
            "the step is missing: every update reads the same samples",
            wrong=lambda step, batch_size, rank, processes: _samples(
                0, batch_size, rank, processes
            ),
        ),
        Misconception(
            "ranks-reversed",
            "the ranks read from the other end: rank 0 takes the last share of the batch, and must "
            "take the first",
            wrong=lambda step, batch_size, rank, processes: _samples(
                step, batch_size, processes - 1 - rank, processes
            ),
        ),
        Misconception(
            "takes-turns",
            "taking turns (every n-th sample) reads the right samples in each update, but the "
            "order of the batch would change with the number of processes. We ask for a block each",
            wrong=lambda step, batch_size, rank, processes: list(
                range(step * batch_size + rank, (step + 1) * batch_size, processes)
            ),
        ),
    ],
)

OLD, NEW, NAME = "the old state", "the new state", "run/state.json"


def _on_toy_disk(write_text: Function) -> Function:
    """Let the library's own function write to a toy disk."""

    def write(disk: ToyDisk, name: str, content: str) -> None:
        with mock.patch("gpt2lib.utils.files.flush", lambda path: path.flush()):
            write_text(ToyPath(disk, name), content)

    return write


def _watched(my_write: Function) -> ToyDisk:
    """Return a disk with an old file after the learner has written to it."""
    disk = ToyDisk({NAME: OLD})
    my_write(disk, NAME, NEW)
    return disk


def _deletes_first(my_write: Function) -> str | None:
    disk = _watched(my_write)
    if ("delete", NAME) in disk.operations and None in disk.after_a_crash(NAME):
        return (
            "a crash after the delete leaves no file at all: a rename replaces the old file in one "
            "move, so nothing needs deleting"
        )
    return None


def _elsewhere(my_write: Function) -> bool:
    names = {word for operation in _watched(my_write).operations for word in operation[1:]}
    return any(name.startswith(OTHER_DISK) for name in names)


def _swapped(my_write: Function) -> str | None:
    disk = _watched(my_write)
    if any(operation[:2] == ("write", NEW) for operation in disk.operations):
        return (
            f"you wrote a file that is named {NEW!r}: write takes the name first, then the content"
        )
    renamed = [operation for operation in disk.operations if operation[0] == "rename"]
    if NAME not in disk and any(operation[1] == NAME for operation in renamed):
        return (
            f"there is no {NAME} any more: rename took its name away. rename(old, new) takes the "
            "name that a file has first, then the one it gets"
        )
    return None


def _moves_away(my_write: Function) -> str | None:
    disk = _watched(my_write)
    moved = [o[2] for o in disk.operations if o[0] == "rename" and o[1] == NAME]
    if moved and None in disk.after_a_crash(NAME):
        return (
            f"you move the old file to {moved[0]} first; a crash right after that leaves no file "
            f"{NAME}. A rename onto {NAME} replaces the old file in one move"
        )
    return None


def _no_flush(my_write: Function) -> bool:
    return "flush" not in [o[0] for o in _watched(my_write).operations] and _torn(my_write)


def _what_is_left(my_write: Function) -> str | None:
    left = _watched(my_write).after_a_crash(NAME) - {OLD, NEW}
    if not left:
        return None
    found = "no file at all" if left == {None} else f"{sorted(x for x in left if x is not None)}"
    return (
        f"after a crash {NAME} may be neither the old nor the new state: {found}. Write another "
        "file, flush it, then rename it"
    )


def _torn(my_write: Function) -> bool:
    return not _watched(my_write).after_a_crash(NAME) <= {OLD, NEW}


def _in_place(my_write: Function) -> str | None:
    if ("write", NAME) not in _watched(my_write).operations:
        return None
    return (
        "you write into the file itself: after a crash it may hold "
        f"{NEW[: len(NEW) // 2]!r}, or nothing. Write another file and rename it"
    )


def _flushes_too_late(my_write: Function) -> bool:
    done = [operation[0] for operation in _watched(my_write).operations]
    late = "flush" in done[done.index("rename") :]
    return late and "flush" not in done[: done.index("rename")] and _torn(my_write)


def _flushes_the_old(my_write: Function) -> bool:
    done = _watched(my_write).operations
    kinds = [operation[0] for operation in done]
    return ("flush", NAME) in done[: kinds.index("rename")] and _torn(my_write)


WRITE = Exercise(
    id="atomic-write",
    notebook="10",
    title="A file that is old or new, never half",
    signature="my_write(disk, name, content)",
    reference="gpt2lib.utils.files:write_text",
    adapt=_on_toy_disk,
    inplace=True,
    cases=lambda: [
        case(ToyDisk({NAME: OLD}), NAME, NEW),
        case(ToyDisk({NAME: OLD, "run/other": "x"}), NAME, ""),
    ],
    hints=[
        "The old file must stay untouched until the new one is complete, so the new one begins "
        "under another name, in the same folder.",
        "A rename may reach the disk before the content does. What makes the content certain?",
        "write(temporary), flush(temporary), rename(temporary, name), in this order.",
    ],
    misconceptions=[
        Misconception("deletes-the-old-first", test=_deletes_first),
        Misconception(
            "temporary-elsewhere",
            "/tmp is another disk: a rename from there is a copy, written into the file itself, "
            "and a crash can cut it in half. Put the temporary file beside the real one",
            test=_elsewhere,
        ),
        Misconception("arguments-swapped", test=_swapped),
        Misconception("moves-the-old-away", test=_moves_away),
        Misconception("writes-in-place", test=_in_place),
        Misconception(
            "flushes-the-old-file",
            "you flush the old file, before the rename; the one whose content is not on the disk "
            "yet is the temporary one",
            test=_flushes_the_old,
        ),
        Misconception(
            "flushes-after-the-rename",
            "between your rename and your flush a crash leaves the new name with half a content: "
            "flush first, then rename",
            test=_flushes_too_late,
        ),
        Misconception(
            "never-flushes",
            "the rename may reach the disk before the content, and then the new name stands on an "
            "empty file: flush the temporary file before you rename it",
            test=_no_flush,
        ),
        Misconception("neither-old-nor-new", test=_what_is_left),
        Misconception(
            "leaves-the-temporary",
            "another file is left on the disk beside the one that was to be written",
            test=lambda my_write: set(_watched(my_write)) != {NAME},
        ),
    ],
)


def _entry(content: str) -> dict[str, Any]:
    data = content.encode()
    return {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}


def _first_damaged(verify: Function) -> Function:
    """Lay the files into a folder and let the library verify it."""

    def damaged(files: Files, manifest: Manifest) -> str | None:
        with tempfile.TemporaryDirectory() as place:
            folder = Path(place)
            for name, content in files.items():
                (folder / name).write_bytes(content.encode())
            sealed = json.dumps({"format": 1, "files": manifest})
            (folder / "manifest.json").write_text(sealed, encoding="utf-8")
            try:
                verify(folder)
            except Exception as error:
                said = str(error).replace(place, "").replace("manifest.json", "")
                return next(name for name in manifest if name in said)
        return None

    return damaged


def _manifests() -> list[Case]:
    files = {"config.json": "{}", "model": "weights", "state.json": "step 7"}
    manifest = {name: _entry(content) for name, content in files.items()}
    missing = {name: content for name, content in files.items() if name != "state.json"}
    return [
        case(files, manifest),
        case({**files, "model": "wejghts"}, manifest),
        case({**files, "state.json": "step"}, manifest),
        case(missing, manifest),
        case({"a note": "mine", **files}, manifest),
        case({**files, "model": "Weights", "config.json": ""}, manifest),
        case({"note": "naïve"}, {"note": _entry("naïve")}),  # 6 bytes, 5 characters
    ]


def _takes(sum_of: Callable[[bytes], str | bytes]) -> Callable[[Function], bool]:
    """Test whether an answer finds files sound where the manifest holds another kind of sum."""

    def takes(my_damaged: Function) -> bool:
        files = {"model": "weights"}
        entry = {"size": 7, "sha256": sum_of(b"weights")}
        return my_damaged(files, {"model": entry}) is None and bool(
            my_damaged(files, {"model": _entry("weights")})
        )

    return takes


def _by_characters(files: Files, manifest: Manifest) -> str | None:
    for name, entry in manifest.items():
        content = files.get(name)
        if content is None or len(content) != entry["size"] or _bad(content, entry):
            return name
    return None


def _bad(content: str, entry: dict[str, Any]) -> bool:
    return _entry(content) != entry


VERIFY = Exercise(
    id="damaged-file",
    notebook="10",
    title="Find the file that was altered",
    signature="my_damaged(files, manifest)",
    reference="gpt2lib.utils.files:verify",
    adapt=_first_damaged,
    cases=_manifests,
    hints=[
        "Go through the manifest, not through the files: a file that is gone is not among the "
        "files.",
        "hashlib.sha256(content.encode()).hexdigest() is the sum as text.",
        "Return the name of the first that is missing or differs; after the loop, None.",
    ],
    misconceptions=[
        Misconception(
            "size-only",
            "you compare sizes only: a flipped byte leaves the size as it was",
            wrong=lambda files, manifest: next(
                (
                    n
                    for n, entry in manifest.items()
                    if n not in files or len(files[n].encode()) != entry["size"]
                ),
                None,
            ),
        ),
        Misconception(
            "skips-the-missing",
            "a file that the manifest names and that is gone is damage, too",
            wrong=lambda files, manifest: next(
                (n for n, e in manifest.items() if n in files and _bad(files[n], e)), None
            ),
        ),
        Misconception(
            "goes-through-the-files",
            "you go through the files: what is missing is then never noticed, and a file that was "
            "added counts as damage. Go through the manifest",
            wrong=lambda files, manifest: next(
                (n for n, c in files.items() if n not in manifest or _bad(c, manifest[n])), None
            ),
        ),
        Misconception(
            "digest-as-bytes",
            "you find damage in files that are whole: `.digest()` is bytes and the manifest holds "
            "text. `.hexdigest()` is the same sum as text",
            test=_takes(lambda data: hashlib.sha256(data).digest()),
        ),
        Misconception(
            "another-sum",
            "you find damage in files that are whole: the manifest holds sums of sha256, and yours "
            "are of md5",
            test=_takes(lambda data: hashlib.md5(data, usedforsecurity=False).hexdigest()),
        ),
        Misconception(
            "sound-files-damaged",
            "you find damage in files that are whole; sizes are numbers of bytes, and sums are "
            "hashlib.sha256(content.encode()).hexdigest()",
            wrong=lambda files, manifest: next(iter(manifest)),
        ),
        Misconception(
            "characters-for-bytes",
            "'naïve' has 5 characters and 6 bytes, and the manifest counts bytes: compare "
            "len(content.encode())",
            wrong=_by_characters,
        ),
        Misconception(
            "only-the-first",
            "you return after the first file, sound or not: None may be returned only after all",
            wrong=lambda files, manifest: next(
                (n for n in list(manifest)[:1] if n not in files or _bad(files[n], manifest[n])),
                None,
            ),
        ),
    ],
)


def _newest_on_disk(newest: Function) -> Function:
    """Lay the checkpoints into a run's folder, seal them, and let the library choose."""
    from gpt2lib.utils.files import MANIFEST, atomic_folder

    def choose(folders: list[Entry]) -> str | None:
        with tempfile.TemporaryDirectory() as place:
            run = Path(place)
            for folder in folders:
                target = run / "checkpoints" / folder["name"]
                with atomic_folder(target) as inside:
                    (inside / "weights").write_bytes(b"numbers")
                if not folder["sound"]:
                    (target / MANIFEST).unlink()
            for folder in folders:
                target = run / "checkpoints" / folder["name"]
                os.utime(target, (folder["modified"], folder["modified"]))
            with mock.patch.object(checkpoint.logger, "disabled", True):
                found = newest(run)
        return None if found is None else str(found.name)

    return choose


def _folder(step: str, sound: bool, modified: int) -> Entry:
    return {"name": f"step-{step}", "sound": sound, "modified": modified}


def _number(folder: Entry) -> int:
    return int(folder["name"].removeprefix("step-"))


def _last(folders: list[Entry], key: Function) -> str | None:
    """Return the name of the last sound folder in some order."""
    sound = [folder for folder in folders if folder["sound"]]
    return max(sound, key=key)["name"] if sound else None


def _gives_up(folders: list[Entry]) -> str | None:
    last = max(folders, key=_number)
    return last["name"] if last["sound"] else None


def _any_damage(folders: list[Entry]) -> str | None:
    return _last(folders, _number) if all(f["sound"] for f in folders) else None


def _seen_damaged(seen: Seen) -> str:
    return f"{seen.got} is damaged: go back to the newest that verifies, {seen.expected}"


NEWEST = Exercise(
    id="newest-checkpoint",
    notebook="10",
    title="Which checkpoint to go on from",
    signature="my_newest(folders)",
    reference="gpt2lib.runs.checkpoint:newest",
    adapt=_newest_on_disk,
    cases=lambda: [
        case([_folder("900", True, 30), _folder("1000", True, 40), _folder("1100", False, 50)]),
        case([_folder("00000020", True, 90), _folder("00000040", True, 10)]),  # copied back later
        case([_folder("00000040", True, 2), _folder("00000020", False, 1)]),
        case([_folder("00000020", False, 1), _folder("00000040", False, 2)]),
        case([_folder("00000060", True, 4), _folder("00000020", True, 5)]),  # in no order
    ],
    hints=[
        "The number in the name says which is newest. As text, '900' comes after '1000'.",
        "Leave out what does not verify, then take the highest number.",
        'int(folder["name"].removeprefix("step-")) is the number; without a sound one, None.',
    ],
    misconceptions=[
        Misconception(
            "sorts-as-text",
            "you compare the names as text, and 'step-900' comes after 'step-1000': compare the "
            "numbers",
            wrong=lambda folders: _last(folders, lambda f: f["name"]),
        ),
        Misconception(
            "highest-even-if-damaged",
            _seen_damaged,
            wrong=lambda folders: max(folders, key=_number)["name"],
        ),
        Misconception(
            "last-written",
            "the time of a file changes when it is copied or restored from a backup: the number in "
            "the name is the step",
            wrong=lambda folders: _last(folders, lambda f: f["modified"]),
        ),
        Misconception(
            "last-of-the-list",
            "you take the last sound one of the list; a folder is listed in any order, so compare "
            "the numbers in the names",
            wrong=lambda folders: next((f["name"] for f in folders[::-1] if f["sound"]), None),
        ),
        Misconception(
            "gives-up",
            "the newest is damaged, and you give up: an older one is sound, and the run loses some "
            "steps only",
            wrong=_gives_up,
        ),
        Misconception(
            "one-bad-spoils-all",
            "one damaged checkpoint does not spoil the others: choose among the sound ones",
            wrong=_any_damage,
        ),
        Misconception(
            "oldest",
            "that is the oldest sound one: all steps since would be trained again",
            wrong=lambda folders: _last(folders, lambda f: -_number(f)),
        ),
    ],
)

EXERCISES = [ULPS, STATE, SHARE, WRITE, VERIFY, NEWEST]
