"""A reward function that TRL's trainer takes is taken as it is, and is given the same arguments."""

import warnings
from typing import Any

import pytest
from datasets import Dataset

from etude import practice
from etude.rewards.functions import in_process

trl = pytest.importorskip("trl")
CALLS: list[dict[str, Any]] = []
ROWS = [{"prompt": f"repeat {letter}", "solution": letter, "level": place} for place, letter in enumerate("abcdefgh")]


def reward(prompts, completions, solution, **columns):
    """Score as in TRL's documentation, and keep the arguments."""
    CALLS.append({"prompts": prompts, "completions": completions, "solution": solution, "level": columns["level"]})
    return [float(own in text) - 0.01 * len(text) for text, own in zip(completions, solution, strict=True)]


def checked(calls):
    """Check that each call has a prompt, a completion and the columns of its row at each place; return how many completions there were."""
    rows = {row["prompt"]: row for row in ROWS}
    for call in calls:
        for prompt, completion, solution, level in zip(*call.values(), strict=True):
            assert isinstance(completion, str) and (solution, level) == (rows[prompt]["solution"], rows[prompt]["level"])
    return sum(len(call["completions"]) for call in calls)


def test_a_function_gets_from_etude_what_it_gets_from_trl(model_of, tokenizer, tmp_path, monkeypatch):
    CALLS.clear()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        config = trl.GRPOConfig(
            **{"output_dir": str(tmp_path / "trl"), "per_device_train_batch_size": 4, "num_generations": 4, "max_steps": 1},
            **{"max_completion_length": 4, "report_to": "none", "use_cpu": True, "bf16": False, "disable_tqdm": True},
        )
        trainer = trl.GRPOTrainer(
            model_of("llama"), reward_funcs=reward, args=config, train_dataset=Dataset.from_list(ROWS), processing_class=tokenizer
        )
        trainer.train()
    assert checked(CALLS) == 4

    CALLS.clear()
    monkeypatch.chdir(tmp_path)
    how = {"steps": 1, "tasks_per_step": 2, "num_samples": 4, "max_new_tokens": 4, "retention": {"probe": False}}
    how |= {"evaluation.pass_n": 0, "machine.dtype": "float32"}
    practice(
        model=(model_of("llama"), tokenizer),
        tasks=Dataset.from_list(ROWS[:6]),
        evaluation=Dataset.from_list(ROWS[6:]),
        reward=in_process(reward),
        **how,
    )
    practised = [call for call in CALLS if len(call["completions"]) == 4]
    assert len(practised) == 2 and checked(CALLS) >= 2 + 8 + 2  # two held-out answers before and after
