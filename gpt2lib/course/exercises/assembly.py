"""Exercises of notebook 06."""

from types import SimpleNamespace
from typing import Any

from gpt2lib.course.exercise import Exercise, Misconception, case, lazy

torch: Any = lazy("torch")
F: Any = lazy("torch.nn.functional")
config: Any = lazy("gpt2lib.config")


def _draw(*shapes: tuple[int, ...], seed: int = 0) -> list[Any]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(*shape, generator=generator) for shape in shapes]


def _shape(n_embd: int) -> Any:
    return config.GPTConfig(vocab_size=2, block_size=2, n_layer=1, n_head=1, n_embd=n_embd)


# ── layer-norm ──────────────────────────────────────────────────────────────────────────────────


def _block_norm(block: Any) -> Any:
    """Ask the layer norm inside the library's block."""

    def layer_norm(x: Any, gain: Any, bias: Any) -> Any:
        norm = block(_shape(x.size(-1))).ln_1
        with torch.no_grad():
            norm.weight.copy_(gain)
            norm.bias.copy_(bias)
            return norm(x)

    return layer_norm


def _norm_cases() -> Any:
    x, gain, bias = _draw((2, 3, 4), (4,), (4,))
    x = x * 3 + 5
    x[1, 2] = x[1, 2] * 1e-3  # its variance is near eps, so eps shows
    y, more_gain, more_bias = _draw((1, 5, 6), (6,), (6,), seed=1)
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


LAYER_NORM = Exercise(
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


# ── mlp ─────────────────────────────────────────────────────────────────────────────────────────


def _library_mlp(kind: Any) -> Any:
    def mlp(x: Any, W_fc: Any, b_fc: Any, W_proj: Any, b_proj: Any) -> Any:
        part = kind(_shape(x.size(-1))).eval()
        with torch.no_grad():
            for place, given in zip(part.parameters(), (W_fc, b_fc, W_proj, b_proj), strict=True):
                place.copy_(given)
            return part(x)

    return mlp


def _mlp_cases() -> Any:
    sizes = [(2, 3, 4), (1, 5, 6)]
    return [
        case(*_draw((b, t, c), (4 * c, c), (4 * c,), (c, 4 * c), (c,), seed=i))
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


MLP = Exercise(
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


# ── block ───────────────────────────────────────────────────────────────────────────────────────


def _library_block(kind: Any) -> Any:
    """Run the library's `Block.forward` over the four parts that the learner is given."""

    def block(x: Any, ln_1: Any, attn: Any, ln_2: Any, mlp: Any) -> Any:
        parts = SimpleNamespace(ln_1=ln_1, attn=lambda stream, *_: attn(stream), ln_2=ln_2, mlp=mlp)
        return kind.forward(parts, x, None)

    return block


def _block_cases() -> Any:
    x, a, m = _draw((2, 3, 4), (4, 4), (4, 4))
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


BLOCK = Exercise(
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


# ── count-parameters ────────────────────────────────────────────────────────────────────────────


def _library_count(count_parameters: Any) -> Any:
    def count(V: int, T: int, L: int, d: int) -> Any:
        shape = config.GPTConfig(vocab_size=V, block_size=T, n_layer=L, n_head=1, n_embd=d)
        return count_parameters(shape)

    return count


def _right_count(V: int, T: int, L: int, d: int) -> int:
    return V * d + T * d + L * (12 * d * d + 13 * d) + 2 * d


COUNT_PARAMETERS = Exercise(
    id="count-parameters",
    notebook="06",
    title="How many parameters a GPT-2 has",
    signature="my_count_parameters(V, T, L, d)",
    reference="gpt2lib.estimate:count_parameters",
    adapt=_library_count,
    shows="gpt2lib.estimate:parameter_parts",
    cases=lambda: [case(50257, 1024, 12, 768), case(7, 5, 3, 2), case(65, 256, 6, 384)],
    hints=[
        "Two embeddings, L blocks, one last layer norm. The head costs nothing: it is tied.",
        "A linear layer from a to b channels has a·b weights and b biases; a layer norm of d "
        "channels has 2·d. A block has four linear layers and two norms.",
        "c_attn 3d² + 3d, c_proj d² + d, c_fc 4d² + 4d, c_proj 4d² + d, two norms 4d: "
        "12d² + 13d a block.",
    ],
    misconceptions=[
        Misconception(
            "untied-head",
            "you are V·d above: you counted the head as well, which is the token embedding itself",
            wrong=lambda V, T, L, d: _right_count(V, T, L, d) + V * d,
        ),
        Misconception(
            "no-biases",
            "the biases of the linear layers are missing, 9·d in each block",
            wrong=lambda V, T, L, d: _right_count(V, T, L, d) - 9 * L * d,
        ),
        Misconception(
            "no-norms-in-the-blocks",
            "the two layer norms of each block are missing, 4·d a block",
            wrong=lambda V, T, L, d: _right_count(V, T, L, d) - 4 * L * d,
        ),
        Misconception(
            "no-norms",
            "the layer norms are missing, 4·d in each block and 2·d after the last",
            wrong=lambda V, T, L, d: _right_count(V, T, L, d) - (4 * L + 2) * d,
        ),
        Misconception(
            "weights-only",
            "biases and layer norms are missing: 13·d in each block and 2·d after the last",
            wrong=lambda V, T, L, d: V * d + T * d + 12 * L * d * d,
        ),
        Misconception(
            "forgot-the-last-norm",
            "you are 2·d below: after the last block there is one more layer norm, ln_f",
            wrong=lambda V, T, L, d: _right_count(V, T, L, d) - 2 * d,
        ),
        Misconception(
            "forgot-the-positions",
            "you are T·d below: positions are learned, one vector of d for each place",
            wrong=lambda V, T, L, d: _right_count(V, T, L, d) - T * d,
        ),
        Misconception(
            "norms-without-bias",
            "each layer norm has a gain and a bias, 2·d together; you counted d",
            wrong=lambda V, T, L, d: _right_count(V, T, L, d) - (2 * L + 1) * d,
        ),
        Misconception(
            "attention-without-c-proj",
            "attention has a second matrix, c_proj, of d² + d",
            wrong=lambda V, T, L, d: _right_count(V, T, L, d) - L * (d * d + d),
        ),
    ],
)

EXERCISES = [LAYER_NORM, MLP, BLOCK, COUNT_PARAMETERS]
