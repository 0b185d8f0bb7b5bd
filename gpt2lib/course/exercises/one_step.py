"""Exercises of notebook 08."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from gpt2lib.course.exercise import Exercise, Misconception, case, lazy

torch: Any = lazy("torch")
config: Any = lazy("gpt2lib.config")
model: Any = lazy("gpt2lib.model.gpt")
watching: Any = lazy("gpt2lib.course.watching")

Function = Callable[..., Any]
Tensors = Sequence[Any]
Pieces = list[tuple[Any, Any]]
"""Micro-batches: idx and targets of each."""


def _norm(tensors: Tensors) -> float:
    """Return the length of all numbers of all tensors, as one vector."""
    return math.sqrt(sum(float((t.double() ** 2).sum()) for t in tensors))


def _clipper(clip_grad_norm_: Any) -> Function:
    def clip(grads: Tensors, max_norm: float) -> list[Any]:
        parameters = [torch.nn.Parameter(torch.zeros_like(g)) for g in grads]
        for parameter, grad in zip(parameters, grads, strict=True):
            parameter.grad = grad.clone()
        clip_grad_norm_(parameters, max_norm)
        return [p.grad for p in parameters]

    return clip


def _each_by_itself(grads: Tensors, max_norm: float) -> list[Any]:
    return [g * min(1.0, max_norm / (_norm([g]) + 1e-6)) for g in grads]


def _only_large_ones(grads: Tensors, max_norm: float) -> list[Any]:
    return [g * min(1.0, max_norm / float(g.abs().max())) for g in grads]


def _no_epsilon(my_clip: Any) -> bool:
    clipped = my_clip([torch.zeros(2), torch.zeros(3)], 1.0)
    return any(bool(torch.isnan(g).any()) for g in clipped)


CLIP_BY_NORM = Exercise(
    id="clip-by-norm",
    notebook="08",
    title="Shorten a gradient, keep its direction",
    signature="my_clip(grads, max_norm)",
    reference="torch.nn.utils:clip_grad_norm_",
    adapt=_clipper,
    cases=lambda: [
        case([torch.tensor([3.0, 0.0]), torch.tensor([[-4.0], [0.5]])], 1.0),  # too long
        case([torch.tensor([0.3, -0.2]), torch.tensor([0.1])], 1.0),  # short enough
        case([torch.tensor([0.9, 0.0]), torch.tensor([-0.8])], 1.0),  # long only together
        case([torch.tensor([30.0, -2.0, 0.4]), torch.tensor([0.1])], 2.5),
    ],
    hints=[
        "The norm is that of all numbers of all tensors together: the root of the sum of all "
        "squares.",
        "Every tensor is multiplied by the same number, which is never above 1.",
        "factor = min(1, max_norm / (norm + 1e-6)), and the 1e-6 keeps a gradient of zeros from "
        "0 / 0.",
    ],
    misconceptions=[
        Misconception(
            "each-tensor-by-itself",
            "you clip each tensor by its own norm: together they may still be too long, and the "
            "direction of the whole gradient changes. Take one norm over all of them",
            wrong=_each_by_itself,
        ),
        Misconception(
            "clamps-each-number",
            "you cut off each number at max_norm: large numbers become equal, so the direction "
            "changes. Multiply all by one factor",
            wrong=lambda grads, max_norm: [g.clamp(-max_norm, max_norm) for g in grads],
        ),
        Misconception(
            "lengthens-short-ones",
            "a short gradient comes out longer: the factor must never be above 1, or the model "
            "never comes to rest",
            wrong=lambda grads, max_norm: [g * max_norm / (_norm(grads) + 1e-6) for g in grads],
        ),
        Misconception(
            "largest-number",
            "you compare the largest number of each tensor with max_norm; the norm is the root of "
            "the sum of all squares",
            wrong=_only_large_ones,
        ),
        Misconception(
            "adds-the-norms",
            "you add up the norms of the tensors; add their squares, and take the root of the sum",
            wrong=lambda grads, max_norm: [
                g * min(1.0, max_norm / (sum(_norm([t]) for t in grads) + 1e-6)) for g in grads
            ],
        ),
        Misconception(
            "forgets-the-root",
            "you divide by the sum of the squares; the norm is its root",
            wrong=lambda grads, max_norm: [
                g * min(1.0, max_norm / (_norm(grads) ** 2 + 1e-6)) for g in grads
            ],
        ),
        Misconception(
            "zero-by-zero",
            "a gradient of zeros becomes NaN, and the next step makes NaN of every weight: add "
            "1e-6 to the norm before you divide",
            test=_no_epsilon,
        ),
    ],
)


def _adamw(make_optimizer: Any) -> Function:
    """Make one step of the library's optimiser, on one parameter, from a state that is given."""

    def step_once(
        weight: Any,
        grad: Any,
        m: Any,
        v: Any,
        step: int,
        lr: float,
        beta1: float,
        beta2: float,
        eps: float,
        weight_decay: float,
    ) -> tuple[Any, Any, Any]:
        holder = torch.nn.Module()
        holder.weight = torch.nn.Parameter(weight.clone())
        holder.weight.grad = grad.clone()
        optimizer = make_optimizer(holder, config.OptimConfig(lr=lr, beta1=beta1, beta2=beta2))
        for group in optimizer.param_groups:  # a vector may decay here, and eps may be 0
            group.update(eps=eps, weight_decay=weight_decay)
        optimizer.state[holder.weight] = {
            "step": torch.tensor(float(step - 1)),
            "exp_avg": m.clone(),
            "exp_avg_sq": v.clone(),
        }
        optimizer.step()
        state = optimizer.state[holder.weight]
        return holder.weight.detach(), state["exp_avg"], state["exp_avg_sq"]

    return step_once


def _variant(
    corrected: bool = True,
    decay: str = "decoupled",
    squares: bool = True,
    root: bool = True,
    eps_inside: bool = False,
    sign: float = -1.0,
    swapped: bool = False,
    complements: bool = False,
    from_zero: bool = False,
) -> Function:
    """Return AdamW's step with mistakes."""

    def step_once(
        weight: Any,
        grad: Any,
        m: Any,
        v: Any,
        step: int,
        lr: float,
        beta1: float,
        beta2: float,
        eps: float,
        weight_decay: float,
    ) -> tuple[Any, Any, Any]:
        if swapped:
            beta1, beta2 = beta2, beta1
        if decay == "in the gradient":
            grad = grad + weight_decay * weight
        if complements:
            beta1, beta2 = 1 - beta1, 1 - beta2
        m = beta1 * m + (1 - beta1) * grad
        v = beta2 * v + (1 - beta2) * (grad**2 if squares else grad.abs())
        count = step - 1 if from_zero else step
        if complements:
            beta1, beta2 = 1 - beta1, 1 - beta2
        mean = m / (1 - beta1**count) if corrected else m
        square = v / (1 - beta2**count) if corrected else v
        if not root:
            size = square + eps
        else:
            size = (square + eps).sqrt() if eps_inside else square.sqrt() + eps
        if decay == "decoupled":
            weight = weight * (1 - lr * weight_decay)
        elif decay == "without the rate":
            weight = weight * (1 - weight_decay)
        weight = weight + sign * lr * mean / size
        return weight * (1 - lr * weight_decay) if decay == "afterwards" else weight, m, v

    return step_once


def _step_cases() -> list[Any]:
    numbers = torch.Generator().manual_seed(0)

    def draw() -> Any:
        return torch.randn(2, 3, generator=numbers, dtype=torch.float64)

    zeros = torch.zeros(2, 3, dtype=torch.float64)
    return [
        case(draw(), draw(), 0.1 * draw(), 0.1 * draw() ** 2, 3, 0.1, 0.9, 0.99, 1e-3, 0.1),
        case(draw(), draw(), 0.1 * draw(), 0.1 * draw() ** 2, 40, 0.02, 0.8, 0.95, 1e-2, 0.5),
        case(draw(), draw(), zeros, zeros, 1, 0.1, 0.9, 0.95, 1e-2, 0.1),  # the first update
    ]


ADAMW_STEP = Exercise(
    id="adamw-step",
    notebook="08",
    title="One step of AdamW",
    signature="my_adamw_step(weight, grad, m, v, step, lr, beta1, beta2, eps, weight_decay)",
    reference="gpt2lib.training.optim:make_optimizer",
    adapt=_adamw,
    shows="torch.optim.adam:_single_tensor_adam",
    cases=_step_cases,
    rtol=1e-7,
    atol=1e-9,
    hints=[
        "The averages first: m moves towards the gradient by a share of 1 - beta1, v towards its "
        "square by a share of 1 - beta2.",
        "Both began at 0 and are too small by known factors: divide m by 1 - beta1**step and v by "
        "1 - beta2**step. Keep the undivided ones for the next step.",
        "The weight loses two things: a share lr * weight_decay of itself, and lr * mean / "
        "(square.sqrt() + eps).",
        "weight * (1 - lr * weight_decay) - lr * mean / (square.sqrt() + eps), m, v",
    ],
    misconceptions=[
        Misconception(
            "no-bias-correction",
            "m and v began at 0 and are still too small in the first steps: divide them by "
            "1 - beta1**step and 1 - beta2**step",
            wrong=_variant(corrected=False),
        ),
        Misconception(
            "decay-in-the-gradient",
            "you add weight_decay * weight to the gradient, so it goes through m and v and is "
            "divided by the size of the gradients: that is L2, not AdamW. Shrink the weight itself",
            wrong=_variant(decay="in the gradient"),
        ),
        Misconception(
            "decay-without-the-rate",
            "the weight shrinks by weight_decay a step; it should be lr * weight_decay, so that "
            "the schedule lowers both",
            wrong=_variant(decay="without the rate"),
        ),
        Misconception(
            "decays-the-new-weight",
            "you shrink the weight after the step, so the step itself shrinks as well; shrink the "
            "old weight: weight * (1 - lr * weight_decay) - …",
            wrong=_variant(decay="afterwards"),
        ),
        Misconception(
            "shares-swapped",
            "the gradient gets the share beta and the old average 1 - beta; it is the other way "
            "round: m = beta1 * m + (1 - beta1) * grad, and v alike",
            wrong=_variant(complements=True),
        ),
        Misconception(
            "no-decay",
            "the weights do not decay: multiply them by 1 - lr * weight_decay",
            wrong=_variant(decay="none"),
        ),
        Misconception(
            "eps-inside-the-root",
            "eps stands under your root, where its own root is what counts: 1e-8 would act "
            "like 1e-4. Take the root first, then add eps",
            wrong=_variant(eps_inside=True),
        ),
        Misconception(
            "uphill",
            "the step goes up the gradient; it must be subtracted",
            wrong=_variant(sign=1.0),
        ),
        Misconception(
            "betas-swapped",
            "beta1 belongs to m, the mean of the gradients, and beta2 to v, the mean of squares; "
            "yours are swapped",
            wrong=_variant(swapped=True),
        ),
        Misconception(
            "no-root",
            "you divide by the mean square itself, so the step gets longer as gradients get "
            "smaller; take its root",
            wrong=_variant(root=False),
        ),
    ],
)


def _decay_products(make_optimizer: Any) -> Function:
    """Let the library's optimiser act on a weight that has a gradient of 0."""

    def share_left(rates: Sequence[float], weight_decay: float) -> float:
        holder = torch.nn.Module()
        holder.weight = torch.nn.Parameter(torch.ones(1, 1, dtype=torch.float64))
        holder.weight.grad = torch.zeros(1, 1, dtype=torch.float64)
        optimizer = make_optimizer(holder, config.OptimConfig(weight_decay=weight_decay))
        for rate in rates:
            for group in optimizer.param_groups:
                group["lr"] = rate
            optimizer.step()
        return float(holder.weight.detach())

    return share_left


WEIGHT_LEFT = Exercise(
    id="weight-left",
    notebook="08",
    title="How long does decay remember?",
    signature="my_weight_left(rates, weight_decay)",
    reference="gpt2lib.training.optim:make_optimizer",
    adapt=_decay_products,
    rtol=1e-9,
    atol=1e-12,
    cases=lambda: [
        case([0.5, 0.2, 0.1], 0.4),
        case([0.1] * 8, 0.5),
        case([0.01, 0.4, 0.3, 0.2, 0.05], 0.9),
    ],
    hints=[
        "What is left after one update with rate lr, if the gradient is 0?",
        "One update leaves the share 1 - lr * weight_decay of whatever was there before.",
        "Shares of shares are multiplied: math.prod(...) over the rates.",
    ],
    misconceptions=[
        Misconception(
            "forgets-the-rate",
            "you take away the share weight_decay in each update; it is lr * weight_decay, so a "
            "small rate makes decay slow",
            wrong=lambda rates, weight_decay: (1 - weight_decay) ** len(rates),
        ),
        Misconception(
            "adds-up",
            "you take away a share of the first weight each time; each update takes its share of "
            "what is left, so the shares are multiplied",
            wrong=lambda rates, weight_decay: 1 - weight_decay * sum(rates),
        ),
        Misconception(
            "one-rate-for-all",
            "you use the highest rate for all updates; each update has its own",
            wrong=lambda rates, weight_decay: (1 - weight_decay * max(rates)) ** len(rates),
        ),
        Misconception(
            "exponential",
            "exp(-weight_decay * sum of the rates) is close where lr * weight_decay is small, but "
            "AdamW multiplies by 1 - lr * weight_decay in each update",
            wrong=lambda rates, weight_decay: math.exp(-weight_decay * sum(rates)),
        ),
        Misconception(
            "what-is-gone",
            "this is the share that is gone; the share that is left was asked for",
            wrong=lambda rates, weight_decay: (
                1 - math.prod(1 - rate * weight_decay for rate in rates)
            ),
        ),
    ],
)


def _gpt(frozen: bool = False, **fields: Any) -> Any:
    shape = {"vocab_size": 11, "block_size": 4, "n_layer": 1, "n_head": 2, "n_embd": 4}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        made = model.GPT(config.GPTConfig(**{**shape, **fields}))
    if frozen:
        made.transformer.wte.weight.requires_grad_(False)
    return made


def _names(decay_groups: Any) -> Function:
    def decaying(a_model: Any) -> list[str]:
        chosen = {id(p) for p in decay_groups(a_model, 0.1)[0]["params"]}
        return sorted(name for name, p in a_model.named_parameters() if id(p) in chosen)

    return decaying


def _those(keep: Callable[[str, Any], bool], twice: bool = False, frozen: bool = False) -> Function:
    def decaying(a_model: Any) -> list[str]:
        named = a_model.named_parameters(remove_duplicate=not twice)
        return sorted(n for n, p in named if (p.requires_grad or frozen) and keep(n, p))

    return decaying


DECAY_GROUPS = Exercise(
    id="decay-groups",
    notebook="08",
    title="Which parameters decay",
    signature="my_decaying(model)",
    reference="gpt2lib.training.optim:decay_groups",
    adapt=_names,
    cases=lambda: [
        case(_gpt()),
        case(_gpt(tie_weights=False, bias=False)),
        case(_gpt(frozen=True, n_layer=2)),
    ],
    hints=[
        "model.named_parameters() gives each parameter once, with its name.",
        "What decays has two or more dimensions: matrices and embeddings. What is left are "
        "vectors: biases, and the gains of the layer norms.",
        "A parameter with requires_grad False is not trained, so it belongs to no group.",
        "sorted(name for name, p in model.named_parameters() if p.requires_grad and p.dim() >= 2)",
    ],
    misconceptions=[
        Misconception(
            "everything-decays",
            "biases and gains decay too: a gain belongs near 1, and decay pulls it to 0",
            wrong=_those(lambda name, p: True),
        ),
        Misconception(
            "gains-decay",
            'the gains of the layer norms decay: their names end in "weight" as well, but they '
            "are vectors that start at 1. Ask for the number of dimensions",
            wrong=_those(lambda name, p: name.endswith("weight")),
        ),
        Misconception(
            "embeddings-stay",
            "the embeddings do not decay; in GPT-2 they do, and the tied one is the head's matrix "
            "as well",
            wrong=_those(lambda name, p: p.dim() >= 2 and "wte" not in name and "wpe" not in name),
        ),
        Misconception(
            "tied-twice",
            "the tied matrix is listed under both of its names; an optimiser that holds it twice "
            "would step it twice. named_parameters() gives each object once",
            wrong=_those(lambda name, p: p.dim() >= 2, twice=True),
        ),
        Misconception(
            "frozen-too",
            "a frozen parameter (requires_grad False) is among them; it gets no gradient, and "
            "must not shrink either",
            wrong=_those(lambda name, p: p.dim() >= 2, frozen=True),
        ),
        Misconception(
            "the-other-group",
            "these are the parameters that do not decay",
            wrong=_those(lambda name, p: p.dim() < 2),
        ),
    ],
)


def _in_pieces(next_token_loss: Any) -> Function:
    def gradients(a_model: Any, pieces: Pieces) -> list[Any]:
        parameters = list(a_model.parameters())
        total = [torch.zeros_like(p) for p in parameters]
        for idx, targets in pieces:
            loss, _ = next_token_loss(a_model(idx), targets)
            parts = torch.autograd.grad(loss / _scored(pieces), parameters)
            total = [t + p for t, p in zip(total, parts, strict=True)]
        return total

    return gradients


def _gradients(weigh: Callable[[Any, int, Pieces], float], last_only: bool = False) -> Function:
    """Return the accumulation in which each piece's summed loss is multiplied by a weight."""

    def gradients(a_model: Any, pieces: Pieces) -> list[Any]:
        parameters = list(a_model.parameters())
        total = [torch.zeros_like(p) for p in parameters]
        for idx, targets in pieces[-1:] if last_only else pieces:
            loss, count = a_model(idx, targets)
            parts = torch.autograd.grad(loss * weigh(targets, int(count), pieces), parameters)
            total = [t + p for t, p in zip(total, parts, strict=True)]
        return total

    return gradients


def _scored(pieces: Pieces) -> int:
    return sum(int((targets >= 0).sum()) for _, targets in pieces)


def _calls(my_gradients: Any) -> list[tuple[int, int]]:
    a_model, pieces = _gpt(), _pieces((1, 0), (1, 1), (1, 0), (1, 2))
    calls = watching.forward_calls(a_model, lambda: my_gradients(a_model, pieces))
    return list(calls)


def _all_in_one(my_gradients: Any) -> str | None:
    most = max(rows for rows, _ in _calls(my_gradients))
    if most == 1:
        return None
    return (
        f"the model was called with {most} rows at once where no piece has more than 1: pieces are "
        "there because the whole batch does not fit. Call it with one piece after the other"
    )


def _one_backward(my_gradients: Any) -> str | None:
    waiting = [kept for _, kept in _calls(my_gradients)]
    if not waiting[1] < waiting[2] < waiting[3]:
        return None
    return (
        f"when the last piece begins, {waiting[3]} tensors of earlier pieces still wait for a "
        f"backward pass, so the memory is that of the whole batch: go backward piece by piece"
    )


def _keeps_old_gradients(my_gradients: Any) -> bool:
    a_model, pieces = _gpt(), _pieces((2, 1), (1, 0))
    first = my_gradients(a_model, pieces)
    first = [g.clone() for g in first]
    second = my_gradients(a_model, pieces)
    return not all(torch.allclose(a, b) for a, b in zip(first, second, strict=True))


def _pieces(*sizes: tuple[int, int]) -> Pieces:
    """Return idx and targets of micro-batches: rows of each, and how many targets are ignored."""
    numbers = torch.Generator().manual_seed(0)
    pieces: Pieces = []
    for rows, ignored in sizes:
        targets = torch.randint(0, 11, (rows, 4), generator=numbers)
        targets[0, 4 - ignored :] = -1
        pieces.append((torch.randint(0, 11, (rows, 4), generator=numbers), targets))
    return pieces


ACCUMULATED_GRADIENT = Exercise(
    id="accumulated-gradient",
    notebook="08",
    title="The gradient of a batch that comes in pieces",
    signature="my_gradient(model, pieces)",
    reference="gpt2lib.model.loss:next_token_loss",
    adapt=_in_pieces,
    shows="gpt2lib.training.loop:Trainer.update",
    rtol=1e-4,
    atol=1e-6,
    cases=lambda: [
        case(_gpt(), _pieces((2, 0), (2, 3))),
        case(_gpt(), _pieces((1, 1), (3, 0), (2, 2))),
    ],
    hints=[
        "Gradients of sums can be added. model(idx, targets) returns a sum and a count.",
        "Count the targets of the whole batch before the first backward, those of -1 left out.",
        "Empty the gradients once, at the beginning: model.zero_grad(). Then each piece goes "
        "backward with its sum divided by the count of all.",
        "(loss / n_tokens).backward() in a loop, then [p.grad for p in model.parameters()]",
    ],
    misconceptions=[
        Misconception(
            "mean-of-means",
            "each piece counts the same, however few tokens it scores: that is the mean of the "
            "pieces' means. Divide each sum by the tokens of the whole batch",
            wrong=_gradients(lambda targets, count, pieces: 1 / count / len(pieces)),
        ),
        Misconception(
            "sum-of-means",
            "you add up the means of the pieces, so the gradient grows with the number of pieces. "
            "Divide each sum by the tokens of the whole batch",
            wrong=_gradients(lambda targets, count, pieces: 1 / count),
        ),
        Misconception(
            "divides-by-the-pieces",
            "you divide the sums by the number of pieces; what counts is the number of tokens "
            "that are scored, over all pieces",
            wrong=_gradients(lambda targets, count, pieces: 1 / len(pieces)),
        ),
        Misconception(
            "never-divides",
            "this is the gradient of the summed loss: with twice the batch it would be twice as "
            "long. Divide by the number of scored tokens",
            wrong=_gradients(lambda targets, count, pieces: 1.0),
        ),
        Misconception(
            "counts-ignored-targets",
            "you divide by all positions; a target of -1 is not scored and must not be counted",
            wrong=_gradients(lambda targets, count, pieces: 1 / sum(t.numel() for _, t in pieces)),
        ),
        Misconception(
            "last-piece-only",
            "only the last piece is left: empty the gradients once before the loop, not in it",
            wrong=_gradients(lambda targets, count, pieces: 1 / _scored(pieces), last_only=True),
        ),
        Misconception(
            "keeps-old-gradients",
            "the second call gives something else than the first: the gradients of the first are "
            "still there. Empty them once, before the loop",
            test=_keeps_old_gradients,
        ),
        Misconception("all-in-one-batch", test=_all_in_one, when_right=True),
        Misconception("one-backward-at-the-end", test=_one_backward, when_right=True),
    ],
)

EXERCISES = [CLIP_BY_NORM, ADAMW_STEP, WEIGHT_LEFT, DECAY_GROUPS, ACCUMULATED_GRADIENT]
