"""A step model beside the policy: a learned value of unfinished answers (`etude.learn.step_model`), trained on every step's attempts.

For independent attempts it values the steps that `learn.advantage vineppo` compares, as far as it is trusted; a search uses its values of
unfinished answers (`rollout.search.value step_model`). It is saved with the model.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from etude.errors import UserError
from etude.evaluation.report.panels import Panel
from etude.learn.step_model_settings import StepModelSettings
from etude.rollouts.batch import RolloutBatch
from etude.rollouts.prefix_values import split_into_steps
from etude.training.callback import Callback, Excludes, Metrics

if TYPE_CHECKING:
    import torch

    from etude.training.practice_run import PracticeRun

_ONE_PROMPT = "takes attempts for answers to one prompt, without the answer shown"


class StepModelCallback(Callback):
    """Predicts before the update and learns after it; its state is the head, an own backbone, and their optimizer."""

    name, Settings = "step_model", StepModelSettings
    unit_rewards = "predicts a probability"
    panels = (
        Panel(
            "Step model",
            "share of pairs of attempts put in order",
            {"step_model/auc_within_task": "at one task", "step_model/auc": "of all"},
        ),
    )
    excludes = (
        Excludes(
            "rollout.search.method", "set it to samples or a search", "can't learn from attempts of several turns", values=("refine",)
        ),
        Excludes("rollout.prompt_variants", "leave the variants out", _ONE_PROMPT),
        Excludes("callbacks.synthetic_tasks", "leave synthetic_tasks out", "learns from given tasks alone"),
        Excludes("reward", "set it to majority_vote", "learns from samples of the policy", values=("self_training",)),
    )

    def check(self, settings: Mapping[str, Any]) -> None:
        is_search = settings["rollout.search.method"] not in ("samples", "refine")
        if self.settings.trust is not None and (is_search or settings["learn.advantage"] != "vineppo"):
            raise UserError(
                f"step_model.trust {self.settings.trust} is read for independent attempts with learn.advantage vineppo alone: leave it "
                "out, or set rollout.search.method to samples and learn.advantage to vineppo"
            )

    def prepare(self, run: "PracticeRun") -> None:
        from etude.models.load import load_model

        if self.settings.model is not None:
            _, its = load_model(self.settings.model)
            if its.get_vocab() != run.tokenizer.get_vocab():
                raise UserError(
                    f"step_model.model {self.settings.model} has another tokenizer than model {run.settings.model}: name one with the same"
                )

    def start(self, run: "PracticeRun") -> None:
        from etude.learn.step_model import StepModel
        from etude.models.load import load_model
        from etude.training.step_model_files import value_by

        self.run, model = run, run.model
        if self.settings.model is not None:
            model, _ = load_model(self.settings.model, device=next(model.parameters()).device)
        sizes: dict[str, Any] = {"dtype": run.place.dtype, "batch_tokens": run.settings.machine.max_tokens_per_microbatch}
        self.model = StepModel(model, self.settings, seed=run.seed, **sizes)
        run.sampler.step_value = value_by(self.model)

    def after_rollout(self, batch: RolloutBatch) -> None:
        rollout = self.run.settings.rollout
        if not rollout.is_search:
            pairs = zip(batch.groups, batch.rewards, strict=True)
            found = [split_into_steps(group, row, rollout.search.steps, self.run.engine.text_of) for group, row in pairs]
            batch.groups, batch.rewards = [group for group, _ in found], [row for _, row in found]

    def before_update(self, batch: RolloutBatch) -> Metrics:
        from etude.learn.step_values import ValuePredictions, prefixes_of, valued

        flat = iter(self.model.values([prefixes_of(attempt) for group in batch.groups for attempt in group.attempts]))
        values = [[next(flat) for _ in group.attempts] for group in batch.groups]
        foresight, trust = ValuePredictions.of(batch.rewards, values), self.model.trust
        metrics: Metrics = {f"step_model/{name}": value for name, value in foresight.metrics(self.model.mean_score).items()}
        self.model.observe([score for _, score in foresight.every], foresight.ordered())
        if self.run.settings.rollout.is_search:
            return metrics
        batch.shaped_rewards = valued(batch.shaped_rewards, values, trust)
        return metrics | {"step_model/trust": trust}

    def after_update(self, batch: RolloutBatch) -> Metrics:
        from etude.learn.step_values import step_targets_of

        learned = self.model.update(step_targets_of(batch.groups, batch.rewards, self.settings.targets))
        return {f"step_model/{name}": value for name, value in learned.items()}

    @property
    def saved_bytes(self) -> int:
        return sum(parameter.nbytes for parameter in self.model.parameters)

    def save(self, run: "PracticeRun") -> None:
        from etude.training.step_model_files import save_step_model

        save_step_model(self.model, run.tokenizer, run.folder.path / "model")

    def state_dict(self) -> "dict[str, torch.Tensor]":
        return self.model.state_dict()

    def load_state_dict(self, tensors: "Mapping[str, torch.Tensor]") -> None:
        self.model.load_state_dict(tensors)
