"""Notebook 10: The same samples on any number of processes."""

from __future__ import annotations

from types import SimpleNamespace

from gpt2lib.course.exercise import Exercise, Function, Misconception, case


def _samples(step: int, batch_size: int, rank: int, processes: int) -> list[int]:
    share = batch_size // processes
    first = step * batch_size + rank * share
    return list(range(first, first + share))


def _samples_read(samples: Function) -> Function:
    def of(step: int, batch_size: int, rank: int, processes: int) -> list[int]:
        loader = SimpleNamespace(batch_size=batch_size, share=batch_size // processes, rank=rank)
        return list(samples(loader, step))

    return of


EXERCISE = Exercise(
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
