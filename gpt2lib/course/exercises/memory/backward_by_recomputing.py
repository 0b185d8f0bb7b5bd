"""Notebook 09: The backward pass of a block that kept only its input."""

from __future__ import annotations

from typing import Any

from gpt2lib.course.exercise import Exercise, Function, Misconception, case, lazy

torch: Any = lazy("torch")


def _block() -> Any:
    nn = torch.nn
    return nn.Sequential(nn.Linear(4, 8), nn.GELU(), nn.Dropout(0.5), nn.Linear(8, 4))


def _backward(checkpoint: Any) -> Function:
    """Let the library's way run the block again, and return what it hands back."""

    def gradients(block: Any, x: Any, random_state: Any, grad_y: Any) -> list[Any]:
        x = x.detach().requires_grad_()
        with torch.random.fork_rng(devices=[]):
            torch.set_rng_state(random_state)
            y = checkpoint(block, x, use_reentrant=False)
            return list(torch.autograd.grad(y, [x, *block.parameters()], grad_y))

    return gradients


def _recompute(
    replay: bool = True, ones: bool = False, evaluating: bool = False, both: bool = True
) -> Function:
    """Return the backward pass with mistakes."""

    def gradients(block: Any, x: Any, random_state: Any, grad_y: Any) -> list[Any]:
        x = x.detach().requires_grad_()
        if evaluating:
            block.eval()
        with torch.random.fork_rng(devices=[]):
            if replay:
                torch.set_rng_state(random_state)
            y = block(x)
        if ones:
            grad_y = torch.ones_like(y)
        wanted = [x, *block.parameters()]
        if both:
            return list(torch.autograd.grad(y, wanted, grad_y))
        return [None, *torch.autograd.grad(y, wanted[1:], grad_y)]

    return gradients


def _some(part: slice) -> Function:
    return lambda *args: _recompute()(*args)[part]


def _one_call() -> tuple[Any, Any, Any, Any]:
    numbers = torch.Generator().manual_seed(3)
    x, grad_y = (torch.randn(2, 4, generator=numbers) for _ in range(2))
    return _block(), x, torch.Generator().manual_seed(11).get_state(), grad_y


def _leaves_gradients(my_backward: Any) -> bool:
    block, *rest = _one_call()
    my_backward(block, *rest)
    return any(p.grad is not None for p in block.parameters())


def _wipes_gradients(my_backward: Any) -> bool:
    """Whether gradients that others have left in the block are still there afterwards."""
    block, *rest = _one_call()
    for p in block.parameters():
        p.grad = torch.ones_like(p)
    my_backward(block, *rest)
    return any(p.grad is None or bool((p.grad == 0).all()) for p in block.parameters())


def _moves_the_generator(my_backward: Any) -> bool:
    arguments = _one_call()
    before = torch.get_rng_state()
    my_backward(*arguments)
    return not torch.equal(before, torch.get_rng_state())


def _backward_cases() -> list[Any]:
    numbers = torch.Generator().manual_seed(0)
    made = []
    for rows in (1, 5):
        x, grad_y = (torch.randn(rows, 4, generator=numbers) for _ in range(2))
        made.append(case(_block(), x, torch.Generator().manual_seed(7 + rows).get_state(), grad_y))
    return made


EXERCISE = Exercise(
    id="backward-by-recomputing",
    notebook="09",
    title="The backward pass of a block that kept only its input",
    signature="my_backward(block, x, random_state, grad_y)",
    reference="torch.utils.checkpoint:checkpoint",
    adapt=_backward,
    shows="torch.utils.checkpoint:CheckpointFunction.backward",
    cases=_backward_cases,
    hints=[
        "Three things: run the block again, differentiate, return the gradients of x and of each "
        "of block.parameters().",
        "A fresh start for x: x = x.detach().requires_grad_(). Before the block runs: "
        "torch.set_rng_state(random_state), so that dropout drops what it dropped before.",
        "with torch.random.fork_rng(devices=[]): puts the generator back at its end.",
        "list(torch.autograd.grad(y, [x, *block.parameters()], grad_y))",
    ],
    misconceptions=[
        Misconception(
            "random-state-not-replayed",
            "dropout drew a new mask, so these are gradients of another function than the one "
            "that ran forward: torch.set_rng_state(random_state) before you run it again",
            wrong=_recompute(replay=False),
        ),
        Misconception(
            "without-dropout",
            "you run the block in eval mode, without dropout; forward it ran with a mask, which "
            "the random state brings back",
            wrong=_recompute(evaluating=True),
        ),
        Misconception(
            "ones-instead-of-the-gradient",
            "you differentiate the sum of y; what comes from above is grad_y, and the chain rule "
            "multiplies with it",
            wrong=_recompute(ones=True),
        ),
        Misconception(
            "no-gradient-for-the-input",
            "the gradient of x is None: without it nothing below this block would learn. "
            "x.detach().requires_grad_() before the block runs",
            wrong=_recompute(both=False),
        ),
        Misconception(
            "parameters-only",
            "the gradient of x is missing from the list: it is the grad_y of the block below",
            wrong=_some(slice(1, None)),
        ),
        Misconception(
            "input-only",
            "the gradients of the block's parameters are missing: this block would never learn",
            wrong=_some(slice(0, 1)),
        ),
        Misconception(
            "leaves-gradients-behind",
            "you also leave gradients in p.grad of the block; whoever calls you adds what you "
            "return, so they would count twice. torch.autograd.grad leaves none",
            test=_leaves_gradients,
        ),
        Misconception(
            "wipes-gradients",
            "gradients that were in p.grad of the block before are gone: they are those of an "
            "earlier micro-batch. Touch none, torch.autograd.grad needs no zero_grad()",
            test=_wipes_gradients,
        ),
        Misconception(
            "moves-the-generator",
            "the generator of random numbers is not where it was: the next dropout of the run "
            "would draw other numbers than without you. Use torch.random.fork_rng",
            test=_moves_the_generator,
        ),
    ],
)
