"""Practice by TRL's GRPO, step by step: the parent gives the prompts in order, scores what was sampled, and says when to save weights.

The trainer runs in a thread, and waits before every step until it is asked for it. A step's seconds hold sampling, judging (the parent's,
with the pipe there and back) and the update; saving stands outside of them, and so does TRL's logging, which is off.

    {"step": 1}           → {"attempts": [[place of the prompt, token ids], ...]}, for which the parent then asks
    {"scores": [...]}     → {"seconds": 12.3}
    {"save": "folder"}    → {}: the weights as they are between two steps, as safetensors
"""

import time
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from serving import Answer, serve
from waiting import Waiting

MICRO_BATCH = 16


def start(settings: dict[str, Any]) -> tuple[Answer, dict[str, Any]]:
    from datasets import Dataset
    from transformers import TrainerCallback
    from trl import GRPOConfig, GRPOTrainer

    torch.set_num_threads(settings["threads"])
    waiting = Waiting()

    class Clock(TrainerCallback):
        """One step for each request, at the learning rate that the parent has for it."""

        def on_step_begin(self, args: Any, state: Any, control: Any, **others: Any) -> None:
            waiting.wait()
            self.began = time.perf_counter()

        def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **others: Any) -> None:
            for group in others["optimizer"].param_groups:
                group["lr"] = settings["rates"][state.global_step]

        def on_step_end(self, args: Any, state: Any, control: Any, **others: Any) -> None:
            waiting.say({"seconds": time.perf_counter() - self.began})

    def reward(completion_ids: list[list[int]], place: list[int], **others: Any) -> list[float | None]:
        waiting.say({"attempts": list(zip(place, completion_ids, strict=True))})
        scores: list[float | None] = waiting.wait()["scores"]
        return scores

    options = options_of(settings)
    trainer: Any = GRPOTrainer(
        settings["model"],
        reward_funcs=reward,
        train_dataset=Dataset.from_dict({"prompt": settings["texts"], "place": list(range(len(settings["texts"])))}),
        args=GRPOConfig(output_dir=str(Path(settings["scratch"]) / "trl"), **options),
        callbacks=[Clock()],
    )
    if trainer.processing_class(text=settings["texts"])["input_ids"] != settings["prompts"]:
        raise RuntimeError("the tokenizer reads the prompts' text otherwise than etude rendered it")
    waiting.begin(trainer.train)

    def answer(request: dict[str, Any]) -> dict[str, Any]:
        if "save" not in request:
            return waiting.answer(request)
        trainer.model.save_pretrained(request["save"])
        return {}

    versions = {name: metadata.version(name) for name in ("trl", "transformers", "torch")}
    return answer, {"versions": versions, "options": options, "end_tokens": sorted(trainer.eos_token_ids)}


def options_of(settings: dict[str, Any]) -> dict[str, Any]:
    """What the parent prescribes, and how a CPU runs it well: micro-batches of 16, no gradient checkpointing, half-precision weights.

    Where weights stay float32, products are in half precision by autocast.
    """
    micro = min(MICRO_BATCH, settings["sequences"])
    is_half = settings["precision"] == "bfloat16"
    weights = "bfloat16" if is_half and not settings["keeps_float32"] else "float32"
    return settings["options"] | {
        "use_cpu": True,
        "model_init_kwargs": {"dtype": weights},
        "bf16": is_half and weights == "float32",
        "gradient_checkpointing": False,
        "per_device_train_batch_size": micro,
        "gradient_accumulation_steps": settings["sequences"] // micro,
        "shuffle_dataset": False,
        "save_strategy": "no",
        "logging_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
    }


if __name__ == "__main__":
    serve(start)
