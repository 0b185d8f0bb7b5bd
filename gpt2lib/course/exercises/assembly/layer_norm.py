"""Notebook 06: Layer norm by hand."""

from typing import Any

from gpt2lib.course.exercise import Exercise, Misconception, case, lazy
from gpt2lib.course.exercises.assembly.shared import draw, small_config

torch: Any = lazy("torch")
config: Any = lazy("gpt2lib.config")


def _block_norm(block: Any) -> Any:
    """Ask the layer norm inside the library's block."""

    def layer_norm(x: Any, gain: Any, bias: Any) -> Any:
        norm = block(small_config(x.size(-1))).ln_1
        with torch.no_grad():
            norm.weight.copy_(gain)
            norm.bias.copy_(bias)
            return norm(x)

    return layer_norm


def _norm_cases() -> Any:
    x, gain, bias = draw((2, 3, 4), (4,), (4,))
    x = x * 3 + 5
    x[1, 2] = x[1, 2] * 1e-3  # its variance is near eps, so eps shows
    y, more_gain, more_bias = draw((1, 5, 6), (6,), (6,), seed=1)
    return [case(x, gain, bias), case(y, more_gain, more_bias)]


def _norm(
    over: Any = -1, centred: bool = True, unbiased: bool = False, scale: Any = None, way: str = ""
) -> Any:
    """Return a layer norm with one thing changed."""

    def layer_norm(x: Any, gain: Any, bias: Any) -> Any:
        mean = x.mean(over, keepdim=True)
        variance = x.var(over, keepdim=True, unbiased=unbiased)
        if not centred:
            mean, variance = torch.zeros_like(mean), (x * x).mean(over, keepdim=True)
        below = scale(variance) if scale else torch.sqrt(variance + 1e-5)
        normed = (x - mean) / below
        if way == "plain":
            return normed
        return (normed + bias) * gain if way == "bias first" else normed * gain + bias

    return layer_norm


EXERCISE = Exercise(
    id="layer-norm",
    notebook="06",
    title="Layer norm by hand",
    signature="my_layer_norm(x, gain, bias)",
    reference="gpt2lib.model.gpt:Block",
    adapt=_block_norm,
    cases=_norm_cases,
    rtol=1e-4,
    atol=1e-5,
    hints=[
        "Each place has a mean and a variance of its own, over its C channels: x.mean(dim=-1, "
        "keepdim=True) is (B, T, 1).",
        "The variance divides by C, not by C − 1: x.var(dim=-1, keepdim=True, unbiased=False).",
        "(x - mean) / torch.sqrt(variance + 1e-5) * gain + bias",
    ],
    misconceptions=[
        Misconception(
            "over-time",
            "you normalised over dim=1, the places of a text: so a place is told about those "
            "after it. The channels are dim=-1",
            wrong=_norm(over=1),
        ),
        Misconception(
            "over-everything",
            "you took one mean and one variance of the whole tensor; each place has its own, over "
            "dim=-1 with keepdim=True",
            wrong=_norm(over=(0, 1, 2)),
        ),
        Misconception(
            "divides-by-c-minus-1",
            "the variance divides by C − 1, which is PyTorch's default; layer norm divides by C: "
            "unbiased=False",
            wrong=_norm(unbiased=True),
        ),
        Misconception(
            "divides-by-the-variance",
            "you divided by the variance; the deviation is its square root",
            wrong=_norm(scale=lambda variance: variance + 1e-5),
        ),
        Misconception(
            "no-eps",
            "where a place has nearly equal channels you divide by nearly 0: add 1e-5 to the "
            "variance, under the root",
            wrong=_norm(scale=lambda variance: torch.sqrt(variance)),
        ),
        Misconception(
            "eps-outside-the-root",
            "1e-5 is added after the root; it belongs to the variance, under the root",
            wrong=_norm(scale=lambda variance: torch.sqrt(variance) + 1e-5),
        ),
        Misconception(
            "std-plus-eps",
            "two things: x.std() divides by C − 1 (unbiased=False divides by C), and 1e-5 is added "
            "after the root; layer norm has torch.sqrt(variance + 1e-5)",
            wrong=_norm(unbiased=True, scale=lambda variance: torch.sqrt(variance) + 1e-5),
        ),
        Misconception(
            "not-centred",
            "the mean is not subtracted: this is RMSNorm, which later models use; GPT-2 centres",
            wrong=_norm(centred=False),
        ),
        Misconception(
            "no-gain-and-bias",
            "each place has mean 0 and deviation 1 now; the learned gain and bias are missing",
            wrong=_norm(way="plain"),
        ),
        Misconception(
            "bias-before-gain",
            "the gain multiplies the bias too: multiply first, then add",
            wrong=_norm(way="bias first"),
        ),
    ],
)
