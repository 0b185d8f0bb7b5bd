"""Solutions of notebook 09."""

import torch

from gpt2lib.estimate import forward_flops
from gpt2lib.estimate.update import MARGIN


def my_state_bytes(model):
    """Return the bytes of weights, gradients and both averages, an int. model: a GPT."""
    return 4 * sum(p.nbytes for p in model.parameters())


def my_backward(block, x, random_state, grad_y):
    """Run the block again from x and random_state; return gradients of x and of its parameters.

    block: an nn.Module. x, grad_y: float tensors of one shape. random_state: as
    torch.get_rng_state() returns it. The result: a list of tensors.
    """
    x = x.detach().requires_grad_()
    with torch.random.fork_rng(devices=[]), torch.enable_grad():
        torch.set_rng_state(random_state)
        y = block(x)
    return list(torch.autograd.grad(y, [x, *block.parameters()], grad_y))


def my_update_flops(config, every):
    """Return the FLOPs of one token in an update, an int. config: a GPTConfig. every: an int."""
    parts = forward_flops(config)
    total = sum(parts.values())
    block = (total - parts["output head"]) // config.n_layer
    again = len(range(0, config.n_layer, every)) if every else 0
    return 3 * total + again * block


def my_chunked_loss(x, weight, targets, rows):
    """Return the summed loss, the gradient of x and the gradient of weight: three tensors.

    x: a float tensor (N, C). weight: (V, C). targets: an int64 tensor (N,). rows: an int.
    """
    total, grad_x, grad_weight = torch.tensor(0.0), torch.zeros_like(x), torch.zeros_like(weight)
    for start in range(0, len(x), rows):
        some = slice(start, start + rows)
        kept = targets[some] != -1  # (R,)
        target = targets[some].where(kept, 0)
        each = torch.arange(len(target))
        log_p = (x[some] @ weight.T).log_softmax(dim=-1)  # (R, V)
        total -= (log_p[each, target] * kept).sum()
        g = log_p.exp()
        g[each, target] -= 1
        g *= kept[:, None]
        grad_x[some] = g @ weight
        grad_weight += g.T @ x[some]
    return total, grad_x, grad_weight


def my_bf16(x):
    """Return x rounded to 8 binary digits of mantissa, a float32 tensor. x: a float32 tensor."""
    mantissa, exponent = torch.frexp(x)
    return torch.ldexp((mantissa * 256).round() / 256, exponent)


def my_micro_batch(update, available):
    """Return the largest divisor of update.share whose peak fits, an int; 0 if none does.

    update: an UpdateMemory. available: an int, in bytes.
    """
    for size in range(update.share, 0, -1):
        fits = update.share % size == 0 and update.peak(size) <= (1 - MARGIN) * available
        if fits:
            return size
    return 0
