"""One step of GRPO by TRL, as its defaults have it on a CPU, or tuned by hand: half-precision weights, no gradient checkpointing,
micro-batches of 16 sequences. The trainer runs in a thread, and waits before every step until it is asked for it.
"""

import time
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from scores import score
from serving import Answer, serve
from waiting import Waiting

TUNED: dict[str, Any] = {"gradient_checkpointing": False, "bf16": False}


def start(settings: dict[str, Any]) -> tuple[Answer, dict[str, Any]]:
    from datasets import Dataset
    from transformers import TrainerCallback
    from trl import GRPOConfig, GRPOTrainer

    torch.set_num_threads(settings["threads"])
    shape, is_tuned = settings["shape"], settings["is_tuned"]
    sequences = shape["prompts"] * shape["samples"]
    micro = min(sequences, 16 if is_tuned else 8)
    options: dict[str, Any] = {"per_device_train_batch_size": micro, "gradient_accumulation_steps": sequences // micro}
    if is_tuned:
        options |= TUNED
        if settings["dtype"] != "float32":
            options["model_init_kwargs"] = {"dtype": settings["dtype"]}
    waiting = Waiting()

    class Turns(TrainerCallback):
        """One step for each request."""

        def on_step_begin(self, args: Any, state: Any, control: Any, **others: Any) -> None:
            waiting.wait()
            self.began = time.perf_counter()

        def on_step_end(self, args: Any, state: Any, control: Any, **others: Any) -> None:
            waiting.say({"seconds": time.perf_counter() - self.began, "tokens": sequences * shape["tokens"]})

    def reward(completion_ids: list[list[int]], **others: Any) -> list[float | None]:
        assert all(len(tokens) == shape["tokens"] for tokens in completion_ids)
        return [score(tokens) for tokens in completion_ids]

    trainer = GRPOTrainer(
        settings["model"],
        reward_funcs=reward,
        train_dataset=Dataset.from_dict({"prompt": settings["texts"]}),
        args=GRPOConfig(
            output_dir=str(Path(settings["model"]).parent / "trl"),
            use_cpu=True, max_steps=len(settings["texts"]) // shape["prompts"], shuffle_dataset=False,
            num_generations=shape["samples"], max_completion_length=shape["tokens"], temperature=1.0, learning_rate=1e-6,
            generation_kwargs={"min_new_tokens": shape["tokens"]}, save_strategy="no", report_to="none", disable_tqdm=True, **options,
        ),
        callbacks=[Turns()],
    )  # fmt: skip

    waiting.begin(trainer.train)
    versions = {name: metadata.version(name) for name in ("trl", "transformers", "torch")}
    return waiting.answer, {"versions": versions, "options": {key: str(value) for key, value in options.items()}}


if __name__ == "__main__":
    serve(start)
