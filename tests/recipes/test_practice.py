"""Practice runs as a whole: they learn, they are the same twice, and a run that was killed ends like one that was not."""

import json
import os
import shutil
import signal
from pathlib import Path

import pytest
import torch
from run_outputs import SAME, Listening, assert_resumes, assert_same, attempts_of, practised
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from etude.cli import main
from etude.console.reporter import Console, Silent
from etude.errors import UserError
from etude.files import read_jsonl
from etude.recipes.practice import Loop, practice
from etude.rollouts.samples import sample_groups
from etude.settings.arguments import arguments_from
from etude.settings.configuration import find_configuration
from etude.tasks.sources import TaskSource
from etude.training.data import load_data
from etude.training.parse import parse_practice
from etude.training.settings import PracticeSettings


class Killed(BaseException):
    """Not an Exception, so that nothing catches it."""


class Kill(Silent):
    """Stops the run at a step, or when a model is about to be measured."""

    def __init__(self, phase: str, step: int) -> None:
        self.where = (phase, step)

    def step(self, phase, step, metrics, timings):
        if (phase, step) == self.where:
            raise Killed

    def measuring(self, model, suite, n):
        if (model, 0) == self.where:
            raise Killed


def rows_of(result: dict) -> dict[str, dict]:
    return {row["model"]: row for row in result["evaluation"]}


# ---------------------------------------------------------------------- learning


@pytest.fixture(scope="module")
def tiny(tmp_path_factory) -> Path:
    """`etude practice tiny`, as a user would type it."""
    folder = tmp_path_factory.mktemp("tiny") / "run"
    assert main(["practice", "tiny", "--run", str(folder), "--machine.dtype", "float32", "--evaluation.pass_n", "50"]) == 0
    return folder


def test_practice_raises_the_accuracy(tiny):
    result = json.loads((tiny / "result.json").read_text())
    rows = rows_of(result)
    assert rows["base"]["accuracy"] < 0.1
    assert rows["practice"]["sampled_accuracy"] > rows["warm_start"]["sampled_accuracy"] + 0.2
    gain = next(pair for pair in result["paired"] if pair["first"] == "warm_start")
    assert gain["difference_low"] > 0 and gain["p_value"] < 0.01
    scores = [row["score"] for row in practised(tiny)]
    assert sum(scores[-10:]) > sum(scores[:10]) + 2


def test_random_rewards_add_nothing(tiny, tmp_path):
    overrides = {"reward": "random", "machine.dtype": "float32"}
    random = rows_of(practice("tiny", overrides, run=tmp_path / "random"))
    real = rows_of(json.loads((tiny / "result.json").read_text()))
    assert random["warm_start"] == real["warm_start"]
    assert random["practice"]["sampled_accuracy"] < real["practice"]["sampled_accuracy"] - 0.1
    assert random["practice"]["sampled_accuracy"] < random["warm_start"]["sampled_accuracy"] + 0.1


def test_more_updates_on_the_same_attempts(small, tmp_path, finished):
    small(tmp_path / "more", {"learn.epochs": 2, "learn.minibatches_per_epoch": 2, "steps": 1})
    first, second = (practised(folder)[0] for folder in (tmp_path / "more", finished))
    assert first["score"] == second["score"]
    assert abs(first["kl_behaviour"]) > abs(second["kl_behaviour"])  # the last of four updates has left the behaviour policy
    assert abs(second["kl_behaviour"]) < 1e-5


def test_a_kl_penalty_holds_the_model_back(small, tmp_path, finished):
    moved = {}
    for name, overrides in {"strong": {"kl_penalty.kl_coef": 3.0}, "weak": {"kl_penalty.kl_coef": 1e-6}}.items():
        small(tmp_path / name, overrides | {"steps": 20})
        rows = practised(tmp_path / name)
        moved[name] = sum(row["kl_reference"] for row in rows) / len(rows)
        assert rows[0]["kl_reference"] == pytest.approx(0, abs=1e-6)
    assert 0 <= moved["strong"] < moved["weak"] / 2


def test_the_reference_of_adapters_is_the_model_that_practice_began_with(small, finished, tmp_path):
    adapted = {"model": str(finished / "model"), "learn.lora.rank": 4, "warm_start.steps": 5, "warm_start.optimizer.learning_rate": 1e-2}
    small(tmp_path / "run", adapted | {"kl_penalty.kl_coef": 0.1, "steps": 1})
    rows = practised(tmp_path / "run")
    assert rows[0]["kl_reference"] == pytest.approx(0, abs=1e-5)


# ---------------------------------------------------------------------- the same twice


def test_a_run_folder_holds_what_its_description_says(finished):
    names = {str(path.relative_to(finished)) for path in finished.rglob("*") if path.is_file()}
    expected = {"configuration.yaml", "environment.json", "metrics.jsonl", "timings.jsonl", "result.json", "report.html"}
    expected |= {f"attempts/{step:05d}.jsonl.gz" for step in (1, 2, 3, 4)}
    expected |= {f"evaluation/{model}.json" for model in ("base", "warm_start", "practice")}
    expected |= {f"checkpoints/{name}/{file}" for name in ("warm_start", "step-00004") for file in ("progress.json", "learner.safetensors")}
    expected |= {f"{folder}/model.safetensors" for folder in ("model", "checkpoints/warm_start", "checkpoints/step-00004")}
    assert expected <= names
    assert not [name for name in names if "partial" in name or "writing" in name]
    assert AutoModelForCausalLM.from_pretrained(finished / "model").config.hidden_size == 64
    deterministic = (finished / "metrics.jsonl").read_text() + (finished / "result.json").read_text()
    assert "seconds" not in deterministic and str(finished) not in deterministic


def test_attempts_are_written_with_their_scores(finished):
    rows = attempts_of(finished)
    assert len(rows) == 4 * 6 * 4
    assert {row["score"] for row in rows} == {0.0, 1.0}
    assert all((row["text"].strip() == row["answer"]) == (row["score"] == 1.0) for row in rows if "\n" not in row["text"])
    assert practised(finished)[0]["score"] == pytest.approx(sum(row["score"] for row in rows[:24]) / 24)


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(small, finished, tmp_path):
    small(tmp_path / "again")
    assert_same(finished, tmp_path / "again")
    small(tmp_path / "other", {"seed": 1})
    for name in ("metrics.jsonl", "result.json", "model/model.safetensors"):
        assert (finished / name).read_bytes() != (tmp_path / "other" / name).read_bytes()


# ---------------------------------------------------------------------- killed and resumed


@pytest.mark.parametrize(
    "kill", [("base", 0), ("warm_start", 3), ("practice", 1), ("practice", 0)], ids=lambda kill: "-".join(map(str, kill))
)
def test_a_killed_run_resumes_to_the_same_bytes(small, small_arguments, finished, tmp_path, kill):
    folder = tmp_path / "run"
    with pytest.raises(Killed):
        small(folder, reporter=Kill(*kill))
    assert not (folder / "result.json").exists()
    if kill[1]:
        with (folder / "metrics.jsonl").open("a") as file:
            file.write('{"phase": "prac')  # torn by the kill
    assert main([*small_arguments, "--run", str(folder), "--resume"]) == 0
    assert_same(finished, folder)


@pytest.mark.parametrize(("part", "at"), [("rollout", 4), ("update", 3)])
def test_attempts_that_were_judged_are_neither_sampled_nor_judged_again(small, finished, tmp_path, monkeypatch, killed, part, at):
    folder, sampled, listening = tmp_path / "run", [], Listening()
    with killed(Loop, part, lambda loop, step, *_: step == at):
        small(folder)

    def counted(engine, tasks, *rest, names, **options):
        sampled.append(names[1])
        return sample_groups(engine, tasks, *rest, names=names, **options)

    monkeypatch.setattr("etude.rollouts.independent.sample_groups", counted)
    small(folder, resume=True, reporter=listening)
    assert sampled == [4]
    assert any("practice: going on from step 2 of 4" in line and "the attempts of steps 3 to 3 are kept" in line for line in listening.said)
    assert_same(finished, folder)
    assert not list((folder / "ledger").iterdir())


@pytest.mark.parametrize("phase", ["warm_start", "practice"])
def test_a_run_that_was_asked_to_end_is_checkpointed_where_it_stands_and_resumes_to_the_same_bytes(
    small, small_arguments, finished, tmp_path, capsys, monkeypatch, phase
):
    class Asked(Console):
        def step(self, phase_now, step, metrics, timings):
            if (phase_now, step) == (phase, 3):
                os.kill(os.getpid(), signal.SIGTERM)

    folder = tmp_path / "run"
    monkeypatch.setattr("etude.console.reporter.Console", Asked)
    assert main([*small_arguments, "--run", str(folder)]) == 143
    total = 20 if phase == "warm_start" else 4
    line = f"etude: stopped by SIGTERM after {phase.replace('_', ' ')} step 3 of {total}; go on with --resume\n"
    assert capsys.readouterr().err.endswith(line)
    assert (folder / "checkpoints" / f"{'warm' if phase == 'warm_start' else 'step'}-00003" / "progress.json").exists()
    monkeypatch.undo()
    small(folder, resume=True)
    assert_same(finished, folder)
    assert {path.name for path in (folder / "checkpoints").iterdir()} == {"warm_start", "step-00004"}


def test_a_run_that_is_asked_to_end_while_it_measures_ends_at_once(small_arguments, finished, small, tmp_path, capsys, monkeypatch):
    class Asked(Console):
        def measuring(self, model, suite, n):
            os.kill(os.getpid(), signal.SIGINT)
            raise AssertionError("went on")

    monkeypatch.setattr("etude.console.reporter.Console", Asked)
    assert main([*small_arguments, "--run", str(tmp_path / "run")]) == 130
    assert "stopped by SIGINT between the training steps; go on with --resume" in capsys.readouterr().err
    small(tmp_path / "run", resume=True)
    assert_same(finished, tmp_path / "run")


def test_a_run_that_is_asked_to_end_before_it_began_keeps_nothing_and_one_that_is_nearly_done_ends_well(
    small_arguments, finished, tmp_path, capsys, monkeypatch
):
    def asked(*_, **__):
        os.kill(os.getpid(), signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr("etude.training.practice_run.load_data", asked)
        assert main([*small_arguments, "--run", str(tmp_path / "run")]) == 143
    assert capsys.readouterr().err.endswith("etude: stopped by SIGTERM before it began: nothing is kept\n")
    assert not (tmp_path / "run").exists()
    monkeypatch.setattr("etude.recipes.conclude.write_cards", asked)
    assert main([*small_arguments, "--run", str(tmp_path / "run")]) == 0
    assert_same(finished, tmp_path / "run")


@pytest.mark.parametrize("more", [{}, {"learn.lora.dropout": 0.3, "learn.method": "imitation"}], ids=["policy gradient", "dropout"])
def test_a_killed_lora_run_resumes_to_the_same_bytes(small, finished, tmp_path, killed_behind_step_3, more):
    lora = {"model": str(finished / "model"), "learn.lora.rank": 4, "warm_start.steps": 2} | more
    assert_resumes(small, lora, tmp_path, killed_behind_step_3, names=(*SAME, "adapter"))
    warm, after = (load_file(tmp_path / "whole" / name / "model.safetensors") for name in ("checkpoints/warm_start", "model"))
    assert any(not torch.equal(warm[name], after[name]) for name in warm)
    assert not [name for name in after if "lora" in name]


def test_only_the_last_checkpoints_are_kept(small, tmp_path):
    small(tmp_path / "run", {"save_steps": 1, "save_total_limit": 2})
    assert {path.name for path in (tmp_path / "run" / "checkpoints").iterdir()} == {"warm_start", "step-00003", "step-00004"}


@pytest.fixture(scope="module")
def halfway_once(small, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("killed") / "run"
    with pytest.raises(Killed):
        small(folder, reporter=Kill("practice", 3))
    return folder


@pytest.fixture
def halfway(halfway_once, tmp_path) -> Path:
    """A run that was killed at its third step, for a test to change."""
    return Path(shutil.copytree(halfway_once, tmp_path / "halfway"))


def test_a_run_goes_on_with_smaller_batches_and_says_so_but_not_with_another_precision(small, halfway):
    with pytest.raises(UserError, match=r"started with machine\.dtype = 'float32', now it is 'bfloat16'"):
        small(halfway, {"machine.dtype": "bfloat16"}, resume=True)
    small(halfway, {"machine.max_tokens_per_microbatch": 256}, resume=True)
    assert json.loads((halfway / "environment.json").read_text())["changed_on_resume"] == {"machine.max_tokens_per_microbatch": 256}


def test_a_run_goes_on_with_as_many_threads_as_it_began_with_unless_it_is_told_otherwise(small, finished, halfway, tmp_path):
    began, usual = json.loads((halfway / "environment.json").read_text())["threads"], torch.get_num_threads()
    shutil.copytree(halfway, tmp_path / "told")
    torch.set_num_threads(usual + 1)
    try:
        small(halfway, resume=True)
        small(tmp_path / "told", {"machine.threads": usual + 2}, resume=True)
    finally:
        torch.set_num_threads(usual)
    assert_same(finished, halfway)
    facts = json.loads((halfway / "environment.json").read_text())
    assert facts["threads"] == began and facts["resumed"] == [{}]
    facts = json.loads((tmp_path / "told" / "environment.json").read_text())
    assert facts["resumed"] == [{"threads": usual + 2}] and facts["changed_on_resume"] == {"machine.threads": usual + 2}


def test_a_clock_that_stands_still_is_no_error(small, tmp_path, monkeypatch):
    monkeypatch.setattr("time.perf_counter", lambda: 7.0)
    small(tmp_path / "run", {"steps": 1, "warm_start.steps": 1})
    row = read_jsonl(tmp_path / "run" / "timings.jsonl")[-1]
    assert row["tokens_per_second"] == row["rollout_seconds"] == 0.0


# ---------------------------------------------------------------------- what the machine can't give


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried"), r"out of memory: lower machine\.kv_cache_tokens \(now 32768\) or"),
        (OSError(28, "No space left on device", "x"), r"the disk is full .*: make room; go on with --resume, the last checkpoint is whole"),
    ],
)
def test_a_full_machine_is_one_sentence_and_the_run_goes_on_later(small, finished, tmp_path, monkeypatch, error, message):
    real = Loop.update

    def update(self, step, *rest):
        if step == 3:
            raise error
        return real(self, step, *rest)

    with monkeypatch.context() as patch, pytest.raises(UserError, match=message):
        patch.setattr(Loop, "update", update)
        small(tmp_path / "run")
    small(tmp_path / "run", resume=True)
    assert_same(finished, tmp_path / "run")


@pytest.mark.parametrize("name", ["configuration.yaml", "environment.json"])
def test_a_damaged_file_of_a_run_is_named(small, halfway, name):
    (halfway / name).write_text("")
    with pytest.raises(UserError, match=rf"{name} is damaged"):
        small(halfway, resume=True)


def test_a_finished_run_that_was_killed_before_its_report_gets_it(small, finished, tmp_path):
    shutil.copytree(finished, tmp_path / "run")
    (tmp_path / "run" / "report.html").unlink()
    assert small(tmp_path / "run", resume=True) == json.loads((finished / "result.json").read_text())
    assert "Practice" in (tmp_path / "run" / "report.html").read_text()


# ---------------------------------------------------------------------- one's own tasks and verifiers


def test_files_replace_the_tasks_of_a_configuration(letter_files, small_arguments):
    keep = small_arguments[: small_arguments.index("--n")] + small_arguments[small_arguments.index("--n") + 2 :]
    files = ["--tasks.path", "train.jsonl", "--evaluation.path", "test.jsonl"]
    assert main([*keep, *files, "--run", "run"]) == 0
    result = json.loads(Path("run/result.json").read_text())
    assert {row["suite"] for row in result["evaluation"]} == {"test"}
    assert result["tasks"] == {"train": 60, "demonstrations": 40, "evaluation": 20, "overlap_removed": 0, "near_copies": 0}


FILES = {"tasks.path": ["train.jsonl"], "evaluation.path": ["test.jsonl"]}


@pytest.mark.parametrize(
    ("changes", "counts"),
    [
        ({"warm_start.n": 10}, {"demonstrations": 10}),
        ({"warm_start.path": ["shown.jsonl"]}, {"demonstrations": 30}),
        # where no item has steps, bare answers
        ({"tasks.path": ["test.jsonl"], "evaluation.path": ["shown.jsonl"]}, {"demonstrations": 25}),
        ({"tasks.path": ["train.jsonl", "test.jsonl"], "evaluation.n": None}, {"overlap_removed": 25, "train": 60}),
    ],
)
def test_demonstrations_come_from_worked_items_or_files_and_nothing_of_the_evaluation_is_trained_on(letter_files, changes, counts):
    settings = parse_practice(find_configuration("practice", "tiny"), arguments_from(FILES | {"n": None} | changes))
    facts = load_data(settings, "tiny", None).facts
    assert {name: facts[name] for name in counts} == counts


def test_files_of_the_same_name_are_suites_of_their_own(letter_files):
    for folder in ("one", "two"):
        Path(folder).mkdir()
        shutil.copy("test.jsonl", folder)
    overrides = FILES | {"evaluation.path": ["one/test.jsonl", "two/test.jsonl"], "warm_start.steps": 0}
    settings = parse_practice(find_configuration("practice", "tiny"), arguments_from(overrides))
    assert load_data(settings, "tiny", None).evaluation.keys() == {"test", "two/test"}


# ---------------------------------------------------------------------- from Python


def test_overrides_in_python_may_be_lists_and_mappings():
    parameters = {"min_terms": 2, "max_terms": 2, "min_digits": 1, "max_digits": 1}
    overrides = arguments_from({"tasks.family": "chain_sum", "tasks.parameters": parameters})
    tasks = parse_practice(find_configuration("practice", "tiny"), overrides).tasks
    assert (tasks.family, tasks.function, tasks.parameters) == ("chain_sum", None, parameters)


def test_settings_objects_take_no_overrides(tmp_path):
    settings = PracticeSettings(tasks=TaskSource(function="etude.tiny:letters"), model="tiny-random")
    with pytest.raises(UserError, match=r"dataclasses\.replace"):
        practice(settings, {"steps": 1}, run=tmp_path / "run")


def test_the_word_problems_recipe_runs_on_files_of_its_form(tmp_path):
    def problem(i: int) -> dict:
        return {
            "question": f"Ann has {i} nuts and finds {i + 1} more. How many?",
            "answer": f"{2 * i + 1}",
            "steps": [f"{i} + {i + 1} = {2 * i + 1}"],
        }

    def swamp(i: int) -> dict:
        return {"ID": f"chal-{i}", "Body": f"Bo had {i} cups.", "Question": "How many cups?", "Answer": float(i), "Type": "Sum"}

    for folder in ("word_problems", "svamp"):
        (tmp_path / folder).mkdir()
    for name, first in (("train", 0), ("test", 300)):
        rows = [problem(i) for i in range(first, first + 210)]
        (tmp_path / "word_problems" / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "svamp" / "SVAMP_dev.json").write_text(json.dumps([swamp(i) for i in range(20)]))
    small = {"model": "tiny-random", "evaluation.n": 10, "evaluation.pass_n": 2, "warm_start.steps": 2, "steps": 1}
    result = practice("word_problems", small | {"rollout.tasks_per_step": 2}, run=tmp_path / "run", data=tmp_path)
    assert [row["suite"] for row in result["evaluation"]] == ["test", "SVAMP_dev"] * 3
    assert (result["tasks"]["train"], result["tasks"]["demonstrations"]) == (210, 200)
    assert {"pass_at_8", "sampled_accuracy", "parsable", "baseline_constant"} <= result["evaluation"][0].keys()


def test_demonstrations_that_practice_has_no_room_for_are_said(small, tmp_path):
    listening = Listening()
    small(tmp_path / "run", {"rollout.max_new_tokens": 1, "steps": 1}, reporter=listening)
    (said,) = listening.said
    assert "demonstrations are longer than rollout.max_new_tokens 1" in said


@pytest.mark.parametrize(
    ("train", "overrides", "message"),
    [
        ([{"question": "a", "answer": "the cat", "verifier": "math"}], {}, r"train\.jsonl:1: the math verifier cannot read the answer"),
        ([{"question": "a", "answer": "1"}], {"warm_start.path": ["test.jsonl"]}, r"every demonstration stands in the evaluation too"),
        ([{"question": "a", "answer": "1"}], {"evaluation.n": 0}, r"evaluation\.n must be at least 1, got 0"),
        ([{"question": "a", "answer": "1"}], {"tasks.right_at": 2.0}, "right_at must be above 0 and at most 1 for the verifier numeric"),
        ([{"question": "a", "answer": "1"}], {"tasks.right_at": 0.0}, "right_at must be above 0 and at most 1 for the verifier numeric"),
        (
            [{"question": "a", "answer": "1", "worked": "1"}, {"question": "b", "answer": "1"}],
            {"warm_start.n": 2},
            r"warm_start\.n is 2, but only 1 training items have worked steps: .*warm_start\.path",
        ),
        (
            [{"question": f"q{i}", "answer": "a", "worked": "a " * (300 if i == 1 else 1)} for i in range(3)],
            {"warm_start.path": ["train.jsonl"]},
            r"train\.jsonl:2 has \d+ tokens, prompt and answer; the model has room for \d+",
        ),
        # a wording of one's own reaches the evaluation too
        ([{"question": "b", "answer": "2"}], {"tasks.question": "Q: {question} A:"}, "every training item stands in the evaluation too"),
    ],
)
def test_tasks_that_cannot_be_used_are_one_sentence(tmp_path, monkeypatch, train, overrides, message):
    monkeypatch.chdir(tmp_path)
    Path("train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in train))
    Path("test.jsonl").write_text('{"question": "b", "answer": "2", "worked": "2"}\n')
    files = FILES | {"warm_start.n": 0, "warm_start.steps": 1}
    with pytest.raises(UserError, match=message):
        practice("tiny", files | overrides, run=tmp_path / "run")
    assert not (tmp_path / "run").exists()
