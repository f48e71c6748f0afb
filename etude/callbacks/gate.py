"""Gate against forgetting: roll back practice if the model has lost too much knowledge, or has moved too far.

    passes:  accuracy           >= (1 - max_accuracy_drop) · accuracy before practice
             perplexity         <= (1 + max_perplexity_rise) · perplexity before practice
             KL(start || now)   <= max_divergence                                             if it is set

on the same questions, the same text (`etude.evaluation.retention`) and the same answers (`etude.evaluation.divergence`), so that the
comparison is more certain than the interval of either number. The divergence is computed on practice tasks: it rises before questions and
text show forgetting, since forgetting goes with it (Shenfeld et al. 2025, arXiv 2509.04259), and needs no test of old knowledge.

A model that passes is held. If it fails, practice rolls back to the held one and continues by `action`: unchanged (`rollback`; with other
random numbers, so on another path), at a lower learning rate, or with more replay. After `max_rollbacks` rollbacks, or at once with `stop`,
practice ends with the held model. The last step is measured too, so that the final model has passed.

Identity: a gate that always passes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from etude.errors import UserError, at_least
from etude.evaluation.report.panels import Panel
from etude.settings.unused import ANY, Read
from etude.training.callback import CONTINUE, Callback, Decision, Metrics

if TYPE_CHECKING:
    import torch

    from etude.training.practice_run import PracticeRun

MEASURES = ("choice_accuracy", "perplexity", "forward_kl")
"""Measures that the gate compares."""


@dataclass(frozen=True)
class GateSettings:
    """Gate against forgetting."""

    every: int
    """Steps between measurements; the last step always has one."""
    max_accuracy_drop: float = 0.02
    """Largest drop, as a share of the accuracy before practice, on the questions of retention.choices or, by default, the 80 that ship
    (0.02 is less than two of them)."""
    max_perplexity_rise: float = 0.02
    """Largest rise, as a share of the perplexity before practice. More sensitive than some hundred questions: a model at +9 % had lost 9 %
    of its knowledge of other questions, while the gate's questions showed nothing (`LOG.md`, 2026-11-27)."""
    max_divergence: float | None = None
    """Largest KL(start || now) on training tasks, in nats per answer; null = off. It depends on the task: measure it with the callback
    `divergence` in a run that is known to be sound."""
    divergence_n: int = 64
    """Training tasks whose initial answers, one each, measure that divergence."""
    action: Literal["stop", "rollback", "lower_lr", "raise_replay"] = "rollback"
    """After a rollback: `stop` = end practice; `rollback` = try again; `lower_lr` = at a lower learning rate; `raise_replay` = with more
    replay."""
    factor: float = 2.0
    """`lower_lr` divides the learning rate, `raise_replay` multiplies replay.ratio by this at every rollback; above 1."""
    max_rollbacks: int = 3
    """Most rollbacks after which practice continues; the next one ends it."""

    def __post_init__(self) -> None:
        at_least("gate.every", self.every, 1)
        at_least("gate.max_rollbacks", self.max_rollbacks, 0)
        if not 0 <= self.max_accuracy_drop < 1:
            raise UserError(
                f"gate.max_accuracy_drop must be in [0, 1), a share of the accuracy before practice, got {self.max_accuracy_drop}"
            )
        if self.max_perplexity_rise < 0:
            raise UserError(f"gate.max_perplexity_rise must be 0 or more, a share, got {self.max_perplexity_rise}")
        if self.max_divergence is not None and self.max_divergence <= 0:
            raise UserError(f"gate.max_divergence must be above 0, in nats an answer, or null, got {self.max_divergence}")
        at_least("gate.divergence_n", self.divergence_n, 1)
        if self.factor <= 1:
            raise UserError(f"gate.factor must be above 1, got {self.factor}")


def passes(settings: GateSettings, before: Mapping[str, Any], now: Mapping[str, Any]) -> bool:
    """Return whether the current measures are close enough to those before practice."""
    keeps_knowledge = (
        "choice_accuracy" not in before or now["choice_accuracy"] >= (1 - settings.max_accuracy_drop) * before["choice_accuracy"]
    )
    keeps_language = "perplexity" not in before or now["perplexity"] <= (1 + settings.max_perplexity_rise) * before["perplexity"]
    keeps_near = settings.max_divergence is None or now["forward_kl"] <= settings.max_divergence
    return bool(keeps_knowledge and keeps_language and keeps_near)


class Gate(Callback):
    """Measures at intervals, holds models that pass, and rolls back those that fail; its state is the number of rollbacks."""

    name, Settings, rolls_back = "gate", GateSettings, False
    reads = (
        Read(("factor",), "action", ("lower_lr", "raise_replay")),
        Read(("divergence_n",), "max_divergence", ANY),
        Read(("max_accuracy_drop", "max_perplexity_rise"), "retention.probe", (True,)),
        Read(("max_rollbacks",), "action", ("rollback", "lower_lr", "raise_replay")),
    )
    panels = (
        Panel(
            "General knowledge",
            "share of questions right",
            {"gate/choice_accuracy": "questions right"},
            is_zoomed=True,
            marks_rollbacks=True,
        ),
        Panel("General text", "perplexity", {"gate/perplexity": "perplexity"}, marks_rollbacks=True),
        Panel("Divergence from the initial model", "nats an answer", {"gate/forward_kl": "KL(start || now)"}, marks_rollbacks=True),
    )

    def __init__(self, settings: GateSettings) -> None:
        super().__init__(settings)
        self.falls = 0

    @property
    def every(self) -> int:
        return int(self.settings.every)

    @property
    def can_roll_back(self) -> bool:
        return True

    def check(self, settings: Mapping[str, Any]) -> None:
        if not settings["retention.probe"] and self.settings.max_divergence is None:
            raise UserError(
                "retention.probe is false and gate.max_divergence null, so that the gate has nothing to go by: set the probe to true, "
                "max_divergence to some nats an answer, or leave gate out"
            )
        if self.settings.action == "raise_replay" and "callbacks.replay.ratio" not in settings:
            raise UserError("gate.action raise_replay raises replay.ratio, and there is no replay: set replay.path and replay.ratio")

    def start(self, run: "PracticeRun") -> None:
        self.run = run
        run.fix_reference()
        self.before = run.row_before("retention") if run.probe else {}
        self.answers = run.once("gate_answers.json", self._answers) if self.settings.max_divergence is not None else []

    def _answers(self) -> list[list[dict[str, Any]]]:
        from etude.evaluation.divergence import answers_of_start
        from etude.rollouts.order import batch_at

        run, items = self.run, self.run.data.items
        prompts = [prompt for _, prompt in batch_at(1, items, min(self.settings.divergence_n, len(items)), run.seed, "gate")]
        return answers_of_start(run.engine, run.model, prompts, run.start_sampling(1, run.settings.rollout.max_new_tokens))

    def measure(self) -> dict[str, Any]:
        """Measure the current model."""
        from etude.evaluation.divergence import forward_divergence, from_rows

        now = self.run.known_row() if self.run.probe else {}
        if self.answers:
            now = now | forward_divergence(self.run.model, from_rows(self.answers), self.run.place.dtype, self.run.temperature)
        return now

    def decide(self, step: int, row: Mapping[str, Any], history: Sequence[Mapping[str, Any]], *, is_last: bool) -> tuple[Decision, Metrics]:
        if step % self.settings.every and not is_last:
            return CONTINUE, {}
        now = self.measure()
        has_passed = passes(self.settings, self.before, now)
        held = step if has_passed or self.run.held is None else self.run.held
        metrics: Metrics = {f"gate/{name}": now[name] for name in MEASURES if name in now}
        metrics |= {"gate/passed": int(has_passed), "gate/held": held}
        self.falls += not has_passed
        return Decision(stop=self.is_over, rollback=not has_passed, hold=has_passed), metrics

    @property
    def is_over(self) -> bool:
        """Whether practice ends."""
        return self.falls > (0 if self.settings.action == "stop" else self.settings.max_rollbacks)

    def on_rollback(self) -> None:
        self._apply()

    def _apply(self) -> None:
        how = self.settings
        self.run.learner.rate_factor = how.factor**-self.falls if how.action == "lower_lr" else 1.0
        self.run.replay_factor = how.factor**self.falls if how.action == "raise_replay" else 1.0

    def finish(self) -> dict[str, Any]:
        """Return `before`, every measurement, the number of rollbacks, and whether the gate ended practice."""
        seen = [row for row in self.run.history if "gate/passed" in row]
        return {
            "before": {name: self.before[name] for name in MEASURES if name in self.before},
            "measurements": [
                {"step": row["step"]}
                | {name: row[f"gate/{name}"] for name in MEASURES if f"gate/{name}" in row}
                | {"passed": bool(row["gate/passed"]), "held": row["gate/held"]}
                for row in seen
            ],
            "falls": sum(not row["gate/passed"] for row in seen),
            "ended_practice": self.is_over,
        }

    def sentence(self, found: Mapping[str, Any]) -> str:
        rollbacks = ", ".join(f"{row['step']} -> {row['held']}" for row in found["measurements"] if not row["passed"])
        checks, ended = len(found["measurements"]), "; practice ended" if found["ended_practice"] else ""
        return f"gate: {checks} check{'' if checks == 1 else 's'}, {f'rolled back {rollbacks}' if rollbacks else 'no rollback'}{ended}"

    def state_dict(self) -> "dict[str, torch.Tensor]":
        import torch

        return {"falls": torch.tensor(self.falls)}

    def load_state_dict(self, tensors: "Mapping[str, torch.Tensor]") -> None:
        self.falls = int(tensors["falls"])
        self._apply()
