"""Names of settings and values in other libraries (TRL, verl, transformers, vLLM), and the nearest setting to an unknown name.

The tables of names and values only give hints in errors, so that a configuration has one spelling. `docs/methods.md` shows them.
"""

from collections.abc import Collection, Mapping, Sequence
from difflib import get_close_matches

from etude.renamed import renamed_value

SECTIONS = {"warmup": "warm_start", "sft": "warm_start", "training": "learn", "actor": "learn", "kv": "kv_cache"}
"""Other names of sections (the parts of a name before the last one)."""

NAMES: Mapping[str, tuple[str, ...]] = {
    **dict.fromkeys(("lr", "learning_rate", "actor_lr"), ("learn.optimizer.learning_rate", "study.optimizer.learning_rate")),
    **dict.fromkeys(("warmup_steps", "num_warmup_steps", "lr_warmup_steps"), ("learn.optimizer.warmup_steps",)),
    **dict.fromkeys(("max_grad_norm", "grad_clip", "clip_grad"), ("learn.optimizer.max_grad_norm",)),
    **dict.fromkeys(("lr_scheduler_type", "lr_schedule"), ("learn.optimizer.lr_scheduler", "study.optimizer.lr_scheduler")),
    **dict.fromkeys(("weight_decay", "wd"), ("learn.optimizer.weight_decay",)),
    **dict.fromkeys(("optimizer", "optim"), ("learn.optimizer.learning_rate",)),
    **dict.fromkeys(("temperature", "temp"), ("rollout.sampling.temperature", "sampling.temperature")),
    "top_p": ("rollout.sampling.top_p", "sampling.top_p"),
    "top_k": ("rollout.sampling.top_k", "sampling.top_k"),
    "min_p": ("rollout.sampling.min_p", "sampling.min_p"),
    **dict.fromkeys(
        ("num_generations", "num_return_sequences", "group_size", "rollouts_per_example", "num_rollouts", "samples_per_prompt"),
        ("rollout.num_samples", "num_samples", "evaluation.num_samples"),
    ),
    **dict.fromkeys(
        ("max_completion_length", "max_new_tokens", "max_tokens", "max_response_length", "max_gen_toks", "generation_max_length"),
        ("rollout.max_new_tokens", "max_new_tokens"),
    ),
    **dict.fromkeys(
        ("batch_size", "train_batch_size", "per_device_train_batch_size", "prompts_per_step", "rollout_batch_size"),
        ("rollout.tasks_per_step", "study.tokens_per_step"),
    ),
    **dict.fromkeys(("num_train_epochs", "num_epochs", "num_iterations", "ppo_epochs"), ("learn.epochs",)),
    **dict.fromkeys(("max_steps", "num_steps", "total_steps", "num_train_steps"), ("steps",)),
    **dict.fromkeys(("beta", "kl_coef", "kl_coeff", "kl_loss_coef", "init_kl_coef", "kl_penalty"), ("callbacks.kl_penalty.kl_coef",)),
    **dict.fromkeys(("epsilon", "epsilon_low", "cliprange", "clip_range", "clip_ratio", "clip_eps"), ("learn.clip_low",)),
    **dict.fromkeys(("epsilon_high", "clip_ratio_high", "clip_higher"), ("learn.clip_high",)),
    **dict.fromkeys(("entropy_coef", "entropy_coeff", "ent_coef"), ("callbacks.entropy_bonus.entropy_coef",)),
    **dict.fromkeys(("loss_type", "policy_loss"), ("learn.loss",)),
    **dict.fromkeys(
        ("advantages", "advantage_estimator", "adv_estimator", "algorithm", "algo", "scale_rewards", "credit"), ("learn.advantage",)
    ),
    **dict.fromkeys(("loss_agg", "loss_aggregation", "aggregation"), ("learn.loss_agg_mode",)),
    **dict.fromkeys(
        ("num_mini_batches", "num_minibatches", "ppo_mini_batch_size", "steps_per_generation"), ("learn.minibatches_per_epoch",)
    ),
    **dict.fromkeys(("ref_model_sync", "sync_ref_model"), ("learn.preference.ref_model_sync_steps",)),
    **dict.fromkeys(("ppo_max_token_len_per_gpu", "max_token_len_per_gpu"), ("machine.max_tokens_per_microbatch",)),
    **dict.fromkeys(("reward_weight", "reward_scales"), ("reward_weights",)),
    **dict.fromkeys(("lora_r", "lora_rank", "rank"), ("learn.lora.rank", "lora.rank")),
    "lora_alpha": ("learn.lora.alpha", "lora.alpha"),
    **dict.fromkeys(("model_name", "model_name_or_path", "model_path", "pretrained", "base_model"), ("model",)),
    **dict.fromkeys(("dataset", "dataset_name", "hf_dataset"), ("tasks.dataset", "recipe")),
    **dict.fromkeys(("train_file", "train_files", "data_files", "train_data"), ("tasks.path", "evaluation.path")),
    **dict.fromkeys(("eval_file", "eval_files", "test_file", "validation_file", "val_files"), ("evaluation.path",)),
    **dict.fromkeys(("reward_func", "reward_funcs", "reward_function", "reward_fn", "scorer"), ("tasks.verifier", "verifier")),
    **dict.fromkeys(("limit", "num_examples", "n_examples"), ("evaluation.n", "n")),
    **dict.fromkeys(("precision", "torch_dtype", "bf16", "fp16"), ("machine.dtype",)),
    **dict.fromkeys(("device", "accelerator"), ("machine.device",)),
    **dict.fromkeys(("save_every", "save_freq", "save_interval"), ("save_steps",)),
    "max_checkpoints": ("save_total_limit",),
    **dict.fromkeys(("system_prompt", "system_message"), ("system",)),
    **dict.fromkeys(("sampler", "search_method"), ("rollout.search.method", "search.method")),
    **dict.fromkeys(("stop_sequences", "stop_strings"), ("stop",)),
}
"""Other libraries' names of settings, in lower case with underscores, and etude's: the first that the command has."""

Value = tuple[str, str]
"""Etude's name of a value, and a note."""

VALUES: Mapping[str, Mapping[str, Value]] = {
    "learn.advantage": {
        **dict.fromkeys(("group", "standardized"), ("grpo", "")),
        **dict.fromkeys(("drgrpo", "dr.grpo", "centered", "none"), ("dr_grpo", "")),
        **dict.fromkeys(("loo", "leave_one_out"), ("rloo", "")),
        **dict.fromkeys(("batch", "reinforce", "reinforce++", "reinforce_plus_plus"), ("lite_ppo", "")),
        **dict.fromkeys(("dapo", "gspo", "cispo", "ppo"), ("grpo", "and learn.loss says how it is clipped")),
        "passk": ("pass_at_k", ""),
    },
    "learn.loss": {
        **dict.fromkeys(("grpo", "dapo", "clip_higher", "vanilla"), ("ppo", "")),
        "dr_grpo": ("ppo", "with learn.advantage dr_grpo"),
    },
    "learn.method": {
        **dict.fromkeys(("grpo", "dr_grpo", "rloo", "ppo", "gspo", "dapo", "reinforce", "rl"), ("policy_gradient", "")),
        "sft": ("imitation", "of own right attempts; given demonstrations are learned by warm_start.steps"),
        **dict.fromkeys(("rft", "raft", "expert_iteration", "best_of_n", "star", "rest_em"), ("imitation", "")),
        **dict.fromkeys(("dpo", "ipo", "kto", "simpo"), ("preference", "with learn.preference.loss")),
    },
    "reward": {
        **dict.fromkeys(("rule", "rules", "rlvr", "verifiable"), ("verifier", "with tasks.verifier")),
        **dict.fromkeys(("llm", "llm_judge", "reward_model", "rlaif"), ("judge", "")),
        **dict.fromkeys(("majority", "ttrl", "self_consistency"), ("majority_vote", "")),
    },
    "search.method": {
        **dict.fromkeys(("best_of_n", "independent", "sampling"), ("samples", "")),
        "beam_search": ("beam", ""),
        "vineppo": ("vine", ""),
        **dict.fromkeys(("self_refine", "revise"), ("refine", "")),
    },
    "decoding.method": {
        **dict.fromkeys(("self_consistency", "maj", "majority_vote"), ("majority", "")),
        "usc": ("universal_self_consistency", ""),
        "dola": ("layer_contrast_dynamic", ""),
        "cad": ("context_contrast", ""),
    },
    "kv_cache.policy": {
        "streamingllm": ("streaming", ""),
        "pyramidkv": ("pyramid", ""),
        **dict.fromkeys(("adakv", "ada_kv"), ("ada_snapkv", "")),
        "knorm": ("key_norm", ""),
        "keydiff": ("key_diff", ""),
        "criticalkv": ("critical_snapkv", ""),
        "lazyllm": ("lazy", ""),
    },
    "machine.dtype": {
        **dict.fromkeys(("bf16", "half", "fp16", "float16"), ("bfloat16", "")),
        **dict.fromkeys(("fp32", "full", "single"), ("float32", "")),
    },
    "machine.device": {**dict.fromkeys(("gpu", "nvidia"), ("cuda", ""))},
}
"""Other libraries' names of values, and etude's, by the setting's name or its end."""

_FIRST = ("rollout.", "learn.", "evaluation.", "sampling.")
"""Preferred sections, if several have a setting of the same name."""


def our_value(setting: str, value: str) -> Value | None:
    """Return etude's name for another library's value of a setting, or for a former value, with a note, or None."""
    known = next((words for name, words in VALUES.items() if setting == name or setting.endswith(f".{name}")), {})
    now = renamed_value(setting, value)
    return (now, "") if now != value else known.get(value.strip().lower().replace("-", "_"))


def nearest_setting(name: str, known: Sequence[str], short: Collection[str] = ()) -> str | None:
    """Find the setting that was probably meant: in the same section, by another library's name, by its last part, or by its letters."""
    *sections, last = name.replace("-", "_").lower().split(".")
    section = "".join(f"{SECTIONS.get(part, part)}." for part in sections)
    if section + last in known:
        return section + last
    within = [setting for setting in known if section and setting.startswith(section)]
    named = _named_so(last, within) or _near(last, {setting.removeprefix(section): setting for setting in reversed(within)}, 0.6)
    ends = {_end(setting): setting for setting in reversed(known)}
    letters = {setting: setting for setting in (*known, *short)}
    return (
        named
        or _named_so(last, known)
        or _near(section + last, letters, 0.75)
        or _near(last, ends, 0.6)
        or _near(section + last, letters, 0.5)
    )


def _named_so(last: str, settings: Sequence[str]) -> str | None:
    """Find a setting by the last part of its name, or by another library's name."""
    words = [ours for ours in NAMES.get(last, ()) if ours in settings]
    ends = {last, *map(_end, NAMES.get(last, ()))}
    same = sorted((setting for setting in settings if _end(setting) in ends), key=lambda setting: (_end(setting) != last, _rank(setting)))
    return next(iter([*words, *same]), None)


def _near(name: str, settings: Mapping[str, str], cutoff: float) -> str | None:
    near = get_close_matches(name, settings, n=1, cutoff=cutoff)
    return settings[near[0]] if near else None


def _end(setting: str) -> str:
    return setting.rsplit(".", 1)[-1]


def _rank(setting: str) -> tuple[int, int]:
    """Return a sort key that puts preferred sections and short names first."""
    return next((place for place, start in enumerate(_FIRST) if setting.startswith(start)), len(_FIRST)), setting.count(".")
