"""Answers to the exercises of notebook 09."""

import copy

import torch

from gpt2lib.course.exercises.memory.round_to_bf16 import round_to_bf16
from gpt2lib.estimate.counts import forward_flops
from gpt2lib.estimate.update import MARGIN
from wrong_answers import fails, right, wrong


@wrong("training-state-bytes", "forgets-the-moments", says="two averages")
def weights_and_gradients(model):
    return sum(p.nbytes + p.nbytes for p in model.parameters())


@wrong("training-state-bytes", "one-moment", says="one tensor is missing")
def weight_gradient_momentum(model):
    return 3 * sum(p.nbytes for p in model.parameters())


@wrong("training-state-bytes", "weights-only", says="enough to generate text")
def as_a_file(model):
    return sum(p.element_size() * p.numel() for p in model.parameters())


@wrong("training-state-bytes", "tied-twice", says="both of its names")
def by_name(model):
    return 4 * sum(tensor.nbytes for name, tensor in model.state_dict().items())


@wrong("training-state-bytes", "matrices-only", says="do not decay")
def what_decays(model):
    return sum(16 * p.numel() for p in model.parameters() if p.dim() >= 2)


@wrong("training-state-bytes", None, says="expected")
def in_bits(model):
    return 128 * model.num_parameters()


@right("training-state-bytes")
def four_tensors_each(model):
    return sum(4 * p.nbytes for p in model.parameters())


@wrong("backward-by-recomputing", "random-state-not-replayed", says="new mask")
def forgets_the_mask(block, x, random_state, grad_y):
    x = x.detach().requires_grad_()
    with torch.random.fork_rng(devices=[]):
        y = block(x)
    return [*torch.autograd.grad(y, (x, *block.parameters()), grad_y)]


@wrong("backward-by-recomputing", "without-dropout", says="eval mode")
def no_noise(block, x, random_state, grad_y):
    quiet = copy.deepcopy(block).eval()
    x = x.detach().requires_grad_()
    quiet(x).backward(grad_y)
    return [x.grad, *(p.grad for p in quiet.parameters())]


@wrong("backward-by-recomputing", "ones-instead-of-the-gradient", says="sum of y")
def of_the_sum(block, x, random_state, grad_y):
    before = torch.get_rng_state()
    torch.set_rng_state(random_state)
    x = x.clone().detach().requires_grad_(True)
    y = block(x)
    torch.set_rng_state(before)
    return list(torch.autograd.grad(y.sum(), [x, *block.parameters()]))


@wrong("backward-by-recomputing", "no-gradient-for-the-input", says="is None")
def input_is_a_constant(block, x, random_state, grad_y):
    twin = copy.deepcopy(block)
    with torch.random.fork_rng(devices=[]):
        torch.set_rng_state(random_state)
        twin(x).backward(grad_y)
    return [x.grad, *[p.grad for p in twin.parameters()]]


@wrong("backward-by-recomputing", "parameters-only", says="missing from the list")
def for_the_weights(block, x, random_state, grad_y):
    with torch.random.fork_rng(devices=[]):
        torch.set_rng_state(random_state)
        y = block(x)
    return list(torch.autograd.grad(y, list(block.parameters()), grad_y))


@wrong("backward-by-recomputing", "input-only", says="never learn")
def pass_it_on(block, x, random_state, grad_y):
    x = x.detach().requires_grad_()
    with torch.random.fork_rng(devices=[]):
        torch.set_rng_state(random_state)
        y = block(x)
    return list(torch.autograd.grad(y, x, grad_y))


@wrong("backward-by-recomputing", "leaves-gradients-behind", says="count twice")
def with_backward(block, x, random_state, grad_y):
    x = x.detach().requires_grad_()
    with torch.random.fork_rng(devices=[]):
        torch.set_rng_state(random_state)
        block(x).backward(grad_y)
    return [x.grad] + [p.grad for p in block.parameters()]


@wrong("backward-by-recomputing", "moves-the-generator", says="not where it was")
def sets_and_forgets(block, x, random_state, grad_y):
    torch.set_rng_state(random_state)
    x = x.detach().requires_grad_()
    return list(torch.autograd.grad(block(x), [x, *block.parameters()], grad_y))


@fails("backward-by-recomputing", says="does not require grad, in line 5 of")
def input_needs_no_gradient(block, x, random_state, grad_y):
    torch.set_rng_state(random_state)
    y = block(x.detach())
    return list(torch.autograd.grad(y, [x, *block.parameters()], grad_y))


@right("backward-by-recomputing")
def by_hand(block, x, random_state, grad_y):
    now = torch.get_rng_state()
    torch.set_rng_state(random_state)
    again = x.clone().detach().requires_grad_()
    with torch.enable_grad():
        y = block(again)
    torch.set_rng_state(now)
    return list(torch.autograd.grad((y * grad_y).sum(), [again, *block.parameters()]))


def one_block(config):
    parts = forward_flops(config)
    return (sum(parts.values()) - parts["output head"]) // config.n_layer


@wrong("flops-with-checkpointing", "nothing-again", says="run forward twice")
def three_passes(config, every):
    return 3 * sum(forward_flops(config).values())


@wrong("flops-with-checkpointing", "rounds-down", says="0, 2 and 4")
def whole_division(config, every):
    total = 3 * sum(forward_flops(config).values())
    if every:
        total += config.n_layer // every * one_block(config)
    return total


@wrong("flops-with-checkpointing", "the-other-blocks", says="keep their activations")
def those_not_divisible(config, every):
    total = 3 * sum(forward_flops(config).values())
    for layer in range(config.n_layer):
        if every == 0 or layer % every != 0:
            total += one_block(config)
    return total


@wrong("flops-with-checkpointing", "everything-again", says="in none of them")
def four_passes(config, every):
    return (4 if every else 3) * sum(forward_flops(config).values())


@wrong("flops-with-checkpointing", "the-head-too", says="runs once")
def a_share_of_everything(config, every):
    total = sum(forward_flops(config).values())
    again = len(range(0, config.n_layer, every)) if every else 0
    return 3 * total + total * again // config.n_layer


@wrong("flops-with-checkpointing", "backward-as-forward", says="two products")
def forward_and_backward(config, every):
    total = 2 * sum(forward_flops(config).values())
    blocks = [i for i in range(config.n_layer) if every and i % every == 0]
    return total + len(blocks) * one_block(config)


@wrong("flops-with-checkpointing", "backward-again", says="backward pass again")
def whole_block_twice(config, every):
    total = 3 * sum(forward_flops(config).values())
    for layer in range(config.n_layer):
        if every and layer % every == 0:
            total += 3 * one_block(config)
    return total


@fails("flops-with-checkpointing", says="modulo by zero")
def divides_by_zero(config, every):
    total = 3 * sum(forward_flops(config).values())
    return total + sum(one_block(config) for layer in range(config.n_layer) if layer % every == 0)


@right("flops-with-checkpointing")
def layer_by_layer(config, every):
    total = 3 * sum(forward_flops(config).values())
    for layer in range(config.n_layer):
        if every > 0 and layer % every == 0:
            total = total + one_block(config)
    return total


@wrong("round-to-bf16", "truncates", says="cut the digits off")
def mask_the_low_bits(x):
    return (x.view(torch.int32) >> 16 << 16).view(torch.float32)


@wrong("round-to-bf16", "half-away-from-zero", says="the even one")
def add_a_half(x):
    mantissa, exponent = torch.frexp(x)
    whole = torch.sign(mantissa) * torch.floor(mantissa.abs() * 256 + 0.5)
    return torch.ldexp(whole / 256, exponent)


@wrong("round-to-bf16", "nine-digits", says="one binary digit too many")
def eight_after_the_first(x):
    mantissa, exponent = torch.frexp(x)
    return torch.ldexp(torch.round(mantissa * 512) / 512, exponent)


@wrong("round-to-bf16", "seven-digits", says="one binary digit too few")
def seven_in_all(x):
    mantissa, exponent = torch.frexp(x)
    return torch.ldexp(torch.round(mantissa * 128) / 128, exponent)


@wrong("round-to-bf16", "fp16-instead", says="65,504")
def half(x):
    return x.to(torch.float16).to(torch.float32)


@wrong("round-to-bf16", "wrong-dtype", says="of type bfloat16")
def cast(x):
    return x.to(torch.bfloat16)


@wrong("round-to-bf16", None, says="expected")
def two_decimals(x):
    return torch.round(x, decimals=2)


right("round-to-bf16")(round_to_bf16)  # what `solution` shows


@right("round-to-bf16")
def there_and_back(x):
    return x.to(torch.bfloat16).to(torch.float32)


@wrong("largest-micro-batch", "not-a-divisor", says="does not divide")
def count_down(update, available):
    size = update.share
    while size and update.peak(size) > (1 - MARGIN) * available:
        size -= 1
    return size


@wrong("largest-micro-batch", "no-margin", says="last byte")
def to_the_brim(update, available):
    fitting = [
        size
        for size in range(1, update.share + 1)
        if update.share % size == 0 and update.peak(size) <= available
    ]
    return max(fitting, default=0)


@wrong("largest-micro-batch", "smallest-first", says="always 1")
def count_up(update, available):
    for size in range(1, update.share + 1):
        if update.share % size == 0 and update.peak(size) <= (1 - MARGIN) * available:
            return size
    return 0


@wrong("largest-micro-batch", "up-to-the-first-that-does-not", says="begin with the largest")
def count_up_and_stop(update, available):
    best = 0
    for size in range(1, update.share + 1):
        if update.share % size == 0:
            if update.peak(size) > (1 - MARGIN) * available:
                break
            best = size
    return best


@wrong("largest-micro-batch", "powers-of-two", says="6 and 3")
def doubles(update, available):
    best, size = 0, 1
    while update.share % size == 0:
        if update.peak(size) <= (1 - MARGIN) * available:
            best = size
        size *= 2
    return best


@wrong("largest-micro-batch", "weights-in-every-sequence", says="there once")
def divide(update, available):
    most = int((1 - MARGIN) * available // update.peak(1))
    while most and update.share % most:
        most -= 1
    return min(most, update.share)


@wrong("largest-micro-batch", "not-a-divisor", says="does not divide")
def without_the_last(update, available):
    for size in range(update.share - 1, 0, -1):
        if update.peak(size) <= (1 - MARGIN) * available:
            return size
    return 0


@wrong("largest-micro-batch", "at-least-one", says="return 0")
def never_zero(update, available):
    for size in range(update.share, 1, -1):
        if update.share % size == 0 and update.peak(size) <= (1 - MARGIN) * available:
            return size
    return 1


@right("largest-micro-batch")
def best_of_all(update, available):
    limit = (1 - MARGIN) * available
    divisors = [size for size in range(1, update.share + 1) if update.share % size == 0]
    return max([size for size in divisors if update.peak(size) <= limit], default=0)


@wrong("backward-by-recomputing", "wipes-gradients", says="earlier micro-batch")
def empties_first(block, x, random_state, grad_y):
    block.zero_grad()
    x = x.detach().requires_grad_()
    with torch.random.fork_rng(devices=[]):
        torch.set_rng_state(random_state)
        y = block(x)
    return list(torch.autograd.grad(y, [x, *block.parameters()], grad_y))


@wrong("largest-micro-batch", "never-all-at-once", says="ends before it")
def range_without_the_share(update, available):
    best = 0
    for size in range(1, update.share):
        if update.share % size == 0 and update.peak(size) <= (1 - MARGIN) * available:
            best = size
    return best
