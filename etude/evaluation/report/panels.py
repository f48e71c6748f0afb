"""The report's chart panels with their metrics. Those of callbacks are in the run folder's `panels.json`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Panel:
    """A chart panel: its title, metrics and unit ("" without one, which the page says)."""

    title: str
    unit: str
    measures: Mapping[str, str]
    """Key in `metrics.jsonl` or `timings.jsonl`, or of `curves.with_derived` -> its name in the legend; the second curve is dashed."""
    is_zoomed: bool = False
    """Whether the axis of a share ends slightly above its largest value: for shares that are normally small."""

    marks_rollbacks: bool = False
    """Whether steps with a rollback, after a failed check, are marked."""

    @property
    def is_share(self) -> bool:
        return self.unit.startswith("share")


PANELS = (
    Panel("Mean reward", "points per sampled attempt", {"score": "mean reward"}),
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
    Panel("Completion length", "tokens", {"completion_tokens": "tokens"}),
    Panel("KV cache", "MiB", {"context_mib": "peak of a batch under its policy"}),
    Panel(
        "Groups with zero advantage", "share of groups", {"groups_without_signal_share": "groups whose attempts all have the same reward"}
    ),
    Panel("Parsable", "share of sampled attempts", {"parsable": "an answer of the expected form was found"}),
    Panel("Truncated", "share of sampled attempts", {"truncated": "cut off at the length limit"}),
    Panel("Clipped", "share of completion tokens", {"clip_share": "tokens whose ratio is clipped"}, is_zoomed=True),
    Panel(
        "Divergence",
        "nats per token",
        {"kl_behaviour": "from the policy that sampled", "kl_reference": "from the reference model"},
    ),
    Panel("Loss", "value of the objective", {"loss": "loss"}),
    Panel("Gradient norm", "L2 norm before clipping", {"gradient_norm": "norm before clipping"}),
    Panel("Learning rate", "per optimiser step", {"learning_rate": "learning rate"}),
    Panel("Tokens sampled", "tokens since the first step", {"tokens_so_far": "tokens sampled"}),
    Panel("Time", "minutes of sampling, feedback and learning", {"minutes_so_far": "minutes since the first step"}),
    Panel("Speed", "tokens per second", {"tokens_per_second": "tokens per second"}),
)


def panels_of(rows: Sequence[Mapping[str, Any]]) -> tuple[Panel, ...]:
    """Convert a file's rows to panels, without invalid ones."""
    return tuple(
        Panel(
            str(row.get("title")),
            str(row.get("unit")),
            {name: str(words) for name, words in row["measures"].items()},
            is_zoomed=row.get("is_zoomed") is True,
            marks_rollbacks=row.get("marks_rollbacks") is True,
        )
        for row in rows
        if isinstance(row.get("measures"), Mapping)
    )
