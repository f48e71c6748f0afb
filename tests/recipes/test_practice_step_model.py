"""Practice with a step model: it learns beside the policy, values steps and searches, and is carried over a kill."""

import copy

import pytest
from run_outputs import SAME, assert_resumes, assert_same, attempts_of, practised

from etude.device.machine import Device, Machine
from etude.errors import UserError
from etude.models.load import load_model
from etude.models.save import save_model
from etude.training import step_model_files
from etude.training.step_model_files import load_step_model

STEPS = {"rollout.search.steps.end": "tokens", "rollout.search.steps.max_tokens": 1}
ON = STEPS | {"step_model": True}
KINDS = {
    "samples": {"learn.advantage": "vineppo", "step_model.hidden": 8, "step_model.replay_steps": 2},
    "believed": {"learn.advantage": "vineppo", "step_model.trust": 0.5, "step_model.targets": "hard"},
    "own": {"learn.advantage": "vineppo", "step_model.backbone": "own", "step_model.epochs": 2},
    "beam": {"rollout.search.method": "beam", "rollout.search.value": "step_model", "rollout.search.beams": 2, "rollout.search.width": 2},
    "mcts": {"rollout.search.method": "mcts", "rollout.search.value": "step_model", "rollout.search.to_end": False},
}


@pytest.fixture(scope="module", params=KINDS)
def with_step_model(request, small, tmp_path_factory):
    folder, options = tmp_path_factory.mktemp(request.param) / "run", ON | KINDS[request.param]
    small(folder, options)
    return folder, options


def test_a_step_model_learns_beside_the_policy_and_says_how_well_it_knew(with_step_model):
    folder, options = with_step_model
    rows = practised(folder)
    assert len(rows) == 4 and all(row["step_model/loss"] > 0 for row in rows)
    assert rows[0]["step_model/brier"] == rows[0]["step_model/brier_of_mean"] == pytest.approx(0.25)  # scores are 0 or 1, V is 1/2
    assert rows[-1]["step_model/loss"] < rows[0]["step_model/loss"]
    is_search = "rollout.search.method" in options
    assert [row.get("step_model/trust") for row in rows][:1] == [None if is_search else options.get("step_model.trust", 0.0)]
    assert all(row["step_model/auc"] is None or 0 <= row["step_model/auc"] <= 1 for row in rows)
    assert "Step model" in (folder / "report.html").read_text()


def test_a_run_that_was_killed_while_the_step_model_was_saved_resumes_to_the_same_bytes(with_step_model, small, tmp_path, killed):
    folder, options = with_step_model
    killing = killed(step_model_files, "save_step_model", lambda *_: True)
    assert_resumes(small, options, tmp_path, killing, folder, (*SAME, "model/step_model.safetensors"))


def test_where_the_advantage_does_not_ask_for_steps_the_policy_learns_as_without_a_step_model(small, finished, tmp_path):
    small(tmp_path / "run", ON)
    rows = [{name: value for name, value in row.items() if "step_model" not in name} for row in practised(tmp_path / "run")]
    assert rows == practised(finished)
    assert_same(tmp_path / "run", finished, ("attempts", "model/model.safetensors"))


def test_the_advantage_without_trust_is_that_of_the_scores_of_those_that_begin_alike(small, tmp_path):
    """By hand from what was kept: who begins as nobody else does has the advantage of the answer in every token, its score less the others'
    mean, and who says what all others say has none.
    """
    small(tmp_path / "run", ON | {"learn.advantage": "vineppo", "step_model.trust": 0})
    rows = attempts_of(tmp_path / "run")
    lone = []
    for start in range(0, len(rows), 4):
        for row in (group := rows[start : start + 4]):
            others = [each for each in group if each is not row]
            if all(each["text"][:1] != row["text"][:1] for each in others):
                lone.append(row["score"] - sum(each["score"] for each in others) / 3)
                assert row["advantage"] == pytest.approx(lone[-1])
            if all(each["text"] == row["text"] for each in others):
                assert row["advantage"] == 0
    assert any(lone)


@pytest.fixture
def smaller(tmp_path):
    """A folder with a model of half the width and one layer, which reads the same tokens."""
    model, tokenizer = load_model("tiny-random")
    config = copy.deepcopy(model.config)
    config.update({"num_hidden_layers": 1, "hidden_size": model.config.hidden_size // 2, "head_dim": 8})
    save_model(type(model)(config), tokenizer, tmp_path / "smaller")
    return tmp_path / "smaller"


def test_a_step_model_can_be_a_smaller_model(small, tmp_path, smaller):
    options = ON | {"learn.advantage": "vineppo", "step_model.backbone": "own", "step_model.model": str(smaller)}
    small(tmp_path / "run", options)
    rows = practised(tmp_path / "run")
    assert rows[-1]["step_model/loss"] < rows[0]["step_model/loss"]
    model, _ = load_model(str(tmp_path / "run" / "model"))
    found = load_step_model(str(tmp_path / "run" / "model"), model, Device("cpu", "float32"), Machine())
    assert found.backbone.config.num_hidden_layers == 1 and model.config.num_hidden_layers > 1


def test_a_step_model_that_reads_other_tokens_is_refused(small, tmp_path, smaller):
    path = smaller / "tokenizer.json"
    path.write_text(path.read_text().replace('"a":', '"another a":', 1))
    with pytest.raises(UserError, match=r"step_model\.model .*smaller has another tokenizer than model tiny-random"):
        small(tmp_path / "run", ON | {"step_model.backbone": "own", "step_model.model": str(smaller)})
