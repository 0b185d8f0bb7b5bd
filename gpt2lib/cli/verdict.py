"""What a fine-tuning would do, and what came of it, as tables."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gpt2lib.training.plan import Plan


def plan_values(plan: Plan) -> dict[str, Any]:
    """Return what the plan says beside its settings."""
    advice = None if plan.advice is None else plan.advice._asdict()
    tokens = {"train_tokens": plan.train_tokens, "held_out_tokens": plan.held_out_tokens}
    return {"advice": advice, **tokens, "passes": plan.passes}


def plan_rows(plan: Plan, costs: dict[str, Any]) -> dict[str, str]:
    """Return the plan as a table."""
    from gpt2lib.estimate.counts import count_parameters, count_trained

    config, advice = plan.config, plan.advice
    shape, total = config.model, count_parameters(config.model)
    trained = count_trained(shape, config.method)
    fields = {"last-k": f", k {config.method.k}", "lora": f", rank {config.method.rank}"}
    held_out = f"{plan.held_out_tokens:,} held out" if plan.held_out_tokens else "none held out"
    patience = f"; ends after {config.patience} evaluations without a lower held-out loss"
    rows = {
        "text": f"{plan.train_tokens:,} tokens to train on, {held_out}",
        "model": f"{config.init_from}, {total:,} parameters, blocks of {shape.block_size:,}",
        "method": f"{config.method.name}{fields.get(config.method.name, '')}: {trained:,} "
        f"parameters train ({trained / total:.1%})",
        "rate": f"{config.optim.lr:g}, at most {config.steps:,} steps of {config.batch_size} "
        f"sequences, {plan.passes:,.2g} passes" + patience * (config.patience is not None),
        "memory": f"{costs['peak'] / 1e9:.2f} GB of tensors at the peak",
        "minutes": f"{costs['minutes']:.1f} on this machine as it is now, "
        f"{costs['seconds_per_update']:.2f} s an update",
    }
    if advice is None:
        rows["expected"] = "not known: the study has no run with these settings"
    else:
        (least, most), (few, many) = advice.gain, advice.forgotten
        rows["expected"] = (
            f"the held-out loss falls by {least:.2f} to {most:.2f} nats a token, and that on the "
            f"old text rises by {few:.2f} to {many:.2f}"
        )
        rows["as in"] = (
            f"{advice.runs} runs of {advice.method} in the study (training/finetune.csv), a model "
            f"of 64 channels; for {shape.n_embd} the rate is scaled and was not studied"
        )
    return rows


def verdict_rows(report: dict[str, Any], out: Path) -> dict[str, str]:
    """Return what was learned, as a table."""
    rows = {}
    if "before" in report:
        before, after = report["before"], report["after"]
        rows["before"] = f"{before:.4f} nats per token of the held-out text"
        rows["after"] = f"{after:.4f}, {before - after:+.4f} gained, at step {report['step']}"
    else:
        rows["before"] = "not measured: nothing of the text was held out"
    if "control" in report:
        rows["from scratch"] = f"{report['control']:.4f}, a new model after the same tokens"
    if old := report.get("remembered"):
        rows["old text"] = (
            f"{old['before']:.4f} before, {old['after']:.4f} after "
            f"({old['after'] - old['before']:+.4f} forgotten), {old['text']}"
        )
    if report.get("said"):
        rows["but"] = report["said"]
    rows["best"] = f"{out}/checkpoints/{report['checkpoint']}"
    return rows
