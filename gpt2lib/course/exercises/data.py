"""Exercises of notebook 02."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

from gpt2lib.course.exercise import Exercise, Misconception, Seen, case, lazy

np: Any = lazy("numpy")
torch: Any = lazy("torch")
order: Any = lazy("gpt2lib.data.order")

Function = Callable[..., Any]


class _Row:
    """Ids in memory, which `batch` reads as it reads a token file."""

    def __init__(self, tokens: Any) -> None:
        self.tokens, self.parts = tokens, (self,)

    def __len__(self) -> int:
        return len(self.tokens)


def _of_a_row(batch: Function) -> Function:
    return lambda tokens, starts, block_size: batch(_Row(tokens), starts, block_size)


def _cut(
    first: int = 0, then: int = 1, shorter: int = 0, wrapped: bool = False, kind: str = "int64"
) -> Function:
    """Return the function that cuts inputs from `first` and targets from `then` on."""

    def cut(tokens: Any, starts: Sequence[int], block_size: int) -> Any:
        T = block_size - shorter
        ids = torch.from_numpy(tokens.astype(kind))
        idx = torch.stack([ids[s + first : s + first + T] for s in starts])  # (B, T)
        if wrapped:
            return idx, idx.roll(-1, dims=1)
        return idx, torch.stack([ids[s + then : s + then + T] for s in starts])

    return cut


def _row(n: int, seed: int = 0) -> Any:
    """Return n ids, all different, in two bytes each."""
    return np.random.default_rng(seed).permutation(500)[:n].astype("uint16")


INPUTS_AND_TARGETS = Exercise(
    id="inputs-and-targets",
    notebook="02",
    title="What goes in, and what should come out",
    signature="my_inputs_and_targets(tokens, starts, block_size)",
    reference="gpt2lib.data.loader:batch",
    adapt=_of_a_row,
    strict_type=True,  # embeddings take int64
    cases=lambda: [case(_row(12), [3, 6, 1], 4), case(_row(30, 1), [10, 2], 6)],
    hints=[
        "A window of block_size inputs needs block_size + 1 tokens.",
        "The target at position t is the token after the input at position t: the same window, "
        "moved by one.",
        "tokens[s : s + block_size] and tokens[s + 1 : s + 1 + block_size], for each s of starts.",
        "torch.from_numpy(tokens.astype('int64')) has the type that embeddings take; torch.stack "
        "makes (B, T) of rows.",
    ],
    misconceptions=[
        Misconception(
            "targets-are-inputs",
            "each target is the input at its own position, so the model has only to copy what it "
            "sees; the target is the token after it",
            wrong=_cut(then=0),
        ),
        Misconception(
            "wraps-around",
            "the last target of each row is the row's first token: roll moves it around. It must "
            "be the token after the window",
            wrong=_cut(wrapped=True),
        ),
        Misconception(
            "the-token-before",
            "the target is the token before the input, which the model has already seen; take the "
            "one after it",
            wrong=_cut(then=-1),
        ),
        Misconception(
            "two-ahead",
            "each target is two tokens ahead: the shift is made twice",
            wrong=_cut(then=2),
        ),
        Misconception(
            "one-too-short",
            "your rows have block_size - 1 positions: you shift within block_size tokens. Read one "
            "token more",
            wrong=_cut(shorter=1),
        ),
        Misconception(
            "two-bytes-each",
            "the values are right, but still of the small type of the file; embeddings take "
            "int64 (torch.long)",
            wrong=_cut(kind="uint16"),
        ),
    ],
)


class _Mix:
    """Bits that look random, from the round and the right half; far more bits than a half has."""

    def __init__(self, key: int) -> None:
        self.key = key

    def __call__(self, round_: int, right: int) -> int:
        word = order._mix(order._word(self.key * 1000 + round_) ^ order._word(right))
        return int(word[0])


def _whole_numbers(feistel: Function) -> Function:
    """Let the library's network, which takes arrays, take one Python number."""

    def permute(number: int, half: int, mix: Callable[[int, int], int]) -> int:
        def words(round_: int, right: Any) -> Any:
            return np.uint64(mix(round_, int(right)) % (1 << 64))

        return int(feistel(np.uint64(number), half, words))

    return permute


def _network(
    step: Callable[[int, int, int, int, Callable[[int, int], int]], tuple[int, int]],
    rounds: int = 8,
    swapped: bool = False,
) -> Function:
    """Return a network of other rounds; `step` takes left, right, mask, the round and mix."""

    def permute(number: int, half: int, mix: Callable[[int, int], int]) -> int:
        mask = (1 << half) - 1
        left, right = number >> half, number & mask
        for round_ in range(rounds):
            left, right = step(left, right, mask, round_, mix)
        return (right << half) | left if swapped else (left << half) | right

    return permute


FEISTEL = Exercise(
    id="feistel",
    notebook="02",
    title="Shuffle without a list",
    signature="my_feistel(number, half, mix)",
    reference="gpt2lib.data.order:feistel",
    adapt=_whole_numbers,
    cases=lambda: [
        *(case(number, 2, _Mix(1)) for number in (0, 6, 11, 15)),
        *(case(number, 4, _Mix(2)) for number in (1, 100, 255)),
        case(70_000, 9, _Mix(3)),
    ],
    hints=[
        "mask = (1 << half) - 1 has `half` ones. The left half of a number is number >> half, the "
        "right one number & mask.",
        "A round makes the old right half the new left one, and changes the old left half by a "
        "number that depends on the right half only.",
        "left, right = right, left ^ (mix(round_, right) & mask), for round_ in range(8)",
        "In the end put them together again: (left << half) | right.",
    ],
    misconceptions=[
        Misconception(
            "left-half-lost",
            "the left half is thrown away in each round, so different numbers meet and nothing "
            "is shuffled but overwritten: combine it with the mixed bits by ^",
            wrong=_network(lambda le, r, mask, i, mix: (r, mix(i, r) & mask)),
        ),
        Misconception(
            "one-after-the-other",
            "the left half becomes the right one before it is used, so the old left half is lost "
            "and numbers meet: assign both at once, left, right = right, left ^ …",
            wrong=_network(lambda le, r, mask, i, mix: (r, r ^ (mix(i, r) & mask))),
        ),
        Misconception(
            "mixes-the-wrong-half",
            "you mix the half that is being changed; it cannot be found again from the result, so "
            "two numbers may meet. mix takes the right half, which the round keeps",
            wrong=_network(lambda le, r, mask, i, mix: (r, le ^ (mix(i, le) & mask))),
        ),
        Misconception(
            "never-swaps",
            "the right half comes out as it went in: after each round the halves must change "
            "places",
            wrong=_network(lambda le, r, mask, i, mix: (le ^ (mix(i, r) & mask), r)),
        ),
        Misconception(
            "no-mask",
            "mix returns 64 bits, and a half has room for few: keep the last ones with & mask, or "
            "the result is no number of 2 * half bits",
            wrong=_network(lambda le, r, mask, i, mix: (r, le ^ mix(i, r))),
        ),
        Misconception(
            "adds",
            "adding and cutting off is a permutation, too, and a good one, but another: the "
            "library combines by ^ (exclusive or)",
            wrong=_network(lambda le, r, mask, i, mix: (r, (le + mix(i, r)) & mask)),
        ),
        Misconception(
            "one-round-only",
            "one round moves the right half to the left as it is; it takes eight of them",
            wrong=_network(lambda le, r, mask, i, mix: (r, le ^ (mix(i, r) & mask)), rounds=1),
        ),
        Misconception(
            "halves-swapped-in-the-end",
            "in the end the halves are put together the other way round: left belongs to the left",
            wrong=_network(lambda le, r, mask, i, mix: (r, le ^ (mix(i, r) & mask)), swapped=True),
        ),
    ],
)


class _Table:
    """A permutation that is written out."""

    def __init__(self, *numbers: int) -> None:
        self.numbers = numbers

    def __call__(self, number: int) -> int:
        return self.numbers[number]

    def __repr__(self) -> str:
        return f"the permutation {list(self.numbers)}"


def _one_place(cycle_walk: Function) -> Function:
    """Let the library's walk, which takes arrays, take one Python number."""

    def walk(position: int, n: int, permute: Callable[[int], int]) -> int:
        def words(numbers: Any) -> Any:
            return np.array([permute(int(i)) for i in numbers], dtype=np.uint64)

        return int(cycle_walk(np.array([position], dtype=np.uint64), n, words)[0])

    return walk


def _too_far(position: int, n: int, permute: Callable[[int], int]) -> int:
    out = permute(position)
    while out > n:
        out = permute(out)
    return out


def _neighbour(position: int, n: int, permute: Callable[[int], int]) -> int:
    while permute(position) >= n:
        position = (position + 1) % n
    return permute(position)


def _meet(seen: Seen) -> str:
    position, n, permute = seen.case.args
    other = next((p for p in range(n) if permute(p) == seen.got), None)
    meet = f" position {other} has window {seen.got} already," if other is not None else ""
    return (
        f"position {position} of {n} goes to {seen.got};{meet} so one window comes twice and "
        "another never. Send the number that is too large through permute again"
    )


CYCLE_WALKING = Exercise(
    id="cycle-walking",
    notebook="02",
    title="A permutation of any size",
    signature="my_walk(position, n, permute)",
    reference="gpt2lib.data.order:cycle_walk",
    adapt=_one_place,
    cases=lambda: [
        case(position, 5, table)
        for table in (_Table(6, 5, 4, 0, 7, 2, 3, 1), _Table(3, 7, 0, 5, 1, 4, 2, 6))
        for position in range(5)
    ],
    hints=[
        "permute(position) may be n or more. What could you do with such a number?",
        "It is a number that permute takes. Send it through again, until it is below n.",
        "number = permute(position), then: while number >= n: number = permute(number)",
    ],
    misconceptions=[
        Misconception("modulo", _meet, wrong=lambda position, n, permute: permute(position) % n),
        Misconception(
            "once-only",
            lambda seen: (
                f"position {seen.case.args[0]} goes to {seen.got}, and there is no such window: "
                f"they go from 0 to {seen.case.args[1] - 1}. Send it through again"
            ),
            wrong=lambda position, n, permute: permute(position),
        ),
        Misconception(
            "if-for-while",
            lambda seen: (
                f"position {seen.case.args[0]} goes to {seen.got}: you send a number that is too "
                f"large through once more, and it may be too large again. Go on while it is >= "
                f"{seen.case.args[1]}"
            ),
            wrong=lambda position, n, permute: (
                permute(position) if permute(position) < n else permute(permute(position))
            ),
        ),
        Misconception(
            "off-by-one",
            "n itself comes out, and the windows end at n - 1: go on while the number is >= n",
            wrong=_too_far,
        ),
        Misconception(
            "clips",
            "every number that is too large becomes the last window, which so comes often; send "
            "it through permute again",
            wrong=lambda position, n, permute: min(permute(position), n - 1),
        ),
        Misconception(
            "asks-the-neighbour",
            "where the number is too large you go on with the next position, whose window then "
            "comes twice; send the number itself through permute again",
            wrong=_neighbour,
        ),
        Misconception(
            "never-permutes",
            "positions come out as they went in: all are below n already, so permute once before "
            "you ask",
            wrong=lambda position, n, permute: position,
        ),
    ],
)


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


SAMPLES_OF_A_PROCESS = Exercise(
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


def _stretch(step: int, batch_size: int, rank: int, processes: int) -> list[int]:
    share = batch_size // processes
    first = step * batch_size + rank * share
    return list(range(first, first + share))


def _two_rows() -> Any:
    return torch.tensor([[9, 4, 4, 9, 2, 9, 9, 3], [5, 1, 9, 6, 6, 2, 9, 8]])


DOCUMENT_IDS = Exercise(
    id="document-ids",
    notebook="02",
    title="Where documents begin",
    signature="my_document_ids(idx, eot)",
    reference="gpt2lib.data.loader:document_ids",
    cases=lambda: [case(_two_rows(), 9), case(_two_rows(), 2), case(_two_rows()[1:], 6)],
    hints=[
        "idx == eot is True where a new document begins. Count as you go along the row.",
        "cumsum adds up along a dimension, and True counts as 1.",
        "(idx == eot).cumsum(dim=1)",
    ],
    misconceptions=[
        Misconception(
            "eot-ends-the-document",
            "the end-of-text token is counted to the document before it. As an input it is what "
            "the next one's first token is predicted from, so it belongs to the next",
            wrong=lambda idx, eot: (idx == eot).cumsum(1) - (idx == eot).long(),
        ),
        Misconception(
            "starts-at-one",
            "a row that begins in the middle of a document begins with number 0; yours begins "
            "with 1",
            wrong=lambda idx, eot: (idx == eot).cumsum(1) + 1,
        ),
        Misconception(
            "crosses-rows",
            "the count goes on from one row into the next; each row begins at 0 again",
            wrong=lambda idx, eot: (idx == eot).flatten().cumsum(0).view_as(idx),
        ),
        Misconception(
            "along-the-batch",
            "you count down the rows (dim 0, the batch); documents follow one another along a row "
            "(dim 1, time)",
            wrong=lambda idx, eot: (idx == eot).cumsum(0),
        ),
        Misconception(
            "borders-only",
            "you mark the positions where a document begins, and give all others the same number; "
            "add the marks up along the row",
            wrong=lambda idx, eot: (idx == eot).long(),
        ),
        Misconception(
            "counts-from-the-end",
            "the numbers fall along the row: you count the borders still to come, and must count "
            "those that are past",
            wrong=lambda idx, eot: (idx == eot).long().flip(1).cumsum(1).flip(1),
        ),
    ],
)


def _one_sample(interleave: Function) -> Function:
    def draw(i: int, shares: Sequence[int]) -> tuple[int, int]:
        source, number = interleave(shares, i)
        return int(source), int(number)

    return draw


def _drawing(
    mine: Callable[[int, int, int], bool],
    first: Callable[[int, int, int], int],
    second: Callable[[int, int, int], int],
) -> Function:
    """Return the function that asks `mine` which source it is, and the others for the number."""

    def draw(i: int, shares: Sequence[int]) -> tuple[int, int]:
        a, total = shares[0], sum(shares)
        return (0, first(i, a, total)) if mine(i, a, total) else (1, second(i, a, total))

    return draw


def _grows(i: int, a: int, total: int) -> bool:
    return (i + 1) * a // total > i * a // total


def _in_floats(i: int, shares: Sequence[int]) -> tuple[int, int]:
    share = shares[0] / sum(shares)
    before = int(i * share)
    return (0, before) if int((i + 1) * share) > before else (1, i - before)


MIXTURE_DRAW = Exercise(
    id="mixture-draw",
    notebook="02",
    title="Two sources, in proportion",
    signature="my_draw(i, shares)",
    reference="gpt2lib.data.order:interleave",
    adapt=_one_sample,
    cases=lambda: [
        *(case(i, shares) for shares in ((2, 3), (5, 2), (1, 3)) for i in range(16)),
        *(case(i, (1, 48)) for i in (48, 49)),  # 49 · (1/49) is less than 1 in float64
    ],
    hints=[
        "Of the first n samples, the first source has had floor(n * a / total): n * a // total.",
        "Sample i is one of the first source's if that number is larger at n = i + 1 than at "
        "n = i. How many has it had before?",
        "The second source has had what the first has not: i minus the first one's number.",
    ],
    misconceptions=[
        Misconception(
            "in-blocks",
            "the share is right over a whole round, but the samples of a source come in one block; "
            "with large shares that is a long stretch of one source only. Spread them",
            wrong=_drawing(
                lambda i, a, total: i % total < a,
                lambda i, a, total: i // total * a + i % total,
                lambda i, a, total: i // total * (total - a) + i % total - a,
            ),
        ),
        Misconception(
            "one-number-for-all",
            "the second value is the sample's number in the mixture, so each source skips most of "
            "its own windows. Count within the source",
            wrong=_drawing(_grows, lambda i, a, total: i, lambda i, a, total: i),
        ),
        Misconception(
            "each-rounded-by-itself",
            "the second source's number is rounded by itself, and rounds to the same one twice: a "
            "window comes again and another never. It is i minus what the first source has had",
            wrong=_drawing(
                _grows,
                lambda i, a, total: i * a // total,
                lambda i, a, total: i * (total - a) // total,
            ),
        ),
        Misconception(
            "counts-itself",
            "the first sample of a source has number 1, so window 0 is never read: count the "
            "samples before this one",
            wrong=_drawing(
                _grows,
                lambda i, a, total: (i + 1) * a // total,
                lambda i, a, total: i + 1 - (i + 1) * a // total,
            ),
        ),
        Misconception(
            "in-floats",
            "a share as a float is rounded: 49 * (1 / 49) is 0.9999999999999999, which int cuts to "
            "0, so a sample goes to the wrong source. Whole numbers are exact: n * a // total",
            wrong=_in_floats,
        ),
        Misconception(
            "sources-swapped",
            "the shares are given to the wrong sources: the first of `shares` belongs to source 0",
            wrong=lambda i, shares: (
                1 - _drawing(_grows, _before, _rest)(i, shares)[0],
                _drawing(_grows, _before, _rest)(i, shares)[1],
            ),
        ),
    ],
)


def _before(i: int, a: int, total: int) -> int:
    return i * a // total


def _rest(i: int, a: int, total: int) -> int:
    return i - i * a // total


EXERCISES = [
    INPUTS_AND_TARGETS,
    FEISTEL,
    CYCLE_WALKING,
    SAMPLES_OF_A_PROCESS,
    DOCUMENT_IDS,
    MIXTURE_DRAW,
]
