"""Measure at the end how far practice moved the model on the new task, KL(start || now) (`etude.evaluation.divergence`).

Answers to evaluation tasks are sampled before the first step and kept in `start_answers.json`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from etude.errors import UserError, at_least
from etude.training.callback import Callback

if TYPE_CHECKING:
    from etude.training.practice_run import PracticeRun


@dataclass(frozen=True)
class StartDivergenceSettings:
    """Divergence from the reference model (the model at the start of practice), measured at the end."""

    n: int
    """Evaluation tasks whose sampled answers measure the divergence, evaluation.num_samples each."""

    def __post_init__(self) -> None:
        at_least("divergence.n", self.n, 1)


class StartDivergence(Callback):
    """Samples in `start`, measures in `finish`."""

    name, Settings = "divergence", StartDivergenceSettings

    def check(self, settings: Mapping[str, Any]) -> None:
        if not settings["evaluation.num_samples"]:
            raise UserError("divergence samples answers, and evaluation.num_samples is 0: set it to 1 or more, or leave divergence out")

    def start(self, run: "PracticeRun") -> None:
        from etude.evaluation.divergence import answers_of_start

        self.run = run
        prompts = [prompt for suite in run.data.suites for prompt in suite.prompts][: self.settings.n]
        evaluation, rollout = run.settings.evaluation, run.settings.rollout
        how = run.start_sampling(evaluation.num_samples, evaluation.max_new_tokens or rollout.max_new_tokens)
        self.answers = run.once("start_answers.json", lambda: answers_of_start(run.engine, run.model, prompts, how))

    def finish(self) -> dict[str, Any] | None:
        from etude.evaluation.divergence import forward_divergence, from_rows

        return forward_divergence(self.run.model, from_rows(self.answers), self.run.place.dtype, self.run.temperature)

    def sentence(self, found: Mapping[str, Any]) -> str:
        low, high = found["forward_kl_low"], found["forward_kl_high"]
        return f"divergence from the initial model: KL(start || now) {found['forward_kl']:.2f} nats an answer [{low:.2f}, {high:.2f}]"
