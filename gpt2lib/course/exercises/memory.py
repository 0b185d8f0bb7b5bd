"""Exercises of notebook 09."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from gpt2lib.course.exercise import Exercise, Misconception, case, lazy

torch: Any = lazy("torch")
config: Any = lazy("gpt2lib.config")
counts: Any = lazy("gpt2lib.estimate.counts")
update: Any = lazy("gpt2lib.estimate.update")
model: Any = lazy("gpt2lib.model.gpt")

Function = Callable[..., Any]


def _shape(**changes: Any) -> Any:
    small = {"vocab_size": 19, "block_size": 8, "n_layer": 2, "n_head": 2, "n_embd": 8}
    return config.GPTConfig(**{**small, **changes})


def _kept(memory: Any) -> Function:
    def state_bytes(a_model: Any) -> int:
        size = memory(a_model.config)
        return int(size["weights"] + size["gradients"] + size["optimizer"])

    return state_bytes


def _times(factor: int) -> Function:
    return lambda a_model: factor * sum(p.numel() for p in a_model.parameters())


STATE_BYTES = Exercise(
    id="training-state-bytes",
    notebook="09",
    title="What AdamW keeps for every weight",
    signature="my_state_bytes(model)",
    reference="gpt2lib.estimate.counts:memory",
    adapt=_kept,
    cases=lambda: [
        case(model.GPT(_shape())),
        case(model.GPT(_shape(tie_weights=False, n_layer=1))),
        case(model.GPT(_shape(bias=False))),
    ],
    hints=[
        "A number in float32 has 4 bytes. Which tensors have the shape of the weights?",
        "For every weight there is a gradient, and AdamW keeps two averages of gradients.",
        "16 * sum(p.numel() for p in model.parameters())",
    ],
    misconceptions=[
        Misconception(
            "forgets-the-moments",
            "8 bytes a parameter are its weight and its gradient; AdamW also keeps two averages, "
            "as large as the weights each",
            wrong=_times(8),
        ),
        Misconception(
            "one-moment",
            "12 bytes a parameter: one tensor is missing. There are the weight, the gradient, the "
            "average of gradients and the average of their squares",
            wrong=_times(12),
        ),
        Misconception(
            "weights-only",
            "4 bytes a parameter are enough to generate text; training also keeps the gradient "
            "and two averages of it",
            wrong=_times(4),
        ),
        Misconception(
            "tied-twice",
            "the tied matrix is counted under both of its names, but its bytes are there once: "
            "parameters() gives each object once, state_dict() each name",
            wrong=lambda a_model: 16 * sum(t.numel() for t in a_model.state_dict().values()),
        ),
        Misconception(
            "matrices-only",
            "you leave out the biases and the gains of the layer norms: they do not decay, but "
            "they have gradients and averages as all parameters",
            wrong=lambda a_model: 16 * sum(p.numel() for p in a_model.parameters() if p.dim() > 1),
        ),
    ],
)


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


BACKWARD_AGAIN = Exercise(
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


def _flops(passes: int, blocks: Callable[[int, int], int], again: int = 1) -> Function:
    """Return the count with so many passes, and so many blocks computed `again` times more."""

    def update_flops(shape: Any, every: int) -> int:
        parts = counts.forward_flops(shape)
        total = sum(parts.values())
        block = (total - parts["output head"]) // shape.n_layer
        return int(passes * total + again * blocks(shape.n_layer, every) * block)

    return update_flops


def _of_everything(passes: int) -> Function:
    def update_flops(shape: Any, every: int) -> int:
        return (passes if every else 3) * int(sum(counts.forward_flops(shape).values()))

    return update_flops


def _chosen(n_layer: int, every: int) -> int:
    return len(range(0, n_layer, every)) if every else 0


def _all_again(shape: Any, every: int) -> int:
    total = sum(counts.forward_flops(shape).values())
    return int(3 * total + total * _chosen(shape.n_layer, every) // shape.n_layer)


UPDATE_FLOPS = Exercise(
    id="flops-with-checkpointing",
    notebook="09",
    title="What checkpointing costs",
    signature="my_update_flops(config, every)",
    reference="gpt2lib.estimate.counts:training_flops",
    cases=lambda: [
        case(_shape(n_layer=5, dropout=0.1), 2),
        case(_shape(n_layer=5, dropout=0.1), 3),
        case(_shape(n_layer=4, dropout=0.1, vocab_size=65), 1),
        case(_shape(n_layer=3, dropout=0.1), 0),
    ],
    rtol=1e-9,
    hints=[
        "Without checkpointing an update is three forward passes: one forward, and backward two "
        "products for each one.",
        "Blocks 0, k, 2k, … run forward once more: len(range(0, n_layer, every)) of them.",
        "One block has (total - head) // n_layer FLOPs, where head is "
        'forward_flops(config)["output head"]; the head is never computed again.',
    ],
    misconceptions=[
        Misconception(
            "nothing-again",
            "these are the FLOPs without checkpointing: the blocks 0, k, 2k, … run forward twice",
            wrong=_flops(3, lambda n_layer, every: 0),
        ),
        Misconception(
            "rounds-down",
            "you count n_layer // every blocks; block 0 is always among them, so 5 blocks with "
            "every 2 are three: 0, 2 and 4",
            wrong=_flops(3, lambda n_layer, every: n_layer // every if every else 0),
        ),
        Misconception(
            "the-other-blocks",
            "you count the blocks that keep their activations; the others are computed again",
            wrong=_flops(3, lambda n_layer, every: n_layer - _chosen(n_layer, every)),
        ),
        Misconception(
            "everything-again",
            "you count the whole forward pass twice; only the blocks 0, k, 2k, … run again, and "
            "the output head is in none of them",
            wrong=_of_everything(4),
        ),
        Misconception(
            "the-head-too",
            "you compute a share of the whole model again; the output head is not in a block, "
            "and runs once",
            wrong=_all_again,
        ),
        Misconception(
            "backward-as-forward",
            "you count two passes for forward and backward; backward takes two products for each "
            "one of the forward pass, so together there are three",
            wrong=_flops(2, _chosen),
        ),
        Misconception(
            "backward-again",
            "only the forward pass of a block is repeated; you also count its backward pass again",
            wrong=_flops(3, _chosen, again=3),
        ),
    ],
)


def round_to_bf16(x: Any) -> Any:
    """Round float32 to what bf16 can hold, by hand; the result is float32.

    A number is mantissa · 2^exponent with a mantissa from 0.5 to 1. Of it, bf16 keeps 8 binary
    digits; torch.round takes the even neighbour of a number that lies in the middle.
    """
    mantissa, exponent = torch.frexp(x)
    return torch.ldexp((mantissa * 256).round() / 256, exponent)


def _bits(x: Any, add: int) -> Any:
    return ((x.view(torch.int32) + add) & -65536).view(torch.float32)


def _digits(n: int) -> Function:
    def rounded(x: Any) -> Any:
        mantissa, exponent = torch.frexp(x)
        return torch.ldexp((mantissa * 2**n).round() / 2**n, exponent)

    return rounded


ROUND_TO_BF16 = Exercise(
    id="round-to-bf16",
    notebook="09",
    title="What bf16 makes of a number",
    signature="my_bf16(x)",
    reference="torch:Tensor.bfloat16",
    adapt=lambda bfloat16: lambda x: bfloat16(x).float(),
    shows="gpt2lib.course.exercises.memory:round_to_bf16",
    strict_type=True,  # float32 again, so that one can go on computing
    cases=lambda: [
        case(torch.tensor([1 + 1 / 256, 1 + 3 / 256, -1 - 1 / 256, 1.0])),
        case(torch.tensor([3.14159, -2.71828, 0.1, 1e-3, 0.0])),
        case(torch.tensor([70000.0, 1.2345e30, 5.4321e-12])),
    ],
    rtol=1e-7,
    atol=0.0,
    hints=[
        "mantissa, exponent = torch.frexp(x) takes x apart: x = mantissa · 2^exponent, and the "
        "mantissa lies between 0.5 and 1.",
        "bf16 keeps 8 binary digits of such a mantissa (7 of them are stored: the first is always "
        "1). So 256 times the mantissa becomes a whole number.",
        "torch.round takes the even one of two equally near numbers, as the hardware does.",
        "torch.ldexp((mantissa * 256).round() / 256, exponent)",
    ],
    misconceptions=[
        Misconception(
            "truncates",
            "you cut the digits off, so every number gets smaller in size, and sums drift; take "
            "the nearest one",
            wrong=lambda x: _bits(x, 0),
        ),
        Misconception(
            "half-away-from-zero",
            "of two equally near numbers you always take the larger one: 1 + 1/256 becomes 1.0078. "
            "The rule is to take the even one, so that such errors cancel",
            wrong=lambda x: _bits(x, 1 << 15),
        ),
        Misconception(
            "nine-digits",
            "you keep one binary digit too many: the leading 1 is among the 8",
            wrong=_digits(9),
        ),
        Misconception(
            "seven-digits",
            "you keep one binary digit too few: 7 are stored, and the leading 1 comes on top",
            wrong=_digits(7),
        ),
        Misconception(
            "fp16-instead",
            "this is fp16: 11 binary digits, but nothing above 65,504. bf16 has float32's range",
            wrong=lambda x: x.half().float(),
        ),
        Misconception(
            "wrong-dtype",
            "the values are right, but the tensor is of type bfloat16: return float32, so that "
            "one can go on computing with it",
            wrong=lambda x: x.bfloat16(),
        ),
    ],
)


def _search(
    sizes: Callable[[int], list[int]],
    margin: bool = True,
    until_too_much: bool = False,
    otherwise: int = 0,
) -> Function:
    """Return the search over some sizes: the first that fits, or the last before one does not."""

    def micro_batch(estimate: Any, available: int) -> int:
        limit, found = (1 - update.MARGIN * margin) * available, otherwise
        for size in sizes(estimate.share):
            fits = estimate.peak(size) <= limit
            if until_too_much and not fits:
                return found
            if fits:
                found = size
                if not until_too_much:
                    return found
        return found

    return micro_batch


def _per_sequence(estimate: Any, available: int) -> int:
    """Divide what is free by what one sequence takes, weights and all."""
    most = int((1 - update.MARGIN) * available / estimate.peak(1))
    return max((size for size in _divisors(estimate.share) if size <= most), default=0)


def _divisors(share: int) -> list[int]:
    return list(update.divisors(share))


def _upwards(share: int) -> list[int]:
    return _divisors(share)[::-1]


def _powers(share: int) -> list[int]:
    return [size for size in _divisors(share) if size & (size - 1) == 0]


def _fit_cases() -> list[Any]:
    def of(share: int, **changes: Any) -> Any:
        shape = _shape(**{"vocab_size": 65, "block_size": 16, "n_embd": 16, **changes})
        run = config.TrainConfig(model=shape, batch_size=share, device="cpu", precision="fp32")
        return update.UpdateMemory(run, share)

    whole = 1 - update.MARGIN
    wide = of(2, n_embd=256, n_layer=4, block_size=4)  # one micro-batch: no gradients wait
    return [
        case(of(12), int(of(12).peak(6) / whole) + 1),
        case(of(12), int(of(12).peak(4) * 1.05)),  # 4 would fit without the margin
        case(of(10), int(of(10).peak(9) / whole) + 1),
        case(wide, int(wide.peak(2) / whole) + 1),
        case(of(8), of(8).peak(1) // 2),  # nothing fits
        case(of(6), 100 * of(6).peak(6)),  # all at once
    ]


def _leaves_a_rest(my_micro_batch: Function) -> str | None:
    """Look for a micro-batch that does not divide the share."""
    for each in _fit_cases():
        share, size = each.args[0].share, my_micro_batch(*each.args)
        if size and share % size:
            return (
                f"of {share} sequences you take {size} at a time, which does not divide them: the "
                f"last micro-batch of an update would be smaller; take a divisor"
            )
    return None


LARGEST_MICRO_BATCH = Exercise(
    id="largest-micro-batch",
    notebook="09",
    title="The largest micro-batch that fits",
    signature="my_micro_batch(update, available)",
    reference="gpt2lib.estimate.update:UpdateMemory.largest",
    cases=_fit_cases,
    hints=[
        "Try the divisors of update.share, the largest first.",
        "update.peak(size) are the bytes at the peak with `size` sequences at once.",
        "Return the first size whose peak is at most (1 - MARGIN) * available, and 0 after the "
        "loop.",
    ],
    misconceptions=[
        Misconception("not-a-divisor", test=_leaves_a_rest),
        Misconception(
            "no-margin",
            "you fill the memory to the last byte; Python, the allocator's gaps and others need "
            "some as well: leave the share MARGIN free",
            wrong=_search(_divisors, margin=False),
        ),
        Misconception(
            "smallest-first",
            "you begin with the smallest size and take the first that fits: that is always 1. "
            "Begin with the largest",
            wrong=_search(_upwards),
        ),
        Misconception(
            "up-to-the-first-that-does-not",
            "you count upwards and stop at the first size that is too much. With the whole share "
            "at once no gradients of an earlier micro-batch are there, so it may fit where a "
            "smaller size does not: begin with the largest",
            wrong=_search(_upwards, until_too_much=True),
        ),
        Misconception(
            "never-all-at-once",
            "where all sequences fit at once you still cut them up: the share itself divides the "
            "share; range(1, share) ends before it",
            wrong=_search(lambda share: _divisors(share)[1:] or [share]),
        ),
        Misconception(
            "powers-of-two",
            "only powers of two are tried: of 12 sequences 6 and 3 may fit as well",
            wrong=_search(_powers),
        ),
        Misconception(
            "weights-in-every-sequence",
            "you divide what is free by the peak of one sequence, but weights and moments are "
            "there once, however many sequences there are: ask for the peak of each size",
            wrong=_per_sequence,
        ),
        Misconception(
            "at-least-one",
            "where nothing fits you return 1, and the run would die of it later; return 0",
            wrong=_search(_divisors, otherwise=1),
        ),
    ],
)

EXERCISES = [STATE_BYTES, BACKWARD_AGAIN, UPDATE_FLOPS, ROUND_TO_BF16, LARGEST_MICRO_BATCH]
