"""Notebook 06: Attention and MLP on one stream."""

from types import SimpleNamespace
from typing import Any

from gpt2lib.course.exercise import Exercise, Misconception, case, lazy
from gpt2lib.course.exercises.assembly.shared import draw

torch: Any = lazy("torch")


def _library_block(kind: Any) -> Any:
    """Run the library's `Block.forward` over the four parts that the learner is given."""

    def block(x: Any, ln_1: Any, attn: Any, ln_2: Any, mlp: Any) -> Any:
        parts = SimpleNamespace(ln_1=ln_1, attn=lambda stream, *_: attn(stream), ln_2=ln_2, mlp=mlp)
        return kind.forward(parts, x, None)

    return block


def _block_cases() -> Any:
    x, a, m = draw((2, 3, 4), (4, 4), (4, 4))
    return [
        case(
            x,
            lambda s: (s - s.mean(-1, keepdim=True)) / s.std(-1, keepdim=True),
            lambda s: (s @ a).cumsum(1),
            lambda s: 2 * (s - s.mean(-1, keepdim=True)) / s.std(-1, keepdim=True),
            lambda s: torch.tanh(s @ m),
        ),
        case(x, lambda s: s + 1, lambda s: 2 * s, lambda s: s - 3, lambda s: s * s),
    ]


def _in_place(my_block: Any) -> bool:
    x = torch.ones(1, 1, 2)
    my_block(x, *[lambda s: s] * 4)
    return not torch.equal(x, torch.ones(1, 1, 2))


def _post_norm(x: Any, ln_1: Any, attn: Any, ln_2: Any, mlp: Any) -> Any:
    x = ln_1(x + attn(x))
    return ln_2(x + mlp(x))


def _residual_of_the_norm(x: Any, ln_1: Any, attn: Any, ln_2: Any, mlp: Any) -> Any:
    x = ln_1(x)
    x = ln_2(x + attn(x))
    return x + mlp(x)


def _second_without_residual(x: Any, ln_1: Any, attn: Any, ln_2: Any, mlp: Any) -> Any:
    return mlp(ln_2(x + attn(ln_1(x))))


def _first_without_residual(x: Any, ln_1: Any, attn: Any, ln_2: Any, mlp: Any) -> Any:
    x = attn(ln_1(x))
    return x + mlp(ln_2(x))


def _mlp_first(x: Any, ln_1: Any, attn: Any, ln_2: Any, mlp: Any) -> Any:
    x = x + mlp(ln_2(x))
    return x + attn(ln_1(x))


def _one_norm(x: Any, ln_1: Any, attn: Any, ln_2: Any, mlp: Any) -> Any:
    x = x + attn(ln_1(x))
    return x + mlp(ln_1(x))


def _no_norm(x: Any, ln_1: Any, attn: Any, ln_2: Any, mlp: Any) -> Any:
    x = x + attn(x)
    return x + mlp(x)


EXERCISE = Exercise(
    id="block",
    notebook="06",
    title="Attention and MLP on one stream",
    signature="my_block(x, ln_1, attn, ln_2, mlp)",
    reference="gpt2lib.model.gpt:Block",
    adapt=_library_block,
    shows="gpt2lib.model.gpt:Block.forward",
    cases=_block_cases,
    hints=[
        "The stream x is only ever added to. The norm is for what a part reads, not for the "
        "stream itself.",
        "Attention reads ln_1(x); its output is added to x. The MLP then reads the new stream.",
        "x = x + attn(ln_1(x)), then x + mlp(ln_2(x))",
    ],
    misconceptions=[
        Misconception(
            "changes-the-stream-in-place",
            "+= changes the caller's tensor; others may still read it, and backward needs its "
            "old numbers. Write x = x + …",
            test=_in_place,
        ),
        Misconception(
            "post-norm",
            "you normalise after each addition, as the first Transformer did; GPT-2 moved the "
            "norm to the input of each part and leaves the stream itself alone",
            wrong=_post_norm,
        ),
        Misconception(
            "stream-is-normalised",
            "the norm's output replaced the stream: what you add to must be x itself, not ln(x)",
            wrong=_residual_of_the_norm,
        ),
        Misconception(
            "no-residual",
            "nothing is added: each part replaces the stream instead of adding to it",
            wrong=lambda x, ln_1, attn, ln_2, mlp: mlp(ln_2(attn(ln_1(x)))),
        ),
        Misconception(
            "second-residual-missing",
            "attention adds to the stream, but the MLP replaces it; the MLP adds, too",
            wrong=_second_without_residual,
        ),
        Misconception(
            "first-residual-missing",
            "attention replaces the stream, and the MLP adds to it; attention adds, too: "
            "x = x + attn(ln_1(x))",
            wrong=_first_without_residual,
        ),
        Misconception(
            "in-parallel",
            "both parts read the same x; in GPT-2 the MLP reads the stream after attention has "
            "added to it (some later models do it your way)",
            wrong=lambda x, ln_1, attn, ln_2, mlp: x + attn(ln_1(x)) + mlp(ln_2(x)),
        ),
        Misconception(
            "mlp-first",
            "the order is attention, then MLP: first gather, then digest",
            wrong=_mlp_first,
        ),
        Misconception(
            "one-norm-for-both",
            "the MLP reads through ln_1; it has a norm of its own, ln_2",
            wrong=_one_norm,
        ),
        Misconception(
            "no-norms",
            "the parts read x as it is; they should read ln_1(x) and ln_2(x)",
            wrong=_no_norm,
        ),
    ],
)
