"""Practice that learns from pairs of its own attempts."""

import itertools
import json

import pytest
from run_outputs import assert_resumes, practised

from etude.files import read_jsonl
from etude.learn.preference import Preferring
from etude.recipes.practice import practice
from etude.tiny import letters

PREFER = {"learn.method": "preference", "learn.preference.pairs_per_task": 4, "learn.epochs": 2, "learn.optimizer.learning_rate": 3e-4}
WAYS = {
    "dpo, refreshed": {"learn.preference.ref_model_sync_steps": 2},
    "dpo, adapters": {"learn.lora.rank": 4, "reward": "random", "rollout.num_samples": 8, "learn.preference.ref_model_sync_steps": 2},
    "kto, matched": {"learn.preference.loss": "kto", "learn.minibatches_per_epoch": 2, "learn.preference.pairs": "length_matched"},
    "steps of trees": {
        "learn.preference.pairs": "step",
        "rollout.search.method": "mcts",
        "rollout.search.steps.end": "tokens",
        "rollout.search.steps.max_tokens": 1,
    },
}


@pytest.mark.parametrize("way", WAYS)
def test_it_learns_from_pairs_and_a_killed_run_resumes_to_the_same_bytes(small, tmp_path, killed_behind_step_3, way):
    options = PREFER | WAYS[way]
    assert_resumes(small, options | {"save_steps": 3}, tmp_path, killed_behind_step_3)
    rows = practised(tmp_path / "whole")
    learned = [row for row in rows if row["pairs"]]
    assert len(learned) >= 2 and all(row["preference_loss"] >= 0 and row["gradient_norm"] > 0 for row in learned)
    assert not any("likelihood_loss" in row or "policy_loss" in row for row in rows)


def test_practice_by_preference_raises_the_accuracy(tmp_path):
    options = PREFER | {"learn.preference.pairs_per_task": 8, "learn.preference.ref_model_sync_steps": 5}
    result = practice("tiny", options | {"machine.dtype": "float32"}, run=tmp_path / "run")  # in half it hangs on rounding
    (pair,) = [pair for pair in result["paired"] if (pair["first"], pair["second"]) == ("warm_start", "practice")]
    assert pair["difference"] > 0.1 and pair["p_value"] < 1e-3


def test_answers_that_somebody_compared_are_learned_from_before_practice(small, tmp_path, killed):
    """Right ones are preferred to ones that repeat another letter."""
    compared = []
    for row in letters("comparisons", 80, seed=1):
        wrong = row["answer"].translate(str.maketrans("abcdefghij", "bcdefghija"))
        compared.append({"prompt": row["question"], "chosen": row.get("worked", row["answer"]), "rejected": wrong})
    path = tmp_path / "compared.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in compared))
    options = {"preferences.path": [str(path)], "preferences.steps": 6, "preferences.optimizer.learning_rate": 1e-3}
    result = small(tmp_path / "whole", options)
    rows = [row for row in read_jsonl(tmp_path / "whole" / "metrics.jsonl") if row["phase"] == "preference"]
    assert len(rows) == 6 and rows[0]["preference_loss"] > rows[-1]["preference_loss"]
    assert rows[0]["preference_loss"] == pytest.approx(0.6931, abs=1e-3)
    assert [row["model"] for row in result["evaluation"]] == ["base", "warm_start", "preference", "practice"]
    assert result["tasks"]["comparisons"] == 80
    assert "Preference" in (tmp_path / "whole" / "report.html").read_text()
    calls = itertools.count(1)
    assert_resumes(small, options, tmp_path, killed(Preferring, "update", lambda *_: next(calls) == 6), tmp_path / "whole")
