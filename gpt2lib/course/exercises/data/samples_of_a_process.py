"""Notebook 02: Who reads what."""

from __future__ import annotations

from types import SimpleNamespace

from gpt2lib.course.exercise import Exercise, Function, Misconception, case


def _numbers(samples: Function) -> Function:
    """Ask the library's `Loader` which samples it would read, without any data."""

    def of_a_process(step: int, batch_size: int, rank: int, processes: int) -> list[int]:
        loader = SimpleNamespace(batch_size=batch_size, rank=rank, share=batch_size // processes)
        return list(samples(loader, step))

    return of_a_process


def _per_process(step: int, batch_size: int, rank: int, processes: int) -> list[int]:
    first = (step * processes + rank) * batch_size
    return list(range(first, first + batch_size))


def _strided(step: int, batch_size: int, rank: int, processes: int) -> list[int]:
    return list(range(step * batch_size + rank, (step + 1) * batch_size, processes))


def _overlapping(step: int, batch_size: int, rank: int, processes: int) -> list[int]:
    share = batch_size // processes
    return list(range((step + rank) * share, (step + rank + 1) * share))


def _stretch(step: int, batch_size: int, rank: int, processes: int) -> list[int]:
    share = batch_size // processes
    first = step * batch_size + rank * share
    return list(range(first, first + share))


EXERCISE = Exercise(
    id="samples-of-a-process",
    notebook="02",
    title="Who reads what",
    signature="my_samples(step, batch_size, rank, processes)",
    reference="gpt2lib.data.loader:Loader.samples",
    adapt=_numbers,
    cases=lambda: [
        case(step, batch_size, rank, processes)
        for batch_size, processes in ((8, 1), (8, 2), (12, 4))
        for step in (0, 1, 5)
        for rank in range(processes)
    ],
    hints=[
        "Update number `step` takes batch_size samples, whatever the number of processes; the "
        "ones before it have taken step * batch_size.",
        "Of these, each process has batch_size // processes, one stretch behind the other.",
        "first = step * batch_size + rank * share, and then `share` numbers from there on.",
    ],
    misconceptions=[
        Misconception(
            "everyone-reads-all",
            "all processes read the same samples: two of them would do the same work twice. Each "
            "has its share",
            wrong=lambda step, batch_size, rank, processes: list(
                range(step * batch_size, (step + 1) * batch_size)
            ),
        ),
        Misconception(
            "batch-grows",
            "each process reads batch_size samples, so with two processes an update takes twice "
            "as many: another run, with another loss curve. batch_size is over all processes",
            wrong=_per_process,
        ),
        Misconception(
            "strided",
            "together the processes read the right samples, but in turns, and ours take "
            "stretches: process 0 the first ones, process 1 the next. Either works, if all agree",
            wrong=_strided,
        ),
        Misconception(
            "forgets-the-step",
            "every update reads the same samples: begin at step * batch_size",
            wrong=lambda step, batch_size, rank, processes: _stretch(
                0, batch_size, rank, processes
            ),
        ),
        Misconception(
            "updates-overlap",
            "an update begins one share after the one before it, and reads again what another "
            "process has just read; it begins batch_size samples after it",
            wrong=_overlapping,
        ),
    ],
)
