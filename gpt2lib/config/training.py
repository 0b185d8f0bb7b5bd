"""What a run does: its text, its optimiser, its length and its precision."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

from gpt2lib.config.model import GPTConfig, MethodConfig
from gpt2lib.config.schema import Config, in_range
from gpt2lib.utils.errors import UserError


@dataclass(frozen=True)
class DataConfig(Config):
    """Which text, and how it becomes tokens.

    Attributes:
        source: a corpus by name (plays, tinyshakespeare), a file (text, JSONL, CSV, Parquet, Arrow,
            also compressed by gzip or zstd), a glob or a folder of such files (those named train,
            validation or test are kept apart), a folder saved by
            `datasets`, `hf:OWNER/NAME` for a dataset of the hub, or a folder that
            `gpt2lib prepare` made.
        mixture: several sources and their weights, in place of source; the samples of training are
            spread over them in proportion to the weights, evenly and exactly.
        tokenizer: bpe (trained on the training text), char, gpt2, or a folder with a tokenizer;
            auto is the tokenizer of init_from, and bpe where there is none.
        vocab_size: number of tokens that a trained bpe has.
        val_fraction: share of the text's bytes held out, where the text has no split of its own:
            whole documents where they come near it, else the end of a long one too.
        column: the column or key that holds the text; auto takes "text", or the only one that
            holds text.
        template: how the rows of a table become texts of which only the answers are learned: chat
            (messages with roles), alpaca (instruction, input, output), prompt (prompt, completion),
            auto for the one that fits, or your own, such as "Q: {question}\\nA:\\n[[{answer}]]":
            braces hold fields, double brackets what is learned.
        split: the split of a hub dataset to train on; by default train.
        streaming: whether to read a hub dataset as it comes, without storing it first.
        encoding: how text files are encoded. Or names and encodings, such as
            {"*.old.txt": cp1252, "letters/*": latin-1}: the first name that a file has counts, and
            a file without is utf-8.
        encoding_errors: what becomes of bytes that are no text in that encoding: strict refuses
            the file, replace puts U+FFFD in their place, skip leaves them out.
        special_tokens: whether what is written as a special token is one: <|endoftext|> in a text
            is a border between documents, and added tokens of a loaded tokenizer are themselves.
            Else they are text like any other.
        mask_documents: whether a token sees only its own document, and positions begin anew in
            each, where several documents share a block.
        cache: folder for prepared token files; by default one in the user's cache folder.
    """

    source: str = "plays"
    mixture: dict[str, float] | None = None
    tokenizer: str = "auto"
    vocab_size: int = 1024
    val_fraction: float = 0.1
    column: str = "auto"
    template: str | None = None
    split: str | None = None
    streaming: bool = False
    encoding: str | dict[str, str] = "utf-8"
    encoding_errors: Literal["strict", "replace", "skip"] = "strict"
    special_tokens: bool = False
    mask_documents: bool = False
    cache: str | None = None

    def __post_init__(self) -> None:
        if not self.source:
            raise UserError("data.source is empty; name a corpus, a file or a folder ('.' is here)")
        in_range(self, "vocab_size", least=257, most=2**24)  # 256 bytes and the end-of-text token
        in_range(self, "val_fraction", least=0, below=1)
        if self.mixture is not None and not self.mixture:
            raise UserError("mixture is empty; give sources and weights, such as {plays: 1}")
        for name, weight in (self.mixture or {}).items():
            if not 0 < weight < math.inf:
                raise UserError(f"mixture: the weight of {name} must be above 0, not {weight}")


@dataclass(frozen=True)
class OptimConfig(Config):
    """The optimiser and its learning rates.

    Every rate follows one schedule: it rises during the warm-up, stays, and falls to its share
    `min_lr` at the end.

    Attributes:
        name: adamw, as for GPT-2, or muon: Muon for the matrices inside the blocks, AdamW for the
            embeddings, the output head, biases and gains.
        lr: highest learning rate of AdamW.
        min_lr: learning rate at the end, as a share of the highest.
        warmup_steps: steps over which the learning rate rises linearly.
        decay: how the learning rate falls, along half a cosine or a straight line.
        decay_share: share of the steps, the last ones, over which the learning rate falls; 1
            lets it fall from the end of the warm-up on, 0 not at all.
        beta1: decay of the mean of the gradients.
        beta2: decay of the mean of the squared gradients.
        eps: added to the root of the second moment.
        weight_decay: pull of the weight matrices towards zero; biases and gains have none.
        grad_clip: largest norm of the gradient; 0 switches clipping off.
        muon_lr: highest learning rate of Muon.
        muon_momentum: decay of Muon's mean of the gradients.
        embedding_lr: highest learning rate of the embeddings, and of a head tied to them; null
            is lr.
        head_lr: highest learning rate of an output head that is not tied; null is lr.

    Reference: Loshchilov and Hutter 2019 (adamw); Jordan et al. 2024 (muon).
    """

    name: Literal["adamw", "muon"] = "adamw"
    lr: float = 6e-4
    min_lr: float = 0.1
    warmup_steps: int = 100
    decay: Literal["cosine", "linear"] = "cosine"
    decay_share: float = 1.0
    beta1: float = 0.9
    beta2: float = 0.95
    eps: float = 1e-8
    weight_decay: float = 0.1
    grad_clip: float = 1.0
    muon_lr: float = 0.02
    muon_momentum: float = 0.95
    embedding_lr: float | None = None
    head_lr: float | None = None

    def __post_init__(self) -> None:
        in_range(self, "warmup_steps", "grad_clip", least=0)
        in_range(self, "min_lr", "decay_share", least=0, most=1)
        in_range(self, "weight_decay", least=0, most=100)
        in_range(self, "beta1", "beta2", "muon_momentum", least=0, below=1)
        for name in ("lr", "muon_lr", "embedding_lr", "head_lr"):
            rate = getattr(self, name)
            if rate is not None and not 0 < rate < 10:
                raise UserError(f"{name} must be above 0 and below 10, not {rate}")
        if not self.eps > 0 or math.isinf(self.eps):
            raise UserError(f"eps must be above 0, not {self.eps}")
        if math.isinf(self.grad_clip):
            raise UserError(f"grad_clip must be finite, not {self.grad_clip}; 0 switches it off")

    def unused(self) -> list[str]:
        """Return the fields that were set, but that an optimiser of this kind does not read."""
        silent = [] if self.name == "muon" else ["muon_lr", "muon_momentum"]
        silent += [] if self.decay_share else ["decay", "min_lr"]
        return self.not_default(*silent)

    def slowed(self, factor: float) -> OptimConfig:
        """Return the same with every learning rate divided by `factor`."""
        names = ("lr", "muon_lr", "embedding_lr", "head_lr")
        rates = {name: getattr(self, name) for name in names}
        return self.replace(**{n: rate / factor for n, rate in rates.items() if rate is not None})


@dataclass(frozen=True)
class TrainConfig(Config):
    """A whole run. `gpt2lib train PRESET_OR_YAML --any.field value` sets any field.

    Attributes:
        model: the shape of the model.
        data: which text, and how it becomes tokens.
        optim: the optimiser and its learning rates.
        method: which parameters of the model of init_from train.
        steps: optimiser updates.
        batch_size: sequences in one update, over all processes.
        micro_batch: sequences in one forward pass of one process; batch_size must be a multiple
            of micro_batch times processes, and the rest is gradient accumulation. None takes as
            many as batch_size gives each process, auto the most that fit into memory.
        seed: fixes the initial weights, the order of the data, dropout and the samples.
        precision: fp32, bf16, fp16 (GPU only), or auto: bf16 where it is the faster one.
        device: cpu, cuda, mps, or auto: a GPU where there is one.
        compile: whether to compile the model with torch.compile.
        gradient_checkpointing: recompute activations in the backward pass, to save memory: in
            every block, or in every k-th for a number k.
        max_skipped: an update whose loss or gradient is not finite is skipped; one more than this
            many in a row stops the run.
        spike_threshold: a loss this many standard deviations above the recent ones is reported.
        eval_every: steps between evaluations on held-out text.
        eval_batches: batches of batch_size sequences in an evaluation while training; the last
            evaluation is on all held-out text.
        save_every: steps between checkpoints; one is always written at the end.
        patience: the run ends after so many evaluations in a row without a lower held-out loss;
            null trains all steps.
        keep: how many of the newest checkpoints are kept.
        keep_best: whether the checkpoint with the lowest held-out loss is kept as well.
        trackers: where to report beside metrics.jsonl: tensorboard, wandb, trackio, mlflow.
        sample_prompt: what the samples written at each evaluation begin with.
        sample_tokens: length of those samples; 0 writes none.
        init_from: start from these weights: a hub name such as gpt2, a transformers folder (GPT-2,
            GPTBigCode, Starcoder2), nanoGPT's ckpt.pt, or a run, a checkpoint or a converted model
            of ours. The model's shape and tokenizer then come from there.
    """

    model: GPTConfig = field(default_factory=GPTConfig)
    data: DataConfig = field(default_factory=DataConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    method: MethodConfig = field(default_factory=MethodConfig)
    steps: int = 1000
    batch_size: int = 16
    micro_batch: int | Literal["auto"] | None = None
    seed: int = 1337
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    compile: bool = False
    gradient_checkpointing: bool | int = False
    max_skipped: int = 10
    spike_threshold: float = 6.0
    eval_every: int = 250
    eval_batches: int = 20
    save_every: int = 500
    patience: int | None = None
    keep: int = 2
    keep_best: bool = True
    trackers: tuple[Literal["tensorboard", "wandb", "trackio", "mlflow"], ...] = ()
    sample_prompt: str = "\n"
    sample_tokens: int = 100
    init_from: str | None = None

    def __post_init__(self) -> None:
        in_range(self, "steps", "micro_batch", "keep", "patience", least=1)
        in_range(self, "eval_every", "eval_batches", "save_every", least=1)
        in_range(self, "batch_size", least=1, most=2**20)
        in_range(self, "sample_tokens", least=0, most=2**20)
        in_range(self, "gradient_checkpointing", "max_skipped", least=0)
        in_range(self, "seed", least=0, below=2**63)
        if not self.spike_threshold > 0:
            raise UserError(f"spike_threshold must be above 0, not {self.spike_threshold}")
        if self.precision == "fp16" and self.device == "cpu":
            raise UserError("precision fp16 needs a GPU; on a CPU use bf16, fp32 or auto")
        if self.method.name != "full" and self.init_from is None:
            raise UserError(
                f"method {self.method.name} trains a part of a trained model, and there is none; "
                "name one with init_from"
            )
        if not self.sample_prompt and self.sample_tokens:
            raise UserError("sample_prompt is empty; give at least one character, such as '\\n'")

    def unused(self) -> dict[str, str]:
        """Return each field that was set, but that such a run does not read, and why."""
        why = f"position is {self.model.position}, without {', '.join(self.model.without) or None}"
        found = {f"model.{name}": why for name in self.model.unused()}
        of_optim = f"optim.name is {self.optim.name}, optim.decay_share {self.optim.decay_share:g}"
        found |= {f"optim.{name}": of_optim for name in self.optim.unused()}
        of_method = f"method.name is {self.method.name}"
        found |= {f"method.{name}": of_method for name in self.method.unused()}
        silent = () if self.sample_tokens else ("sample_prompt",)
        return found | dict.fromkeys(self.not_default(*silent), "sample_tokens is 0")

    def check_share(self, share: int, each: str) -> None:
        """Refuse a micro-batch that does not divide the sequences of one process or GPU.

        Raises:
            UserError: with both numbers.
        """
        if isinstance(self.micro_batch, int) and share % self.micro_batch:
            raise UserError(
                f"each {each} has {share} of batch_size {self.batch_size}, which does not divide "
                f"by micro_batch {self.micro_batch}"
            )
