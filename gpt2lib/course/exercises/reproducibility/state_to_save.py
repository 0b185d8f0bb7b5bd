"""Notebook 10: All that a run needs to go on."""

from __future__ import annotations

from typing import Any

from gpt2lib.course.exercise import Case, Exercise, Function, Misconception, case, lazy

torch: Any = lazy("torch")
weights: Any = lazy("gpt2lib.model.weights")


def _trained(updates: int) -> Case:
    """Return a small model and its optimiser after some updates."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(updates)
        model = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.Linear(3, 1))
        optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
        for _ in range(updates):
            optimizer.zero_grad()
            model(torch.randn(4, 2)).pow(2).mean().backward()
            optimizer.step()
        optimizer.zero_grad()
    return case(model, optimizer, updates)


def _snapshot(
    model: Any, optimizer: Any, step: int, keep: tuple[str, ...] = ("step", "exp_avg", "exp_avg_sq")
) -> dict[str, Any]:
    moments = weights.optimizer_tensors(model, optimizer).items()
    return {
        "weights": {n: p.clone() for n, p in weights.model_tensors(model).items()},
        "moments": {n: t.clone() for n, t in moments if n.partition("/")[0] in keep},
        "random": torch.get_rng_state(),
        "step": step,
    }


def _without(key: str) -> Function:
    def snapshot(model: Any, optimizer: Any, step: int) -> dict[str, Any]:
        return {k: v for k, v in _snapshot(model, optimizer, step).items() if k != key}

    return snapshot


def _changes_later(my_state: Function) -> bool:
    """Whether a snapshot changes when the training goes on."""
    model, optimizer, step = _trained(2).args
    taken = my_state(model, optimizer, step)
    tensors = [*taken["weights"].values(), *taken["moments"].values()]
    before = [t.clone() for t in tensors]
    model(torch.ones(4, 2)).mean().backward()
    optimizer.step()
    return any(not torch.equal(t, b) for t, b in zip(tensors, before, strict=True))


EXERCISE = Exercise(
    id="state-to-save",
    notebook="10",
    title="All that a run needs to go on",
    signature="my_state(model, optimizer, step)",
    reference="gpt2lib.model.weights:optimizer_tensors",
    adapt=lambda _: _snapshot,
    shows="gpt2lib.training.state:TrainingState.save",
    cases=lambda: [_trained(1), _trained(3)],
    hints=[
        "named_parameters() gives the weights; optimizer.state[p] is a dictionary of what AdamW "
        "keeps for parameter p; torch.get_rng_state() is where the random numbers are.",
        "moments: for each parameter and each item of optimizer.state[p], the key is "
        'f"{what}/{name}".',
        "Training changes weights and moments in place: keep copies, p.detach().clone().",
    ],
    misconceptions=[
        Misconception(
            "forgets-the-random-state",
            "nothing is kept of the random numbers (`random`): from here on dropout would drop "
            "other activations than in the uninterrupted run",
            wrong=_without("random"),
        ),
        Misconception(
            "saves-the-seed",
            "the seed says where the random numbers began, not how far they are: with it the "
            "resumed run draws the first numbers again. torch.get_rng_state() is the position",
            wrong=lambda model, optimizer, step: {
                **_snapshot(model, optimizer, step),
                "random": torch.initial_seed(),
            },
        ),
        Misconception(
            "forgets-the-moments",
            "AdamW's averages are missing: after the resume they begin at zero, and the first "
            "updates go elsewhere. They are in optimizer.state[p]",
            wrong=lambda model, optimizer, step: _snapshot(model, optimizer, step, ()),
        ),
        Misconception(
            "forgets-the-counts",
            "optimizer.state[p] also has `step`, which corrects the bias of the averages. Without "
            "it full averages are treated as those of a first update",
            wrong=lambda model, optimizer, step: _snapshot(
                model, optimizer, step, ("exp_avg", "exp_avg_sq")
            ),
        ),
        Misconception(
            "first-average-only",
            "AdamW keeps two averages, exp_avg and exp_avg_sq, and a step: take all items of "
            "optimizer.state[p]",
            wrong=lambda model, optimizer, step: _snapshot(model, optimizer, step, ("exp_avg",)),
        ),
        Misconception(
            "off-by-one",
            "`step` is the number of updates made. One more, and the resumed run leaves a batch "
            "out; one less, and it reads one twice",
            wrong=lambda model, optimizer, step: _snapshot(model, optimizer, step + 1),
        ),
        Misconception(
            "shares-memory",
            "your snapshot changes when training goes on, because it holds the very tensors that "
            "are being trained: keep .clone() of each",
            test=_changes_later,
        ),
    ],
)
