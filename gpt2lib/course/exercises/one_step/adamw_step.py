"""Notebook 08: One step of AdamW."""

from __future__ import annotations

from typing import Any

from gpt2lib.course.exercise import Exercise, Function, Misconception, case, lazy

torch: Any = lazy("torch")
config: Any = lazy("gpt2lib.config")


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


EXERCISE = Exercise(
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
