"""Notebook 06: Two matrices and a GELU."""

from typing import Any

from gpt2lib.course.exercise import Exercise, Misconception, case, lazy
from gpt2lib.course.exercises.assembly.shared import draw, small_config

torch: Any = lazy("torch")
F: Any = lazy("torch.nn.functional")
config: Any = lazy("gpt2lib.config")


def _library_mlp(kind: Any) -> Any:
    def mlp(x: Any, W_fc: Any, b_fc: Any, W_proj: Any, b_proj: Any) -> Any:
        part = kind(small_config(x.size(-1))).eval()
        with torch.no_grad():
            for place, given in zip(part.parameters(), (W_fc, b_fc, W_proj, b_proj), strict=True):
                place.copy_(given)
            return part(x)

    return mlp


def _mlp_cases() -> Any:
    sizes = [(2, 3, 4), (1, 5, 6)]
    return [
        case(*draw((b, t, c), (4 * c, c), (4 * c,), (c, 4 * c), (c,), seed=i))
        for i, (b, t, c) in enumerate(sizes)
    ]


def _mlp(
    act: Any = lambda h: F.gelu(h, approximate="tanh"),
    last: Any = lambda y: y,
    b_in: bool = True,
    b_out: bool = True,
) -> Any:
    """Return an MLP with one thing changed."""

    def mlp(x: Any, W_fc: Any, b_fc: Any, W_proj: Any, b_proj: Any) -> Any:
        hidden = act(x @ W_fc.T + b_fc * b_in)  # (B, T, 4·C)
        return last(hidden @ W_proj.T + b_proj * b_out)  # (B, T, C)

    return mlp


EXERCISE = Exercise(
    id="mlp",
    notebook="06",
    title="Two matrices and a GELU",
    signature="my_mlp(x, W_fc, b_fc, W_proj, b_proj)",
    reference="gpt2lib.model.gpt:MLP",
    adapt=_library_mlp,
    cases=_mlp_cases,
    rtol=1e-4,
    atol=1e-5,
    hints=[
        "Three steps: widen to 4·C channels, bend, come back to C. A matrix W of a linear layer "
        "is (outputs, inputs), so a layer is x @ W.T + b.",
        "The bend is your GELU from above, the tanh form, between the two matrices.",
        'F.gelu(x @ W_fc.T + b_fc, approximate="tanh") @ W_proj.T + b_proj',
    ],
    misconceptions=[
        Misconception(
            "exact-gelu",
            'very close: this is the exact GELU. GPT-2 has the tanh form, approximate="tanh"; the '
            "two differ by up to 0.0005 at every unit",
            wrong=_mlp(act=lambda h: F.gelu(h)),
        ),
        Misconception(
            "relu",
            "this is a ReLU, as in the first Transformer; GPT-2 has the tanh GELU",
            wrong=_mlp(act=lambda h: F.relu(h)),
        ),
        Misconception(
            "no-activation",
            "nothing bends between the two matrices, so together they are just one matrix: put "
            "the GELU between them",
            wrong=_mlp(act=lambda h: h),
        ),
        Misconception(
            "gelu-at-the-end",
            "the GELU comes after the second matrix; there it would cut off nearly all that is "
            "negative before it reaches the stream. It belongs between the two",
            wrong=_mlp(act=lambda h: h, last=lambda y: F.gelu(y, approximate="tanh")),
        ),
        Misconception(
            "gelu-twice",
            "there is a GELU after the second matrix too; only the one in the middle belongs there",
            wrong=_mlp(last=lambda y: F.gelu(y, approximate="tanh")),
        ),
        Misconception("forgot-b-fc", "b_fc is not added before the GELU", wrong=_mlp(b_in=False)),
        Misconception("forgot-b-proj", "b_proj is not added at the end", wrong=_mlp(b_out=False)),
        Misconception(
            "no-biases", "neither b_fc nor b_proj is added", wrong=_mlp(b_in=False, b_out=False)
        ),
    ],
)
