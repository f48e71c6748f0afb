"""Practice runs as a whole: they learn, they are the same twice, and a run that was killed ends like one that was not."""

import gzip
import json
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from etude.cli import main
from etude.console.reporter import Console, Silent
from etude.errors import UserError
from etude.files import read_jsonl
from etude.recipes.practice import Loop, practice
from etude.rollouts.samples import sample_groups
from etude.tasks.sources import TaskSource
from etude.training.settings import PracticeSettings

DETERMINISTIC = ("metrics.jsonl", "result.json", "model/model.safetensors", "evaluation/practice.json")


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


def assert_same(first: Path, second: Path, names=DETERMINISTIC) -> None:
    for name in names:
        assert (first / name).read_bytes() == (second / name).read_bytes(), name


def attempts_of(folder: Path) -> list[dict]:
    files = sorted((folder / "attempts").glob("*.jsonl.gz"))
    return [json.loads(line) for file in files for line in gzip.decompress(file.read_bytes()).decode().splitlines()]


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
    scores = [row["score"] for row in read_jsonl(tiny / "metrics.jsonl") if row["phase"] == "practice"]
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
    first, second = (
        next(row for row in read_jsonl(folder / "metrics.jsonl") if row["phase"] == "practice") for folder in (tmp_path / "more", finished)
    )
    assert first["score"] == second["score"]
    assert abs(first["kl_behaviour"]) > abs(second["kl_behaviour"])  # the last of four updates has left the behaviour policy
    assert abs(second["kl_behaviour"]) < 1e-5


def test_a_kl_penalty_holds_the_model_back(small, tmp_path, finished):
    moved = {}
    for name, overrides in {"strong": {"kl_penalty.kl_coef": 3.0}, "weak": {"kl_penalty.kl_coef": 1e-6}}.items():
        small(tmp_path / name, overrides | {"steps": 20})
        rows = [row for row in read_jsonl(tmp_path / name / "metrics.jsonl") if row["phase"] == "practice"]
        moved[name] = sum(row["kl_reference"] for row in rows) / len(rows)
        assert rows[0]["kl_reference"] == pytest.approx(0, abs=1e-6)
    assert 0 <= moved["strong"] < moved["weak"] / 2


def test_the_reference_of_adapters_is_the_model_that_practice_began_with(small, finished, tmp_path):
    adapted = {"model": str(finished / "model"), "learn.lora.rank": 4, "warm_start.steps": 5, "warm_start.optimizer.learning_rate": 1e-2}
    small(tmp_path / "run", adapted | {"kl_penalty.kl_coef": 0.1, "steps": 1})
    rows = [row for row in read_jsonl(tmp_path / "run" / "metrics.jsonl") if row["phase"] == "practice"]
    assert rows[0]["kl_reference"] == pytest.approx(0, abs=1e-5)


def test_imitation_learns_from_right_attempts(small, tmp_path):
    small(tmp_path / "run", {"learn.method": "imitation"})
    rows = [row for row in read_jsonl(tmp_path / "run" / "metrics.jsonl") if row["phase"] == "practice"]
    assert any(row.get("imitate_loss", 0) > 0 for row in rows)
    assert not any("policy_loss" in row for row in rows)


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


def test_attempts_are_written_with_their_scores(finished):
    rows = attempts_of(finished)
    assert len(rows) == 4 * 6 * 4
    assert {row["score"] for row in rows} == {0.0, 1.0}
    assert all((row["text"].strip() == row["answer"]) == (row["score"] == 1.0) for row in rows if "\n" not in row["text"])
    metrics = [row for row in read_jsonl(finished / "metrics.jsonl") if row["phase"] == "practice"]
    assert metrics[0]["score"] == pytest.approx(sum(row["score"] for row in rows[:24]) / 24)


def test_clock_times_stay_out_of_what_is_deterministic(finished):
    text = (finished / "metrics.jsonl").read_text() + (finished / "result.json").read_text()
    assert "seconds" not in text and str(finished) not in text


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(small, finished, tmp_path):
    small(tmp_path / "again")
    assert_same(finished, tmp_path / "again")
    small(tmp_path / "other", {"seed": 1})
    for name in ("metrics.jsonl", "result.json", "model/model.safetensors"):
        assert (finished / name).read_bytes() != (tmp_path / "other" / name).read_bytes()


# ---------------------------------------------------------------------- killed and resumed


@pytest.mark.parametrize(
    "kill", [("base", 0), ("warm_start", 3), ("practice", 1), ("practice", 3), ("practice", 0)], ids=lambda kill: "-".join(map(str, kill))
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
    assert attempts_of(folder) == attempts_of(finished)


@pytest.mark.parametrize(("part", "at"), [("rollout", 4), ("update", 3)])
def test_attempts_that_were_judged_are_neither_sampled_nor_judged_again(small, finished, tmp_path, monkeypatch, part, at):
    real, folder, sampled, said = getattr(Loop, part), tmp_path / "run", [], []

    def killed_after_step_3(self, step, *rest):
        if step == at:
            raise Killed
        return real(self, step, *rest)

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(Loop, part, killed_after_step_3)
        small(folder)

    def counted(engine, tasks, *rest, names, **options):
        sampled.append(names[1])
        return sample_groups(engine, tasks, *rest, names=names, **options)

    class Listening(Silent):
        def say(self, text):
            said.append(text)

    monkeypatch.setattr("etude.rollouts.independent.sample_groups", counted)
    small(folder, resume=True, reporter=Listening())
    assert sampled == [4]
    assert any("practice: going on from step 2 of 4" in line and "the attempts of steps 3 to 3 are kept" in line for line in said)
    assert_same(finished, folder)
    assert attempts_of(folder) == attempts_of(finished)
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
    assert attempts_of(folder) == attempts_of(finished)
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


def test_a_killed_lora_run_resumes_to_the_same_bytes(small, finished, tmp_path):
    lora = {"model": str(finished / "model"), "learn.lora.rank": 4, "warm_start.steps": 2}
    small(tmp_path / "whole", lora)
    with pytest.raises(Killed):
        small(tmp_path / "killed", lora, reporter=Kill("practice", 3))
    small(tmp_path / "killed", lora, resume=True)
    assert_same(tmp_path / "whole", tmp_path / "killed")
    warm, after = (load_file(tmp_path / "whole" / name / "model.safetensors") for name in ("checkpoints/warm_start", "model"))
    assert any(not torch.equal(warm[name], after[name]) for name in warm)
    assert not [name for name in after if "lora" in name]


def test_a_killed_lora_run_with_dropout_resumes_to_the_same_bytes(small, finished, tmp_path):
    lora = {"model": str(finished / "model"), "learn.lora.rank": 4, "learn.lora.dropout": 0.3}
    lora |= {"learn.method": "imitation", "warm_start.steps": 2}
    small(tmp_path / "whole", lora)
    with pytest.raises(Killed):
        small(tmp_path / "killed", lora, reporter=Kill("practice", 3))
    small(tmp_path / "killed", lora, resume=True)
    assert_same(tmp_path / "whole", tmp_path / "killed")
    for file in ("adapter_config.json", "adapter_model.safetensors"):
        assert (tmp_path / "whole/adapter" / file).read_bytes() == (tmp_path / "killed/adapter" / file).read_bytes()


def test_only_the_last_checkpoints_are_kept(small, tmp_path):
    small(tmp_path / "run", {"save_steps": 1, "save_total_limit": 2})
    assert {path.name for path in (tmp_path / "run" / "checkpoints").iterdir()} == {"warm_start", "step-00003", "step-00004"}


@pytest.fixture(scope="module")
def killed_once(small, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("killed") / "run"
    with pytest.raises(Killed):
        small(folder, reporter=Kill("practice", 3))
    return folder


@pytest.fixture
def killed(killed_once, tmp_path) -> Path:
    """A run that was killed behind its third step, for a test to change."""
    return Path(shutil.copytree(killed_once, tmp_path / "killed"))


@pytest.mark.parametrize("file", ["model.safetensors", "learner.safetensors", "progress.json"])
def test_a_damaged_checkpoint_is_named_and_can_be_removed(small, killed, finished, file):
    checkpoint = killed / "checkpoints" / "step-00002"
    (checkpoint / file).write_bytes((checkpoint / file).read_bytes()[: 5 if file == "progress.json" else 1000])
    with pytest.raises(UserError, match=r"checkpoint .*step-00002 is damaged .*remove this folder and resume again"):
        small(killed, resume=True)
    for path in checkpoint.iterdir():
        path.unlink()
    checkpoint.rmdir()
    small(killed, resume=True)
    assert_same(finished, killed)


def test_another_configuration_is_not_resumed(small, killed):
    with pytest.raises(UserError, match=r"started with learn\.epochs = 1, now it is 2"):
        small(killed, {"learn.epochs": 2}, resume=True)


def test_a_run_goes_on_with_smaller_batches_and_says_so_but_not_with_another_precision(small, killed):
    with pytest.raises(UserError, match=r"started with machine\.dtype = 'float32', now it is 'bfloat16'"):
        small(killed, {"machine.dtype": "bfloat16"}, resume=True)
    small(killed, {"machine.max_tokens_per_microbatch": 256}, resume=True)
    assert json.loads((killed / "environment.json").read_text())["changed_on_resume"] == {"machine.max_tokens_per_microbatch": 256}


def test_a_run_goes_on_with_as_many_threads_as_it_began_with_unless_it_is_told_otherwise(small, finished, killed, tmp_path):
    began, usual = json.loads((killed / "environment.json").read_text())["threads"], torch.get_num_threads()
    shutil.copytree(killed, tmp_path / "told")
    torch.set_num_threads(usual + 1)
    try:
        small(killed, resume=True)
        small(tmp_path / "told", {"machine.threads": usual + 2}, resume=True)
    finally:
        torch.set_num_threads(usual)
    assert_same(finished, killed)
    facts = json.loads((killed / "environment.json").read_text())
    assert facts["threads"] == began and facts["resumed"] == [{}]
    facts = json.loads((tmp_path / "told" / "environment.json").read_text())
    assert facts["resumed"] == [{"threads": usual + 2}] and facts["changed_on_resume"] == {"machine.threads": usual + 2}


def test_a_line_of_the_log_that_was_damaged_is_no_end_of_the_log(small, killed, finished):
    before = (killed / "metrics.jsonl").read_bytes()
    lines = before.split(b"\n")
    (killed / "metrics.jsonl").write_bytes(b"\n".join([*lines[:20], lines[20][:10], *lines[21:]]))  # of the first step of practice
    with pytest.raises(UserError, match=r"metrics\.jsonl is damaged in line 21 .*with 2 lines after it"):
        small(killed, resume=True)
    (killed / "metrics.jsonl").write_bytes(b"\n".join([*lines[:20], *lines[21:]]))
    said = []

    class Listens(Silent):
        def say(self, text):
            said.append(text)

    small(killed, resume=True, reporter=Listens())
    assert "metrics.jsonl lacks practice step 1: the run goes on without these numbers" in said
    expected = [row for row in read_jsonl(finished / "metrics.jsonl") if (row["phase"], row["step"]) != ("practice", 1)]
    assert read_jsonl(killed / "metrics.jsonl") == expected


def test_a_clock_that_stands_still_is_no_error(small, tmp_path, monkeypatch):
    monkeypatch.setattr("time.perf_counter", lambda: 7.0)
    small(tmp_path / "run", {"steps": 1, "warm_start.steps": 1})
    (row,) = [row for row in read_jsonl(tmp_path / "run" / "timings.jsonl") if row["phase"] == "practice"]
    assert row["tokens_per_second"] == row["rollout_seconds"] == 0.0


# ---------------------------------------------------------------------- what the machine can't give


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried"), r"out of memory: lower machine\.kv_cache_tokens \(now 32768\) or"),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried"), "out of memory: lower"),
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


@pytest.fixture
def little_disk(tmp_path) -> Iterator[Path]:
    """A folder on a file system of 2.5 MB: room for the warm start's checkpoint, not for all that follows."""
    folder = tmp_path / "little"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=2500k", "tmpfs", str(folder)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("only root may mount a small disk")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_ends_with_one_sentence_and_a_whole_checkpoint(small, finished, little_disk, tmp_path, capsys, small_arguments):
    assert main([*small_arguments, "--run", str(little_disk / "run")]) == 2
    assert re.fullmatch(r"etude: the disk is full \(.*\): make room; .*--resume.*\n", capsys.readouterr().err.splitlines(True)[-1])
    assert (little_disk / "run" / "checkpoints" / "warm_start" / "progress.json").exists()
    shutil.copytree(little_disk / "run", tmp_path / "run")
    small(tmp_path / "run", resume=True)
    assert_same(finished, tmp_path / "run")


def test_a_run_is_not_resumed_on_other_evaluation_items(small, letter_files, tmp_path):
    test = letter_files / "test.jsonl"
    files = {"tasks.path": ["train.jsonl"], "evaluation.path": ["test.jsonl"]}
    with pytest.raises(Killed):
        small(tmp_path / "run", files, reporter=Kill("practice", 3))
    lines = test.read_text().splitlines()
    test.write_text("\n".join([*lines[1:], lines[0]]) + "\n")
    with pytest.raises(UserError, match=r"--resume: the evaluation test changed since the run in .* began"):
        small(tmp_path / "run", files, resume=True)
    (tmp_path / "run" / "inputs.json").unlink()  # as an older version left it
    with pytest.raises(UserError, match=r"base\.json is of other evaluation items than there are now"):
        small(tmp_path / "run", files, resume=True)


@pytest.mark.parametrize("name", ["configuration.yaml", "environment.json", "evaluation/base.json"])
def test_a_damaged_file_of_a_run_is_named(small, killed, name):
    (killed / name).write_text("")
    with pytest.raises(UserError, match=rf"{name} is damaged"):
        small(killed, resume=True)


def test_a_finished_run_and_an_empty_folder_are_not_resumed(small, finished, tmp_path):
    with pytest.raises(UserError, match="is finished"):
        small(finished, resume=True)
    with pytest.raises(UserError, match="holds no run"):
        small(tmp_path / "empty", resume=True)


def test_a_finished_run_that_was_killed_before_its_report_gets_it(small, finished, tmp_path):
    shutil.copytree(finished, tmp_path / "run")
    (tmp_path / "run" / "report.html").unlink()
    assert small(tmp_path / "run", resume=True) == json.loads((finished / "result.json").read_text())
    assert "Practice" in (tmp_path / "run" / "report.html").read_text()


def test_a_run_is_never_overwritten(small, finished, killed):
    for folder in (finished, killed):
        before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
        with pytest.raises(UserError, match="never overwritten"):
            small(folder)
        assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before


def test_a_mistake_in_the_input_leaves_no_folder(small, tmp_path):
    with pytest.raises(UserError):
        small(tmp_path / "run", {"rollout.max_new_tokens": 400})
    assert not (tmp_path / "run").exists()


# ---------------------------------------------------------------------- one's own tasks and verifiers


def test_files_replace_the_tasks_of_a_configuration(letter_files, small_arguments):
    keep = small_arguments[: small_arguments.index("--n")] + small_arguments[small_arguments.index("--n") + 2 :]
    files = ["--tasks.path", "train.jsonl", "--evaluation.path", "test.jsonl"]
    assert main([*keep, *files, "--run", "run"]) == 0
    result = json.loads(Path("run/result.json").read_text())
    assert {row["suite"] for row in result["evaluation"]} == {"test"}
    assert result["tasks"] == {"train": 60, "demonstrations": 40, "evaluation": 20, "overlap_removed": 0, "near_copies": 0}


@pytest.mark.parametrize(("warm", "demonstrations"), [({"warm_start.n": 10}, 10), ({"warm_start.path": ["shown.jsonl"]}, 30)])
def test_demonstrations_come_from_worked_items_or_from_files(small, letter_files, warm, demonstrations):
    overrides = {"tasks.path": ["train.jsonl"], "evaluation.path": ["test.jsonl"], "warm_start.steps": 2, "steps": 1}
    result = small(letter_files / "run", overrides | warm)
    assert result["tasks"]["demonstrations"] == demonstrations


def test_more_demonstrations_than_there_are_worked_items_are_refused(small, letter_files):
    overrides = {"tasks.path": ["train.jsonl"], "evaluation.path": ["test.jsonl"], "warm_start.n": 50}
    with pytest.raises(UserError, match=r"warm_start\.n is 50, but only 40 training items have worked steps: .*warm_start\.path"):
        small(letter_files / "run", overrides)


def test_bare_answers_are_demonstrations_where_no_item_has_steps(small, letter_files):
    overrides = {"tasks.path": ["test.jsonl"], "evaluation.path": ["shown.jsonl"], "n": None, "warm_start.steps": 1, "steps": 1}
    assert small(letter_files / "run", overrides)["tasks"]["demonstrations"] == 25


def test_training_items_of_the_evaluation_are_left_out(small, letter_files):
    Path("train.jsonl").write_text(Path("train.jsonl").read_text() + Path("test.jsonl").read_text())
    overrides = {"tasks.path": ["train.jsonl"], "evaluation.path": ["test.jsonl"], "n": None, "evaluation.n": None, "warm_start.steps": 0}
    result = small(letter_files / "run", overrides | {"steps": 1})
    assert result["tasks"]["overlap_removed"] == 25 and result["tasks"]["train"] == 60


def test_files_of_the_same_name_are_suites_of_their_own(small, letter_files):
    for folder in ("one", "two"):
        Path(folder).mkdir()
        Path(folder, "test.jsonl").write_text(Path("test.jsonl").read_text())
    overrides = {"tasks.path": ["train.jsonl"], "evaluation.path": ["one/test.jsonl", "two/test.jsonl"], "steps": 0, "warm_start.steps": 0}
    result = small(letter_files / "run", overrides)
    assert {row["suite"] for row in result["evaluation"]} == {"test", "two/test"}


MINE = """
def tasks(split, n, seed):
    for i in range(n):
        yield {"question": f"{split} {seed} {i}: write a", "answer": "a", "verifier": "mine.py:starts_with"}


def starts_with(text, task):
    if text.startswith(("b", "c", "d")):
        raise RuntimeError("no good")
    return text.startswith(task.answer)
"""


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., dict]:
    monkeypatch.chdir(tmp_path)
    Path("mine.py").write_text(MINE)
    return lambda: {"tasks.function": "mine.py:tasks"}


def test_a_users_tasks_and_verifier(small, mine, tmp_path):
    result = small(tmp_path / "run", mine() | {"warm_start.n": 40})
    assert {row["suite"] for row in result["evaluation"]} == {"tiny"}
    rows = attempts_of(tmp_path / "run")
    assert rows and all(row["score"] == float(row["text"].startswith("a")) for row in rows if row["text"][:1] not in tuple("bcd"))


def test_a_verifier_that_raises_leaves_its_attempts_unscored_and_the_run_finishes(small, mine, tmp_path):
    result = small(tmp_path / "run", mine() | {"warm_start.steps": 0, "steps": 6, "rollout.num_samples": 8})
    rows = attempts_of(tmp_path / "run")
    broken = [row for row in rows if row["score"] is None]
    assert broken and all("RuntimeError" in row["message"] for row in broken)
    metrics = read_jsonl(tmp_path / "run" / "metrics.jsonl")
    assert sum(row["unscored"] for row in metrics) == len(broken) == sum(row["crashed"] for row in metrics)
    assert result["status"] == "finished" and result["feedback_counts"]["crashed"] >= len(broken)


# ---------------------------------------------------------------------- from Python


def test_overrides_in_python_may_be_lists_and_mappings(small, tmp_path):
    parameters = {"min_terms": 2, "max_terms": 2, "min_digits": 1, "max_digits": 1}
    overrides = {"tasks.family": "chain_sum", "tasks.parameters": parameters, "evaluation.n": 5, "n": 20, "warm_start.n": 20}
    small(tmp_path / "run", overrides | {"steps": 1, "rollout.max_new_tokens": 3})
    kept = (tmp_path / "run" / "configuration.yaml").read_text()
    assert "family: chain_sum" in kept and "max_digits: 1" in kept and "function: null" in kept


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
    said = []

    class Listening(Silent):
        def say(self, text: str) -> None:
            said.append(text)

    small(tmp_path / "run", {"rollout.max_new_tokens": 1, "steps": 1}, reporter=Listening())
    assert len(said) == 1 and "demonstrations are longer than rollout.max_new_tokens 1" in said[0]


def test_a_demonstration_longer_than_the_model_is_named(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rows = [{"question": f"q{i}", "answer": "a", "worked": "a " * (300 if i == 1 else 1)} for i in range(3)]
    Path("train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    Path("other.jsonl").write_text('{"question": "q", "answer": "a"}\n')
    overrides = {"tasks.path": ["train.jsonl"], "evaluation.path": ["other.jsonl"], "warm_start.path": ["train.jsonl"]}
    with pytest.raises(UserError, match=r"train\.jsonl:2 has \d+ tokens, prompt and answer; the model has room for \d+"):
        practice("tiny", overrides, run=tmp_path / "run")


@pytest.mark.parametrize(
    ("train", "overrides", "message"),
    [
        ([{"question": "a", "answer": "the cat", "verifier": "math"}], {}, r"train\.jsonl:1: the math verifier cannot read the answer"),
        ([{"question": "a", "answer": "1"}], {"warm_start.path": ["test.jsonl"]}, r"every demonstration stands in the evaluation too"),
        ([{"question": "a", "answer": "1"}], {"evaluation.n": 0}, r"evaluation\.n must be at least 1, got 0"),
    ],
)
def test_tasks_that_cannot_be_used_are_one_sentence(tmp_path, monkeypatch, train, overrides, message):
    monkeypatch.chdir(tmp_path)
    Path("train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in train))
    Path("test.jsonl").write_text('{"question": "b", "answer": "2", "worked": "2"}\n')
    files = {"tasks.path": ["train.jsonl"], "evaluation.path": ["test.jsonl"], "warm_start.n": 0, "warm_start.steps": 1}
    with pytest.raises(UserError, match=message):
        practice("tiny", files | overrides, run=tmp_path / "run")


def test_a_wording_of_ones_own_reaches_the_evaluation_files_too(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("same.jsonl").write_text('{"question": "b", "answer": "2"}\n')
    files = {"tasks.path": ["same.jsonl"], "evaluation.path": ["same.jsonl"], "tasks.question": "Q: {question} A:"}
    with pytest.raises(UserError, match="every training item stands in the evaluation too"):
        practice("tiny", files | {"warm_start.steps": 0}, run=tmp_path / "run")
