"""The report's chart panels: which metrics each shows."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Panel:
    """A chart panel: its title, metrics and unit ("" without one)."""

    title: str
    unit: str
    measures: Mapping[str, str]
    """Key in `metrics.jsonl` or `timings.jsonl`, or of `curves.with_derived` -> its name in the legend; the second curve is dashed."""
    is_zoomed: bool = False
    """Let the axis of a share end a little above its largest value: for shares that are small if all is well."""

    marks_falls: bool = False
    """Mark the steps after which the gate rolled practice back."""

    @property
    def is_share(self) -> bool:
        return self.unit.startswith("share")


PANELS = (
    Panel("Mean reward", "of sampled attempts", {"score": "mean reward"}),
    Panel("Correct attempts", "share", {"pass_at_1": "attempts that are right", "pass_at_group": "groups with a right attempt"}),
    Panel("Refinement", "share", {"score_first": "mean reward of first turns", "corrected": "wrong first answers that were corrected"}),
    Panel("Entropy", "nats per token", {"entropy": "entropy"}),
    Panel("Diversity", "share of a group's attempts", {"distinct_answers": "different answers", "distinct_forms": "different forms"}),
    Panel("pass@k", "share of groups", {f"pass_at_{k}": f"k = {k}" for k in (1, 2, 4, 8, 16, 32)}),
    Panel(
        "Agreement",
        "share",
        {"vote_share": "attempts at a task with its majority answer", "constant_share": "tasks with the most frequent majority answer"},
    ),
    Panel(
        "Pseudo-labels",
        "tasks of a step",
        {"own_answers": "answered from several attempts", "own_answers_abstained": "left out for low agreement"},
    ),
    Panel(
        "Synthetic tasks",
        "tasks of a step",
        {"made": "written", "made_valid": "valid", "made_rewarded": "neither too hard nor too easy"},
    ),
    Panel(
        "Curriculum",
        "share of the visited tasks",
        {"pool_hard": "hard: right in a quarter at most", "pool_medium": "medium", "pool_easy": "easy: right in over three quarters"},
    ),
    Panel("Level", "of difficulty", {"level": "level"}),
    Panel("Completion length", "tokens", {"completion_tokens": "tokens"}),
    Panel("KV cache", "MiB", {"context_mib": "peak of a batch under its policy"}),
    Panel(
        "Groups with zero advantage", "share of groups", {"groups_without_signal_share": "groups whose attempts all have the same reward"}
    ),
    Panel("Parsable", "share of sampled attempts", {"parsable": "an answer of the expected form was found"}),
    Panel("Truncated", "share of sampled attempts", {"truncated": "cut off at the length limit"}),
    Panel("Length control", "share of sampled attempts", {"penalised": "reward lowered for length", "masked": "truncated and left out"}),
    Panel("Clipped", "share of completion tokens", {"clip_share": "tokens whose ratio is clipped"}, is_zoomed=True),
    Panel("Loss", "", {"loss": "loss"}),
    Panel("Gradient norm", "", {"gradient_norm": "norm before clipping"}),
    Panel(
        "Step model",
        "share of pairs of attempts ordered correctly",
        {"step_model_auc_within": "at one task", "step_model_auc": "of all tasks"},
    ),
    Panel("General knowledge", "share of questions right", {"old_choice_accuracy": "questions right"}, is_zoomed=True, marks_falls=True),
    Panel("General text", "perplexity", {"old_perplexity": "perplexity"}, marks_falls=True),
    Panel("Divergence from the initial model", "nats an answer", {"forward_kl": "KL(start || now)"}, marks_falls=True),
    Panel("Replay", "nats per token", {"replay_nats": "replayed tokens"}),
    Panel("Speed", "tokens per second", {"tokens_per_second": "tokens per second"}),
)
