"""An adaptation, then practice on what it taught, in one run."""

import pytest
import yaml
from run_outputs import Listening, Stops

from etude.cli import main
from etude.errors import UserError
from etude.recipes.practice import practice
from etude.training.interruption import Interrupted
from etude.training.run_folder import RunFolder

SOURCE = {"path": ["questions.jsonl"], "split_by": "section", "columns": {"question": "q", "choices": "options", "answer": "a"}}
ADAPTATION = {
    "command": "adapt",
    "corpus": {"path": ["pages.jsonl"]},
    "selection": {"method": "all", "workers": 0},
    "tasks": SOURCE,
    "study": {"tokens": 1500, "tasks_share": 0.2, "replay_share": 0, "window_tokens": 64, "tokens_per_step": 400},
    "suite": {
        "questions": ["questions.jsonl"],
        "split_by": "section",
        "columns": SOURCE["columns"],
        "text_tokens": 200,
        "window_tokens": 64,
    },
    "save_steps": 1,
}
PRACTICE = {
    "command": "practice",
    "model": "tiny-random",
    "tasks": SOURCE | {"worked_format": "{choice}"},
    "warm_start": {"n": 8, "steps": 2},
    "steps": 2,
    "rollout": {"tasks_per_step": 3, "num_samples": 4, "max_new_tokens": 8},
    "evaluation": {"n": 4, "num_samples": 2, "pass_n": 2},
    "machine": {"dtype": "float32"},
}


@pytest.fixture
def recipe(towns):
    """The two halves as YAML files; the second names the first."""
    (towns / "towns.yaml").write_text(yaml.safe_dump(ADAPTATION))
    (towns / "whole.yaml").write_text(yaml.safe_dump(PRACTICE | {"adaptation": str(towns / "towns.yaml")}))
    return towns / "whole.yaml"


def test_one_recipe_runs_knowledge_warm_start_practice_and_evaluation(recipe, towns, tmp_path):
    result = practice(str(recipe), run=tmp_path / "run", data=towns)
    knowledge = RunFolder(tmp_path / "run/knowledge").read_json("result.json")
    assert result["status"] == knowledge["status"] == "finished"
    alone = practice(str(recipe), {"adaptation": None, "model": str(tmp_path / "run/knowledge/model")}, run=tmp_path / "alone", data=towns)
    assert result["evaluation"] == alone["evaluation"]
    files = [(tmp_path / name / "model/model.safetensors").read_bytes() for name in ("run", "alone", "run/knowledge")]
    assert files[0] == files[1] != files[2]
    (tmp_path / "run/report.html").unlink()  # as if killed before it was written
    practice(str(recipe), run=tmp_path / "run", data=towns, resume=True)
    page = (tmp_path / "run/report.html").read_text()
    assert "Domain and general knowledge, before and after" in page and "warm start" in page


def test_the_adaptation_has_practices_model_seed_and_machine_and_the_settings_that_it_is_given(recipe, towns, tmp_path):
    changes = {"seed": 3, "adaptation_settings": {"study.order": "knowledge_only", "study.tokens": 700}}
    changes |= {"machine.max_tokens_per_microbatch": 512}
    practice(str(recipe), changes, run=tmp_path / "run", data=towns)
    kept = yaml.safe_load((tmp_path / "run/knowledge/configuration.yaml").read_text())
    assert (kept["seed"], kept["model"], kept["study"]["order"], kept["study"]["tokens"]) == (3, "tiny-random", "knowledge_only", 700)
    assert kept["machine"]["max_tokens_per_microbatch"] == 512


def test_who_is_stopped_while_it_adapts_goes_on_there(recipe, towns, tmp_path):
    whole = practice(str(recipe), run=tmp_path / "whole", data=towns)

    with pytest.raises(Interrupted):
        practice(str(recipe), run=tmp_path / "run", data=towns, reporter=Stops("knowledge", 2))
    listening = Listening()
    assert practice(str(recipe), run=tmp_path / "run", data=towns, resume=True, reporter=listening) == whole
    assert any(line.startswith("knowledge: going on from step ") for line in listening.said)


def test_it_goes_on_on_another_machine_but_not_with_other_settings_of_the_adaptation(recipe, towns, tmp_path):
    with pytest.raises(Interrupted) as stop:
        practice(str(recipe), run=tmp_path / "run", data=towns, reporter=Stops("warm_start", 1))
    assert stop.value.note.count("--resume") == 1
    kept = (towns / "towns.yaml").read_text()
    (towns / "towns.yaml").write_text(kept.replace("tokens: 1500", "tokens: 1600"))
    with pytest.raises(UserError, match=r"was started with study.tokens = 1500, now it is 1600"):
        practice(str(recipe), run=tmp_path / "run", data=towns, resume=True)
    (towns / "towns.yaml").write_text(kept)
    practice(str(recipe), {"machine.max_tokens_per_microbatch": 512}, run=tmp_path / "run", data=towns, resume=True)
    assert RunFolder(tmp_path / "run").read_json("result.json")["status"] == "finished"


def test_a_file_of_the_adaptation_that_is_missing_leaves_no_folder(recipe, towns, tmp_path):
    (towns / "towns.yaml").write_text(yaml.safe_dump(ADAPTATION | {"corpus": {"path": ["pagez.jsonl"]}}))
    with pytest.raises(UserError, match=r"pagez.jsonl"):
        practice(str(recipe), run=tmp_path / "run", data=towns)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"adaptation": "anatom"}, "unknown adapt configuration 'anatom': did you mean 'anatomy'"),
        ({"adaptation_settings": {"study.tokenz": 3}}, "study.tokenz"),
        ({"adaptation_settings": {"model": "x"}}, "adaptation_settings.model is practice's own: set model there"),
        ({"adaptation": None, "adaptation_settings": {"study.tokens": 3}}, "adaptation_settings are set, but adaptation is not"),
    ],
)
def test_settings_that_cannot_be_are_named_before_a_folder_is_made(changes, sentence, recipe, towns, tmp_path):
    with pytest.raises(UserError, match=sentence):
        practice(str(recipe), changes, run=tmp_path / "run", data=towns)
    assert not (tmp_path / "run").exists()


def test_a_dry_run_adapts_nothing_and_says_so(recipe, towns, capsys):
    assert main(["practice", str(recipe), "--data", str(towns), "--dry-run"]) == 0
    assert "the time of the adaptation aside" in (said := capsys.readouterr().out) and "knowledge:" not in said
