"""A study's verdict follows from its rows: those that are kept, changed so that every part of the claim holds, or that one does not."""

import importlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest

from experiments.measures import Verdict, with_ends
from experiments.pages import ROOT
from experiments.tables import Row
from studies import (
    diversity,
    exploration,
    importance,
    knows_says,
    long_context,
    number_sorting,
    order,
    practice_alone,
    practice_views,
    retention,
    retention_stress,
    searching,
    selection,
    self_training,
    step_values,
    word_problems,
)

Changes = Mapping[Any, Mapping[str, Any]]
"""By a row's id, or its id and set, the measures that it has otherwise."""


@dataclass(frozen=True)
class Claim:
    """How a study judges rows, and what makes its claim hold and not hold."""

    judge: Callable[[Sequence[Row]], Verdict] | None = None
    """None: as the study does."""
    holds: Changes = field(default_factory=dict)
    """With these changes to the kept rows it holds."""
    breaks: Sequence[Changes] = ()
    """With any of these beside them it does not."""
    opens: Sequence[Changes] = ()
    """With any of these beside them it is undecided."""
    lacks: str = ""
    """The id of a row without which it is undecided."""
    copies: Mapping[str, str] = field(default_factory=dict)
    """Rows that the kept ones lack, by the id of those that stand for them."""

    def verdict(self, name: str, *changes: Changes) -> Verdict:
        rows = json.loads((ROOT / "studies" / name / "result.json").read_text(encoding="utf8"))["rows"]
        rows += [{**row, "id": new} for new, old in self.copies.items() for row in rows if row["id"] == old]
        for each in changes:
            rows = [
                row | each.get(row["id"], {}) | each.get((row["id"], row["set"]), {}) for row in rows if each.get(row["id"], {}) is not None
            ]
        return (self.judge or importlib.import_module(f"studies.{name}").judge)(rows)


def rising(measure: str, by: float = 0.05) -> Changes:
    return {arm: {measure: [by * place, by * place + 0.01, by * place + 0.02]} for place, arm in enumerate(diversity.ARMS)}


def all_of(arms: Sequence[str], measures: Mapping[str, Any]) -> dict[Any, Mapping[str, Any]]:
    return dict.fromkeys(arms, measures)


def joined(*changes: Changes) -> Changes:
    found: dict[Any, dict[str, Any]] = {}
    for each in changes:
        for arm, measures in each.items():
            found[arm] = found.get(arm, {}) | dict(measures)
    return found


def each_seed(name: str, *values: float) -> dict[str, list[float]]:
    """Return the differences of three seeds."""
    return {f"{name}_each_seed": list(values if len(values) > 1 else values * 3)}


AHEAD, BEHIND = each_seed("practice_ahead", 0.1, 0.2, 0.1), each_seed("practice_ahead", -0.1, -0.2, -0.1)
PRACTISED = each_seed("gain", 0.2, 0.3, 0.25) | {"gain_p": 1e-9}
SOUND = {
    "above_each_seed": [1.1] * 3,
    "gain_share": 1.0,
    "kept_each_seed": [0.99] * 3,
    "gain_each_seed": [0.3] * 3,
    "stopped_each_seed": [True] * 3,
}
FOLLOWS = {"kl_correlation_each_seed": [0.6, 0.5, 0.7]}
FOLLOWS_NOT = {"start": {"kl_correlation_each_seed": [-0.6] * 3}}
MORE, LESS = {"gain_each_seed": [0.3, 0.4, 0.3]}, {"gain_each_seed": [0.3, 0.2, 0.3]}
DEARER, NO_DEARER = ({"above_rl_each_seed": [sign * 0.1, sign * 0.11, sign * 0.1, sign * 0.12, sign * 0.1]} for sign in (1, -1))
SETS = [row["set"] for row in json.loads((ROOT / "studies/long_context/result.json").read_text())["rows"] if row["id"] == "full"]
CLAIMS = {
    "number_sorting": Claim(
        lambda rows: number_sorting.judge(rows, 3),
        {
            "practice": PRACTISED,
            "random_reward": each_seed("gain", -0.1) | AHEAD,
            "longer_warm_start": AHEAD,
            "imitation": BEHIND,
        },
        [
            *({"practice": part} for part in (each_seed("gain", 0.09, 0.3, 0.4), {"gain_p": 1e-2})),
            {"random_reward": each_seed("gain", 0.2)},
            {"random_reward": BEHIND},
            {"longer_warm_start": BEHIND},
        ],
        [
            {"practice": {"seeds": 2}},
            {"practice": each_seed("gain", 0.16, 0.2, 0.2)},  # 15 and more, but not by 8 points
            {"longer_warm_start": each_seed("practice_ahead", 0.3, 0.2, -0.01)},  # seeds disagree
        ],
        lacks="imitation",
    ),
    "word_problems": Claim(
        lambda rows: word_problems.judge(rows, 3),
        {
            "practice": {"gain_each_seed": [0.1, 0.09, 0.08], "gain_p": 1e-4},
            "imitation": {"seeds": 3},
            **all_of(("random_reward", "longer_warm_start"), {"practice_ahead_each_seed": [0.1, 0.09, 0.08]}),
        },
        [
            {("practice", "SVAMP_dev"): {"gain_p": 0.02}},
            {"practice": {"gain_each_seed": [-0.1, -0.09, -0.08]}},
            {("longer_warm_start", "test"): {"practice_ahead_each_seed": [-0.1, -0.09, -0.08]}},
        ],
        [
            {("practice", "SVAMP_dev"): {"gain_each_seed": [0.1, 0.09, 0.01]}},  # all gain, but by less than 8 points
            {"random_reward": {"practice_ahead_each_seed": [0.3, 0.2, -0.01]}},
        ],
        lacks="imitation",
        copies={"longer_warm_start": "random_reward"},
    ),
    "exploration": Claim(
        lambda rows: exploration.judge([row for row in rows if not row["set"].startswith("screen")]),
        {
            "policy_gradient": {"sampled_tokens": 100},
            **all_of(exploration.BEST[1:], each_seed("policy_gradient_ahead", 0.1) | {"sampled_tokens": 100}),
            "raft": each_seed("policy_gradient_ahead", 0.1) | {"sampled_tokens": 104},
            **{("raft", name): each_seed("policy_gradient_ahead", -0.1) for name in ("test", "SVAMP_dev")},
        },
        [{("raft", "test"): each_seed("policy_gradient_ahead", 0.1)}, {"raft": {"sampled_tokens": 106}}],
        [{("raft", "test"): each_seed("policy_gradient_ahead", -0.01)}, {"policy_gradient": {"seeds": 2}}],
        lacks="raft",
        copies=dict.fromkeys(exploration.BEST[1:], "raft"),
    ),
    "diversity": Claim(
        holds=joined(*map(rising, ("distinct_forms_each_seed", "final_pass_each_seed", "accuracy_each_seed"))),
        breaks=[rising("accuracy_each_seed", -0.05)],
        opens=[all_of(tuple(diversity.ARMS), {"final_pass_each_seed": [0.5] * 3})],
        lacks="novelty",
    ),
    "practice_alone": Claim(
        lambda rows: practice_alone.judge(rows, [("gold", 41), ("agreement_rate", 41)]),
        {"gold": each_seed("gain", 0.3), "agreement_rate": each_seed("gain", 0.28)},
        [{("agreement_rate", "test"): each_seed("gain", 0.01)}, {"gold": each_seed("gain", -0.3)}],
        [{("agreement_rate", "test"): each_seed("gain", 0.2)}],  # more than half, but not by 8 points
        lacks="agreement_rate",
    ),
    "practice_views": Claim(
        lambda rows: practice_views.judge([row for row in rows if row["set"] == practice_views.NEEDLES]),
        {"kvzip_half": each_seed("full_ahead", -0.1)},
        [
            {"kvzip_half": each_seed("full_ahead", 0.2)},
            {"kvzip_half": {"context_share": 0.7}},
            {"random_half": each_seed("full_ahead", -0.3)},
        ],
        [{"kvzip_half": each_seed("full_ahead", 0.0)}],
        lacks="tova_half",
    ),
    "long_thought": Claim(
        holds={"practice_free": each_seed("slope_gain", 0.1) | each_seed("random_reward_behind", 0.1)},
        breaks=[{"practice_free": each_seed(measure, -0.1)} for measure in ("slope_gain", "random_reward_behind")],
        opens=[{"practice_free": {"seeds": 2}}, {"practice_free": each_seed("slope_gain", 0.066, 0.053, 0.027)}],
        lacks="random_reward_free",
    ),
    "retention": Claim(
        lambda rows: retention.judge(rows, 3),
        joined(
            all_of(retention.ARMS, SOUND),
            {"start": FOLLOWS, "sft": DEARER, "harmful_gate": {"kept_each_seed": [0.99, 0.97, 0.99]}},
        ),
        [
            all_of(retention.ARMS, {"above_each_seed": [0.8] * 3}),
            FOLLOWS_NOT,
            {"sft": NO_DEARER},
            {"sft": MORE, **FOLLOWS_NOT},
            {"sft": MORE | NO_DEARER},
            {"harmful_gate_kl": {"stopped_each_seed": [True, False, True]}},
        ],
        [
            all_of(retention.ARMS, {"above_each_seed": [1.0] * 3}),
            {"sft": {"above_rl_each_seed": [0.1] * 3}},
            {"start": {"kl_correlation_each_seed": [0.6, 0.5, -0.1]}},
            {"sft": MORE},
            {"sft": LESS | NO_DEARER},
            {"rl": {"seeds": 2}},
        ],
        lacks="rl_lora",
    ),
    "step_values": Claim(
        step_values.judge_claim,
        {},
        [{"rollouts_9": with_ends("ordered_within", 0.3, (0.2, 0.4))}],
        [{"rollouts_9": with_ends("ordered_within", 0.8, (0.6, 1.0))}],
    ),
    "searching": Claim(
        holds={"weighted_8": with_ends("accuracy", 0.99, (0.98, 1.0))},
        breaks=[all_of(tuple(searching.CASES), with_ends("accuracy", 0.5, (0.48, 0.52)))],
        opens=[{"weighted_8": {"accuracy_low": 0.1}}, {"weighted_8": {"tokens": 1e6}}],
        lacks="mcts_2",
    ),
    "layers": Claim(
        holds={"dynamic_low": {"gain_low": 0.01, "control_behind_low": 0.01}},
        breaks=[{"dynamic_low": {"control_behind_low": -0.01}}, {"dynamic_low": {"gain_low": -0.01}}],
        lacks="plain",
    ),
    "selection": Claim(
        holds={"classifier": {"recall_low": 0.92}, **all_of(selection.ARMS[1:], {"classifier_ahead_low": 0.01})},
        breaks=[{"classifier": {"recall_low": 0.89}}, {"importance": {"classifier_ahead_low": -0.01}}],
        lacks="random",
    ),
    "knows_says": Claim(
        holds={claimed: {"said_gain_low": 0.01} for claimed in knows_says.CLAIMED},
        breaks=[{claimed: {"said_gain_low": -0.01}} for claimed in knows_says.CLAIMED],
        lacks="joined",
    ),
    "self_training": Claim(
        lambda rows: self_training.judge(rows, self_training.ARMS),
        {"joined": each_seed("gain", 0.1) | each_seed("single_behind", 0.1)},
        [{"joined": each_seed("gain", -0.1)}, {"joined": each_seed("single_behind", -0.1)}],
        [{"single": {"seeds": 2}}, {"joined": each_seed("gain", 0.05)}],
        lacks="gold",
    ),
    "importance": Claim(
        lambda rows: importance.judge(rows, importance.ASKED_KINDS),
        all_of(importance.SCORES, with_ends("best_ahead", 0.2, (0.1, 0.3))) | {"hindsight": with_ends("best_ahead", -0.2, (-0.3, -0.1))},
        [{"h2o": with_ends("best_ahead", 0.05, (-0.05, 0.15))}],
    ),
    "order": Claim(
        holds={
            order.BASELINE: each_seed("choices_gain", 0.2) | each_seed("far_gain", 0.1),
            **all_of(order.ORDERS[1:], each_seed(f"{order.BASELINE}_ahead", 0.1)),
        },
        breaks=[
            {order.BASELINE: each_seed("choices_gain", -0.1)},
            {order.BASELINE: each_seed("far_gain", -0.1)},
            {"mixed": each_seed(f"{order.BASELINE}_ahead", -0.1)},
        ],
        opens=[{order.BASELINE: each_seed("choices_gain", 0.07)}, {"mixed": each_seed(f"{order.BASELINE}_ahead", 0.01)}],
        lacks="mixed",
    ),
    "long_context": Claim(
        lambda rows: long_context.judge(rows, SETS),
        {
            "passing": {"loss_low": -0.01},
            "kvpress_snapkv": {"loss_low": -0.01},  # no policy of ours
        },
        [
            {"passing": {"loss_low": -0.025}},  # where a loss of 2 points is not excluded, whatever the mean
            {"passing": {"held": 0.11}},
            {"snapkv": {"loss_low": -0.01}},
        ],
        [{"passing": {"n": 50}}],
        lacks="h2o",
    ),
}


def cases(kind: str) -> list[Any]:
    return [(name, changes) for name, claim in CLAIMS.items() for changes in getattr(claim, kind)]


@pytest.mark.parametrize("name", CLAIMS)
def test_a_claim_holds_where_each_of_its_parts_does(name):
    claim = CLAIMS[name]
    assert claim.verdict(name, claim.holds)[0] == "holds"


@pytest.mark.parametrize(("name", "changes"), cases("breaks"))
def test_a_claim_does_not_hold_where_one_of_its_parts_does_not(name, changes):
    verdict, because = CLAIMS[name].verdict(name, CLAIMS[name].holds, changes)
    assert verdict == "does not hold" and because


@pytest.mark.parametrize(("name", "changes"), cases("opens"))
def test_a_claim_is_undecided_where_a_part_of_it_can_not_be_judged(name, changes):
    assert CLAIMS[name].verdict(name, CLAIMS[name].holds, changes)[0] == "undecided"


@pytest.mark.parametrize("name", [name for name, claim in CLAIMS.items() if claim.lacks])
def test_a_claim_is_undecided_as_long_as_an_arm_is_missing(name):
    verdict, because = CLAIMS[name].verdict(name, CLAIMS[name].holds, {CLAIMS[name].lacks: None})
    assert verdict == "undecided" and "not all cells are there" in because


def test_importance_is_judged_when_every_kind_was_asked():
    claim = CLAIMS["importance"]
    judged = Claim(lambda rows: importance.judge(rows, (*importance.ASKED_KINDS, "facts")))
    assert judged.verdict("importance", claim.holds)[0] == "undecided"


def test_stress_is_judged_by_runs_and_an_unequal_gain_leaves_demonstrations_undecided():
    def rows(**changes: dict[str, Sequence[float]]) -> list[Row]:
        spread = [-0.01, 0.0, 0.01, 0.0, 0.0]
        own = {arm: {"known": 0.98, "kept": 0.94, "gain": 0.3} | changes.get(arm, {}) for arm in retention_stress.ARMS}
        return [
            {"id": arm, "seeds": 5} | {f"{name}_each_seed": [middle + one for one in spread] for name, middle in measures.items()}
            for arm, measures in own.items()
        ]

    sound = {"sft": {"kept": 0.90}, "rl_500_kl": {"kept": 0.97, "gain": 0.31}}
    assert retention_stress.judge(rows(**sound))[0] == "holds"
    assert retention_stress.judge(rows(**sound, two_tasks={"kept": 0.8}))[0] == "does not hold"
    assert retention_stress.judge(rows(**sound | {"rl_500_kl": {"kept": 0.97, "gain": 0.2}}))[0] == "does not hold"
    assert retention_stress.judge(rows(**sound | {"sft": {"kept": 0.90, "gain": 0.4}}))[0] == "undecided"
    verdict, because = retention_stress.judge(rows(**sound)[1:])
    assert verdict == "undecided" and "not all cells are there" in because
