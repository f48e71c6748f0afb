"""One step of practice by etude: sample groups, score them, learn by GRPO advantages, take the new weights to the engine."""

import time
from contextlib import nullcontext
from functools import partial
from typing import Any

import torch
import transformers
from parts import split_into_steps
from scores import score
from serving import Answer, serve

from etude.engine.sampling import Sampling
from etude.engine.transformers import TransformersEngine
from etude.learn.learner import Learner, OptimizerSettings, Stream
from etude.learn.losses import POLICY_LOSSES
from etude.learn.settings import Learning
from etude.learn.update import update_on
from etude.models.load import load_model
from etude.rollouts.batch import RolloutBatch
from etude.rollouts.samples import sample_groups
from etude.tasks.reward import Reward
from etude.tasks.task import Task


def start(settings: dict[str, Any]) -> tuple[Answer, dict[str, Any]]:
    torch.set_num_threads(settings["threads"])
    dtype = getattr(torch, settings["dtype"])
    model, tokenizer = load_model(settings["model"])
    engine = TransformersEngine(model, tokenizer, dtype=dtype)
    engine.end_tokens = frozenset()
    loss = partial(POLICY_LOSSES["ppo"], clip_low=0.2, clip_high=0.2)
    learner = Learner(model, OptimizerSettings(learning_rate=1e-6), [Stream("policy", loss)], dtype=dtype)
    shape = settings["shape"]

    def answer(request: dict[str, Any]) -> dict[str, Any]:
        parts: dict[str, dict[str, float]] = {"sampling": {}, "learning": {}}
        within = split_into_steps if request.get("parted") else lambda: nullcontext({})
        began = time.perf_counter()
        prompts = [tuple(tokenizer(text)["input_ids"]) for text in request["prompts"]]
        tasks = [Task(text) for text in request["prompts"]]
        with within() as parts["sampling"]:
            groups = sample_groups(
                engine,
                tasks,
                prompts,
                num_samples=shape["samples"],
                max_new_tokens=shape["tokens"],
                sampling=Sampling(),
                names=(request["seed"],),
            )
        sampled = time.perf_counter()
        rewards = [
            [Reward(score(attempt.tokens[len(attempt.prompt) :]) if place < request["with_signal"] else 0.0) for attempt in group.attempts]
            for place, group in enumerate(groups)
        ]
        with within() as parts["learning"]:
            engine.offload_weights()
            batch = RolloutBatch(1, groups, rewards, {}, {})
            batch.begin_update()
            update_on(learner, batch, Learning(advantage="grpo"))
            engine.sync_weights(request["seed"])
        tokens = sum(attempt.num_own_tokens for group in groups for attempt in group.attempts)
        return {"seconds": time.perf_counter() - began, "sample_seconds": sampled - began, "tokens": tokens, "parts": parts}

    return answer, {"versions": {"torch": torch.__version__, "transformers": transformers.__version__}}


if __name__ == "__main__":
    serve(start)
