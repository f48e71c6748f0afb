"""Practice from a warm start, step by step and timed: etude's own, or a peer's on the same prompts, judged by the same verifier.

What both have in common follows from one `PracticeSettings`, which `in_their_words` says to TRL:

    weights of the warm start, prompts (token ids, in the same order), end tokens, longest answer, temperature, tasks and samples a step;
    the verifier, and advantages of GRPO within a group (n - 1, + 1e-4);
    one update a step, of all its attempts: the clipped loss over attempts x longest answer (`constant` here, `dr_grpo` there), no
    divergence term; AdamW's rate at every step, betas, epsilon and weight decay; the norm that gradients are clipped to

What differs:

    etude keeps float32 weights and multiplies in half precision; `trl-tuned` has half-precision weights, `trl-float32` is as etude is;
    etude's ratios are to the log-probs that sampling recorded, TRL's to its own forward pass, which with one update a step is exactly 1
    (`etude-recomputed` does as TRL does);
    etude computes what attempts have in common once, and leaves groups without signal out, whose gradient is 0 (where a step has none
    but those, TRL makes an update of momentum alone, and etude's learning rate stays behind);
    random numbers are each one's own; etude also writes every step to its run folder, as all of its runs do
"""

import shutil
import time
from importlib import metadata
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors.torch import load_file

from etude.training.settings import PracticeSettings
from experiments.peer import Running
from experiments.prepared_run import PreparedRun

COMPARABLE: dict[str, Any] = {
    "learn.method": "policy_gradient",
    "learn.advantage": "grpo",
    "learn.loss": "ppo",
    "learn.loss_agg_mode": "seq-mean-token-sum-norm",
    "learn.epochs": 1,
    "learn.minibatches_per_epoch": 1,
    "learn.lora.rank": 0,
}
"""Settings at which `in_their_words` holds."""


def in_their_words(settings: PracticeSettings) -> dict[str, Any]:
    """Return the settings as options of TRL's `GRPOConfig`; the learning rate of each step is handed over beside them."""
    rollout, learn = settings.rollout, settings.learn
    clip_low, clip_high = learn.clip
    return {
        "seed": settings.seed,
        "max_steps": settings.steps,
        "num_generations": rollout.num_samples,
        "max_completion_length": rollout.max_new_tokens,
        "temperature": rollout.sampling.temperature,
        "scale_rewards": "group",
        "loss_type": "dr_grpo",
        "importance_sampling_level": "token",
        "epsilon": clip_low,
        "epsilon_high": clip_high,
        "num_iterations": 1,
        "beta": 0.0,
        "learning_rate": learn.optimizer.learning_rate,
        "lr_scheduler_type": "constant",
        "adam_beta1": learn.optimizer.betas[0],
        "adam_beta2": learn.optimizer.betas[1],
        "adam_epsilon": 1e-8,
        "weight_decay": learn.optimizer.weight_decay,
        "max_grad_norm": learn.optimizer.max_grad_norm,
    }


class Practising(Protocol):
    """One run of practice, a step at a time."""

    versions: dict[str, Any]

    def step(self, number: int) -> float:
        """Make step `number`, counted from 1; its seconds: sampling, judging, update, new weights where samples come from."""

    def show(self) -> None:
        """Bring the weights as they are now into the engine of the run that measures."""


class Ours:
    """etude's practice: the recipe's own step."""

    def __init__(self, run: PreparedRun) -> None:
        self._run = run
        run.start()
        self.versions = {name: metadata.version(name) for name in ("etude", "transformers", "torch")}

    def step(self, number: int) -> float:
        began = time.perf_counter()
        self._run.update(number, self._run.rollout(number))
        return time.perf_counter() - began

    def show(self) -> None:
        """Do nothing: the engine has the weights of the last step already."""


def their_settings(run: PreparedRun, warm_start: Path, scratch: Path, *, keeps_float32: bool) -> dict[str, Any]:
    """Return what TRL's process is started with; `warm_start` is the folder of the weights that it begins with."""
    rollout, optimizer = run.settings.rollout, run.settings.learn.optimizer
    prompts = [list(prompt) for step in range(1, run.settings.steps + 1) for _, prompt in run.tasks_of(step)]
    return {
        "model": str(warm_start),
        "scratch": str(scratch),
        "threads": torch.get_num_threads(),
        "precision": run.place.precision,
        "keeps_float32": keeps_float32,
        "sequences": rollout.tasks_per_step * rollout.num_samples,
        "options": in_their_words(run.settings),
        "rates": [optimizer.rate(step) for step in range(run.settings.steps)],
        "prompts": prompts,
        "texts": [run.tokenizer.decode(prompt) for prompt in prompts],
    }


class Theirs:
    """TRL's practice in a process of its own, which asks for scores in the middle of a step."""

    def __init__(self, run: PreparedRun, running: Running, scratch: Path) -> None:
        """`running` was started with `their_settings` of the `run`, which judges and measures."""
        ends = running.about["end_tokens"]
        if set(ends) != run.engine.end_tokens:
            raise RuntimeError(f"the peer ends answers at the tokens {ends}, etude at {sorted(run.engine.end_tokens)}")
        self._run, self._running, self._saved = run, running, scratch / "theirs"
        self._tasks = [task for step in range(1, run.settings.steps + 1) for task, _ in run.tasks_of(step)]
        self.versions = running.about["versions"]

    def step(self, number: int) -> float:
        found = self._running.ask({"step": number})
        found = self._running.ask({"scores": self.scores(found["attempts"])})
        return float(found["seconds"])

    def scores(self, attempts: list[tuple[int, list[int]]]) -> list[float | None]:
        """Score attempts by the run's verifier: (place of the prompt among all steps' prompts, token ids)."""
        texts = [str(self._run.tokenizer.decode(tokens, skip_special_tokens=True)) for _, tokens in attempts]
        pairs = [(text, self._tasks[place]) for text, (place, _) in zip(texts, attempts, strict=True)]
        return [reward.score for reward in self._run.judge(pairs)]

    def show(self) -> None:
        self._running.ask({"save": str(self._saved)})
        left = self._run.model.load_state_dict(load_file(self._saved / "model.safetensors"), strict=False)
        assert not left.unexpected_keys and set(left.missing_keys) <= {"lm_head.weight"}, left  # which may be tied to the embedding
        self._run.engine.sync_weights(self._run.engine.policy_version + 1)
        shutil.rmtree(self._saved)
