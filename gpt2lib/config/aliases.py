"""What a misspelt field probably means, or one that bears another project's name."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

ALIASES = {
    "n_embd": "d_model emb_dim hidden_size n_embed embed_dim embedding_dim dim width",
    "n_layer": "n_layers num_layers num_hidden_layers depth",
    "n_head": "n_heads num_heads num_attention_heads",
    "n_kv_head": "n_kv_heads num_kv_heads num_key_value_heads n_query_groups kv_heads",
    "block_size": "context_length n_positions n_ctx max_seq_len max_seq_length seq_len "
    "sequence_length sequence_len max_position_embeddings context_window context",
    "dropout": "drop_rate resid_pdrop attn_pdrop embd_pdrop",
    "bias": "qkv_bias use_bias",
    "tie_weights": "weight_tying tie_word_embeddings tie_embeddings",
    "position": "pos_emb position_embedding positional_encoding",
    "rope_base": "rope_theta",
    "window": "sliding_window attention_window window_size",
    "gelu": "activation_function hidden_act",
    "vocab_size": "vocab padded_vocab_size",
    "source": "dataset dataset_name data_dir data_path train_file train_data input_file",
    "column": "text_column text_field dataset_text_field",
    "template": "chat_template prompt_template prompt_style",
    "val_fraction": "val_split validation_split valid_frac test_size",
    "tokenizer": "tokenizer_name enc encoding_name",
    "lr": "learning_rate max_lr peak_lr",
    "min_lr": "min_learning_rate lr_min final_lr_frac",
    "warmup_steps": "warmup_iters warmup lr_warmup num_warmup_steps warmup_ratio",
    "decay": "lr_decay lr_scheduler lr_scheduler_type schedule",
    "decay_share": "lr_decay_iters cooldown_frac warmdown_ratio warmdown_iters",
    "beta1": "adam_beta1",
    "beta2": "adam_beta2",
    "eps": "adam_eps adam_epsilon epsilon",
    "weight_decay": "wd",
    "grad_clip": "max_grad_norm gradient_clip_val clip_grad clip",
    "muon_lr": "matrix_lr",
    "head_lr": "unembedding_lr",
    "name": "optimizer optimiser optimizer_name optimizer_type",
    "steps": "max_iters max_steps num_iterations num_steps n_steps iters train_steps "
    "num_train_epochs epochs num_epochs n_epochs",
    "batch_size": "total_batch_size global_batch_size train_batch_size bs",
    "micro_batch": "batch_size_per_gpu per_device_train_batch_size device_batch_size "
    "micro_batch_size gradient_accumulation_steps grad_accum grad_accum_steps",
    "seed": "random_seed manual_seed",
    "precision": "dtype mixed_precision fp16 bf16 amp",
    "compile": "torch_compile",
    "gradient_checkpointing": "activation_checkpointing grad_checkpointing",
    "eval_every": "eval_interval eval_steps val_every val_interval val_check_interval",
    "eval_batches": "eval_iters val_batches",
    "save_every": "save_steps save_interval checkpoint_every",
    "keep": "save_total_limit",
    "trackers": "report_to wandb_log wandb tracker",
    "sample_tokens": "sample_len",
    "init_from": "model_name_or_path pretrained checkpoint_path",
    "out": "out_dir output_dir save_dir",
    "resume": "resume_from_checkpoint resume_from",
    "max_new_tokens": "max_tokens max_length num_tokens n_tokens length tokens",
    "temperature": "temp",
}
"""The last part of a field's or an option's name here: what nanoGPT, transformers, accelerate,
litgpt, nanochat and the books call it."""

ALIKE, ALIKE_ALIAS = 0.6, 0.8
"""How much of two words must agree, from 0 to 1. There are many aliases, so theirs must more."""


def did_you_mean(name: str, valid: Iterable[str], within: str = "") -> str:
    """Return ``"; did you mean 'x'?"`` for the field that `name` probably means, or ``""``.

    Last parts are compared first, so that `n_layer` leads to `model.n_layer`, and with them what
    other projects say, so that `learning_rate` leads to `optim.lr`.

    Args:
        name: a field or an option that there is not, with the group that it was given in.
        valid: the names that there are, such as `steps` and `optim.lr`, or `--steps`.
        within: a group such as "model.", which its own fields are named without.
    """

    def agree(one: str, other: str) -> float:
        return difflib.SequenceMatcher(None, one, other).ratio()

    last = _last(name).lower()
    best, found = (0.0, 0.0), ""
    for full in valid:
        ours = _last(full)
        theirs = [agree(last, alias) for alias in ALIASES.get(ours, "").split()]
        alike = max([agree(last, ours), *(score for score in theirs if score >= ALIKE_ALIAS)])
        if alike >= ALIKE and (alike, agree(name, full)) > best:
            best, found = (alike, agree(name, full)), full
    if found == name:  # typed with its dot where groups are nested
        group, _, field = found.rpartition(".")
        return f"; it is written {group}: {{{field}: ...}}"
    return f"; did you mean {found.removeprefix(within)!r}?" if found else ""


def _last(name: str) -> str:
    return name.rpartition(".")[2].lstrip("-")
