"""Practice with a step model: it learns beside the policy, values steps and searches, and is carried over a kill."""

import copy
import gzip
import json

import pytest

from etude.device.machine import Device, Machine
from etude.errors import UserError
from etude.files import read_jsonl
from etude.models.load import load_model
from etude.models.save import save_model
from etude.settings.configuration import find_configuration
from etude.training import step_model_files
from etude.training.parse import parse_practice
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
SAME = ("metrics.jsonl", "model/model.safetensors", "model/step_model.safetensors")


@pytest.fixture(scope="module", params=KINDS)
def practised(request, small, tmp_path_factory):
    folder, options = tmp_path_factory.mktemp(request.param) / "run", ON | KINDS[request.param]
    small(folder, options)
    return folder, options


def test_a_step_model_learns_beside_the_policy_and_says_how_well_it_knew(practised):
    folder, options = practised
    rows = rows_of(folder)
    assert len(rows) == 4 and all(row["step_model/loss"] > 0 for row in rows)
    assert rows[0]["step_model/brier"] == rows[0]["step_model/brier_of_mean"] == pytest.approx(0.25)  # scores are 0 or 1, V is 1/2
    assert rows[-1]["step_model/loss"] < rows[0]["step_model/loss"]
    is_search = "rollout.search.method" in options
    assert [row.get("step_model/trust") for row in rows][:1] == [None if is_search else options.get("step_model.trust", 0.0)]
    assert all(row["step_model/auc"] is None or 0 <= row["step_model/auc"] <= 1 for row in rows)


def test_a_run_that_was_killed_while_the_step_model_was_saved_resumes_to_the_same_bytes(practised, small, tmp_path, killed):
    folder, options = practised
    with killed(step_model_files, "save_step_model", lambda *_: True):
        small(tmp_path / "run", options)
    small(tmp_path / "run", options, resume=True)
    assert all((tmp_path / "run" / name).read_bytes() == (folder / name).read_bytes() for name in SAME)
    assert attempts_of(tmp_path / "run") == attempts_of(folder)


def test_where_the_advantage_does_not_ask_for_steps_the_policy_learns_as_without_a_step_model(small, finished, tmp_path):
    small(tmp_path / "run", ON)
    rows = [{name: value for name, value in row.items() if "step_model" not in name} for row in rows_of(tmp_path / "run")]
    assert rows == rows_of(finished) and attempts_of(tmp_path / "run") == attempts_of(finished)
    assert (tmp_path / "run/model/model.safetensors").read_bytes() == (finished / "model/model.safetensors").read_bytes()


def test_the_advantage_without_trust_is_that_of_the_scores_of_those_that_begin_alike(small, tmp_path):
    """By hand from what was kept: who begins as nobody else does has the advantage of the answer in every token, its score less the others'
    mean, and who says what all others say has none.
    """
    small(tmp_path / "run", ON | {"learn.advantage": "vineppo", "step_model.trust": 0})
    rows = [json.loads(line) for content in attempts_of(tmp_path / "run").values() for line in content.splitlines()]
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


def test_attempts_and_values_are_drawn_in_the_report(practised):
    assert "Step model" in (practised[0] / "report.html").read_text()


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
    rows = rows_of(tmp_path / "run")
    assert rows[-1]["step_model/loss"] < rows[0]["step_model/loss"]
    model, _ = load_model(str(tmp_path / "run" / "model"))
    found = load_step_model(str(tmp_path / "run" / "model"), model, Device("cpu", "float32"), Machine())
    assert found.backbone.config.num_hidden_layers == 1 and model.config.num_hidden_layers > 1


def test_a_step_model_that_reads_other_tokens_is_refused(small, tmp_path, smaller):
    path = smaller / "tokenizer.json"
    path.write_text(path.read_text().replace('"a":', '"another a":', 1))
    with pytest.raises(UserError, match=r"step_model\.model .*smaller has another tokenizer than model tiny-random"):
        small(tmp_path / "run", ON | {"step_model.backbone": "own", "step_model.model": str(smaller)})
