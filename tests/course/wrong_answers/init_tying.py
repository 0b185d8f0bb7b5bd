"""Answers to the exercises of notebook 07."""

import math

import torch
from torch import nn

from wrong_answers import fails, right, wrong

# ── expected-initial-loss ───────────────────────────────────────────────────────────────────────


@wrong("expected-initial-loss", "bits-not-nats")
def entropy_in_bits(vocab_size):
    return -math.log(1 / vocab_size) / math.log(2)


@wrong("expected-initial-loss", "log10")
def common_logarithm(vocab_size):
    return math.log(vocab_size, 10)


@wrong("expected-initial-loss", "negative", says="-0.69 is the log-probability")
def forgot_the_minus(vocab_size):
    return torch.full((vocab_size,), 1 / vocab_size, dtype=torch.float64).log()[0].item()


@wrong("expected-initial-loss", "probability")
def one_over_v(vocab_size):
    return torch.zeros(vocab_size).softmax(0)[0].item()


@wrong("expected-initial-loss", "perplexity")
def exp_of_the_loss(vocab_size):
    return math.exp(math.log(vocab_size))


@wrong("expected-initial-loss", None, says="got 0.3465")
def averaged_over_the_vocabulary(vocab_size):
    return math.log(vocab_size) / vocab_size


@right("expected-initial-loss")
def still_a_tensor(vocab_size):
    return torch.tensor(float(vocab_size)).log()


@fails("expected-initial-loss", says="TypeError")
def torch_log_of_a_number(vocab_size):
    return torch.log(vocab_size)


@right("expected-initial-loss")
def by_cross_entropy(vocab_size):
    logits = torch.full((1, vocab_size), 3.0)
    return nn.functional.cross_entropy(logits, torch.tensor([1])).item()


# ── residual-init-std ───────────────────────────────────────────────────────────────────────────


@wrong("residual-init-std", "one-write-a-block")
def root_of_the_depth(n_layer):
    return 0.02 * n_layer**-0.5


@wrong("residual-init-std", "no-root")
def divided_by_the_count(n_layer):
    return 0.02 / n_layer / 2


@wrong("residual-init-std", "wrong-direction")
def grows(n_layer):
    return 0.02 / (1 / math.sqrt(2 * n_layer))


@wrong("residual-init-std", "factor-only")
def without_the_002(n_layer):
    return (2 * n_layer) ** -0.5


@wrong("residual-init-std", "variance")
def squared(n_layer):
    return (0.02 / math.sqrt(2 * n_layer)) ** 2


@wrong("residual-init-std", "forgets-the-depth")
def always_gpt2_small(n_layer):
    return 0.02 / math.sqrt(2 * 12)


@wrong("residual-init-std", None, says="expected 0.00816")
def root_of_two_times_depth(n_layer):
    return 0.02 / math.sqrt(2) * n_layer


@right("residual-init-std")
def through_the_variance(n_layer):
    return math.sqrt(0.02**2 / (n_layer + n_layer))


# ── init-parameter ──────────────────────────────────────────────────────────────────────────────


@wrong("init-parameter", "not-in-place")
def makes_a_new_tensor(weight, name, n_layer):
    if name.endswith("bias"):
        weight = torch.zeros_like(weight)
    elif weight.dim() == 1:
        weight = torch.ones_like(weight)
    else:
        std = 0.02 / math.sqrt(2 * n_layer) if "c_proj" in name else 0.02
        weight = torch.randn_like(weight) * std
    return weight


@wrong("init-parameter", "no-residual-scaling")
def three_kinds(weight, name, n_layer):
    if "bias" in name:
        weight.zero_()
    elif "ln_" in name:
        weight.fill_(1.0)
    else:
        weight.normal_(0.0, 0.02)


@wrong("init-parameter", "attention-only")
def scales_attention(weight, name, n_layer):
    if weight.dim() > 1:
        weight.normal_(std=0.02)
        if "attn.c_proj" in name:
            weight /= math.sqrt(2 * n_layer)
    else:
        weight.fill_(0.0 if "bias" in name else 1.0)


@wrong("init-parameter", "one-write-a-block")
def divides_by_root_n_layer(weight, name, n_layer):
    if weight.dim() > 1:
        weight.normal_(std=0.02)
        if "c_proj" in name:
            weight /= math.sqrt(n_layer)
    else:
        weight.fill_(0.0 if "bias" in name else 1.0)


@wrong("init-parameter", "random-biases")
def gains_and_the_rest(weight, name, n_layer):
    if "ln_" in name and name.endswith("weight"):
        nn.init.ones_(weight)
    elif name.endswith("c_proj.weight"):
        nn.init.normal_(weight, 0, 0.02 / math.sqrt(2 * n_layer))
    else:
        nn.init.normal_(weight, 0, 0.02)


@wrong("init-parameter", "c-proj-bias-is-random")
def asks_for_c_proj_first(weight, name, n_layer):
    if "c_proj" in name:
        nn.init.normal_(weight, std=0.02 / math.sqrt(2 * n_layer))
    elif "bias" in name:
        nn.init.zeros_(weight)
    elif "ln_" in name:
        nn.init.ones_(weight)
    else:
        nn.init.normal_(weight, std=0.02)


@wrong("init-parameter", "gains-at-zero")
def every_vector_is_zero(weight, name, n_layer):
    if weight.dim() < 2:
        weight.zero_()
    else:
        weight.normal_(std=0.02 / math.sqrt(2 * n_layer) if "c_proj" in name else 0.02)


@wrong("init-parameter", "random-gains")
def every_weight_is_drawn(weight, name, n_layer):
    if name.endswith(".bias"):
        weight.zero_()
    else:
        weight.normal_(std=0.02 / math.sqrt(2 * n_layer) if "c_proj" in name else 0.02)


@wrong("init-parameter", None, says="values differ")
def with_the_wrong_std(weight, name, n_layer):
    if weight.dim() > 1:
        weight.normal_(std=0.2 / math.sqrt(2 * n_layer) if "c_proj" in name else 0.2)
    else:
        weight.fill_(0.0 if "bias" in name else 1.0)


@right("init-parameter")
def by_hand(weight, name, n_layer):
    if weight.dim() > 1:
        std = 0.02 / (2 * n_layer) ** 0.5 if name.endswith("c_proj.weight") else 0.02
        weight.data.copy_(torch.randn(weight.shape) * std)
    else:
        weight.data[:] = 0.0 if name.endswith("bias") else 1.0


# ── tie-weights ─────────────────────────────────────────────────────────────────────────────────


@wrong("tie-weights", "tied-by-copy")
def copies_the_numbers(head, embedding):
    with torch.no_grad():
        head.weight.copy_(embedding.weight)


@wrong("tie-weights", "tied-by-copy")
def clones_the_parameter(head, embedding):
    head.weight = nn.Parameter(embedding.weight.detach().clone())


@wrong("tie-weights", "two-parameters")
def shares_the_data(head, embedding):
    head.weight.data = embedding.weight.data


@wrong("tie-weights", "two-parameters")
def wraps_it_again(head, embedding):
    head.weight = nn.Parameter(embedding.weight.detach())


@wrong("tie-weights", "other-way-round")
def embedding_takes_the_heads(head, embedding):
    embedding.weight = head.weight


@wrong("tie-weights", "transposed")
def turned(head, embedding):
    head.weight = nn.Parameter(embedding.weight.T)


@wrong("tie-weights", "nothing-happened")
def rebinds_the_name(head, embedding):
    head = embedding  # noqa: F841


@fails("tie-weights", says="TypeError")
def assigns_the_module(head, embedding):
    head.weight = embedding


@right("tie-weights")
def through_the_dictionary(head, embedding):
    head._parameters["weight"] = embedding._parameters["weight"]


# ── save-tied ───────────────────────────────────────────────────────────────────────────────────


@wrong("save-tied", "saves-both-names")
def named_with_duplicates(model):
    return {n: p.data for n, p in model.named_parameters(remove_duplicate=False)}


@wrong("save-tied", "saves-both-names")
def by_identity_of_fresh_tensors(model):
    tensors, seen = {}, []
    for name, tensor in model.state_dict().items():
        if not any(tensor is other for other in seen):
            tensors[name] = tensor
            seen.append(tensor)
    return tensors


@wrong("save-tied", "always-drops-the-head")
def pops_the_head(model):
    tensors = model.state_dict()
    tensors.pop("lm_head.weight")
    return dict(tensors)


@wrong("save-tied", "drops-the-embedding")
def keeps_the_last_name(model):
    tensors = {}
    for name, tensor in reversed(model.state_dict().items()):
        if all(tensor.data_ptr() != other.data_ptr() for other in tensors.values()):
            tensors[name] = tensor
    return tensors


@wrong("save-tied", "compares-values")
def by_value(model):
    tensors = {}
    for name, tensor in model.state_dict().items():
        same = [k for k, v in tensors.items() if v.shape == tensor.shape and (v == tensor).all()]
        if not same:
            tensors[name] = tensor
    return tensors


@right("save-tied")
def by_address(model):
    tensors, seen = {}, set()
    for name, tensor in model.state_dict().items():
        if tensor.data_ptr() not in seen:
            tensors[name] = tensor
            seen.add(tensor.data_ptr())
    return tensors


# ── asleep-at-first ─────────────────────────────────────────────────────────────────────────────


@wrong("asleep-at-first", "what-is-zero", says="neither is 0")
def all_zero_matrices(model):
    return sorted(n for n, p in model.named_parameters() if p.dim() == 2 and not p.any())


@wrong("asleep-at-first", "whole-blocks", says="wakes the others")
def everything_inside(model):
    inside = model.transformer.h.named_parameters(prefix="transformer.h")
    return sorted(name for name, _ in inside)


@wrong("asleep-at-first", "bias-behind-the-zeros", says="added after the zeros")
def only_the_weight_is_awake(model):
    names = []
    for name, _ in model.named_parameters():
        if name.startswith("transformer.h.") and not name.endswith("c_proj.weight"):
            names.append(name)
    return sorted(names)


@wrong("asleep-at-first", "matrices-only", says="sleep, too")
def what_reads(model):
    ends = ("c_attn.weight", "c_fc.weight")
    return sorted(name for name, _ in model.named_parameters() if name.endswith(ends))


@wrong("asleep-at-first", "all-but-c-proj", says="goes past the blocks")
def behind_a_zero(model):
    return sorted(name for name, _ in model.named_parameters() if "c_proj" not in name)


@wrong("asleep-at-first", "mlp-only", says="c_proj of its own")
def forgets_attention(model):
    marks = (".mlp.c_fc.", ".ln_2.")
    return sorted(n for n, _ in model.named_parameters() if any(mark in n for mark in marks))


@wrong("asleep-at-first", None, says="expected")
def nothing_sleeps(model):
    return []


@fails("asleep-at-first", says="NoneType")
def no_gradient_yet(model):
    return sorted(name for name, p in model.named_parameters() if not p.grad.any())


@right("asleep-at-first")
def measured(model):
    idx = torch.randint(model.config.vocab_size, (4, model.config.block_size))
    model.zero_grad()
    model(idx, idx.flip(1))[0].backward()
    found = sorted(name for name, p in model.named_parameters() if not p.grad.any())
    model.zero_grad()
    return found


@wrong("init-parameter", "c-fc-is-scaled", says="only c_proj does")
def scales_the_mlp(weight, name, n_layer):
    with torch.no_grad():
        if weight.dim() > 1:
            scaled = "mlp" in name or "c_proj" in name
            weight.normal_(std=0.02 / math.sqrt(2 * n_layer) if scaled else 0.02)
        else:
            weight.fill_(0.0 if "bias" in name else 1.0)


@wrong("init-parameter", "norms-biases-at-1", says="every bias starts at 0")
def norms_at_one(weight, name, n_layer):
    if "ln_" in name:
        nn.init.ones_(weight)
    elif name.endswith("bias"):
        nn.init.zeros_(weight)
    else:
        scaled = name.endswith("c_proj.weight")
        nn.init.normal_(weight, std=0.02 / math.sqrt(2 * n_layer) if scaled else 0.02)


@wrong("init-parameter", "needs-no-grad", says="torch.no_grad()")
def without_no_grad(weight, name, n_layer):
    if weight.dim() > 1:
        std = 0.02 / (2 * n_layer) ** 0.5 if name.endswith("c_proj.weight") else 0.02
        weight.copy_(torch.randn(weight.shape) * std)
    else:
        weight[:] = 0.0 if name.endswith("bias") else 1.0


@wrong("tie-weights", "nothing-happened", says="overwritten with the head's")
def copies_the_wrong_way(head, embedding):
    embedding.weight.data.copy_(head.weight)


@wrong("tie-weights", "nothing-happened", says="with other numbers")
def the_mean_of_both(head, embedding):
    head.weight.data = (head.weight.data + embedding.weight.data) / 2


@wrong("save-tied", "names-by-count", says="one name more")
def zipped(model):
    return {n: p.detach() for n, p in zip(model.state_dict(), model.parameters(), strict=False)}


@wrong("asleep-at-first", "old-gradients-count", says="adds to what")
def never_emptied(model):
    idx = torch.tensor([[1, 2, 3, 4]])
    model(idx, idx.flip(1))[0].backward()
    return sorted(name for name, p in model.named_parameters() if not p.grad.any())
