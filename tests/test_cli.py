"""The command: what it prints, and that every mistake is one sentence and exit code 2."""

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from etude.cli import COMMANDS, main

ROW = {"question": "What is 2 + 2?", "answer": "4"}


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch) -> Path:
    """A current folder of its own, with good and bad files."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("ETUDE_DATA", raising=False)
    Path("good.jsonl").write_text(json.dumps(ROW) + "\n")
    Path("test.jsonl").write_text(json.dumps({"question": "What is 1 + 2?", "answer": "3"}) + "\n")
    Path("broken.jsonl").write_text(json.dumps(ROW) + '\n{"question": \n')
    Path("unread.jsonl").write_text(json.dumps(ROW) + '\n{"question": "What is 2 + 3?", "answer": "five"}\n')
    Path("faulty.py").write_text("def rows(:")
    monkeypatch.syspath_prepend(tmp_path)
    for name, text in {
        "unknown.yaml": "tasks: {path: good.jsonl}\nexplore: {num_sample: 4}\n",
        "type.yaml": "tasks: {path: good.jsonl}\nsteps: many\n",
        "broken.yaml": "tasks:\n  path: [good.jsonl\nsteps: 3\n",
        "taskless.yaml": "steps: 3\n",
    }.items():
        Path(name).write_text(text)
    (tmp_path / "pickled").mkdir()
    Path("pickled/config.json").write_text("{}")
    Path("pickled/pytorch_model.bin").write_text("")
    return tmp_path


TINY = "practice tiny --tasks.path good.jsonl --evaluation.path test.jsonl"
MISTAKES = {
    "practise tiny": "unknown command 'practise': did you mean 'practice'?",
    "practice": "practice needs a configuration: a YAML file or one of ",
    "practice tinny": "unknown practice configuration 'tinny': did you mean 'tiny'?",
    "practice none.yaml": "configuration 'none.yaml': no such file",
    "practice unknown.yaml": "unknown.yaml: unknown setting explore.num_sample: did you mean explore.num_samples?",
    "practice type.yaml": "type.yaml: steps: expected a whole number, got many",
    "practice broken.yaml": "broken.yaml:3: not valid YAML",
    "practice taskless.yaml": "a task source needs exactly one of path, family, dataset and function, got none",
    "practice tiny --stepz 3": "unknown setting --stepz: did you mean --steps?",
    "practice tiny --warm-start.n 3": "unknown setting --warm-start.n: did you mean --warm_start.n?",
    "practice tiny --steps many": "--steps: expected a whole number, got many",
    "practice tiny --steps": "--steps needs a value",
    "practice tiny --run": "--run needs a value",
    "practice tiny --data nowhere": "--data nowhere: no such folder",
    "practice tiny --resume": "--resume: runs/tiny holds no run",
    "practice tiny --learn.credit centered": "unknown learn.credit 'centered': did you mean 'centred'?",
    "practice tiny --learn.loss clip": "unknown learn.loss 'clip': did you mean 'clipped'?",
    "practice tiny --tasks.family chain_sums": "unknown family 'chain_sums': did you mean 'chain_sum'?",
    "practice tiny --tasks.function etude.tiny:leters": "unknown function in etude.tiny 'leters': did you mean 'letters'?",
    "practice tiny --tasks.function mine.py:tasks": "function file 'mine.py' is missing",
    "practice tiny --tasks.verifier exactly": "unknown verifier 'exactly': did you mean 'exact'?",
    "practice tiny --model smollm2": "unknown model 'smollm2': did you mean 'smollm2-135m'?",
    "practice tiny --model pickled": "model 'pickled': expected *.safetensors, found only pytorch_model.bin, a pickle",
    "practice tiny --machine.device abacus": "machine.device 'abacus' can't be used here",
    "practice tiny --tasks.path goot.jsonl --evaluation.path goot.jsonl": "path 'goot.jsonl' is not a file in the current folder: did you ",
    "practice word_problems": "path 'word_problems/test.jsonl' is not a file in the current folder: correct it, or name the folder that ",
    "practice tiny --tasks.path broken.jsonl --evaluation.path test.jsonl": "broken.jsonl:2: not JSON",
    "practice tiny --tasks.path unread.jsonl --tasks.verifier numeric --evaluation.path test.jsonl": "unread.jsonl:2: the numeric",
    "practice tiny --tasks.path good.jsonl --evaluation.path good.jsonl": "every training item stands in the evaluation too",
    f"{TINY} --explore.max_new_tokens 300": "max_new_tokens 300 leaves no room for a prompt: the model has 256 positions",
    f"{TINY} --learn.optimiser.decay_steps 5": "learn.optimiser.decay_steps is 5, but the run may make ",
    f"{TINY} --learn.optimiser.betas [1.0,0.95]": "learn.optimiser.betas must lie in [0, 1), got [1.0, 0.95]",
    f"{TINY} --warm_start.optimiser.learning_rate -1": "warm_start.optimiser.learning_rate must be above 0, got -1.0",
    f"{TINY} --learn.preference.beta -1": "learn.preference.beta must be above 0, got -1.0",
    f"{TINY} --preferences.loss dppo": "unknown preferences.loss 'dppo': did you mean 'dpo'?",
    f"{TINY} --feedback_weights outcome:1": "--feedback_weights: expected a mapping, such as '{name: value}', got outcome:1",
    f"{TINY} --explore mcts --explore.search.width 1 --explore.search.simulations 1": "explore.search.method mcts finds one ",
    f"{TINY} --machine.device mps": "machine.device 'mps' can't be used: random numbers are drawn in float64",
    "practice tiny --tasks.function faulty:rows": "module 'faulty' cannot be imported: SyntaxError: ",
    "practice tiny --tasks.question {answer:{width}}": "question '{answer:{width}}' cannot be filled in: KeyError: 'width'",
    "evaluate tiny-random --evaluation.path good.jsonl --max_new_tokens 0": "max_new_tokens must be at least 1, got 0",
    "evaluate": "evaluate needs a model",
    "evaluate tiny-random": "there is nothing to measure",
    "evaluate tiny-random --evaluation.path none.jsonl": "path 'none.jsonl' is not a file",
    "evaluate tiny-random --evaluation.path good.jsonl --verifier no": "unknown verifier 'no'",
    "evaluate tiny-random --run x": "unknown setting --run",
    "evaluate nowhere --evaluation.path good.jsonl": "unknown model 'nowhere'",
    "generate": "generate needs a model",
    "generate tiny-random --file none.txt": "--file none.txt: no such file",
    "generate tiny-random --prompt a --num_samples 2": "num_samples is 2, but at temperature 0 all answers are equal",
    "report nowhere": "run folder 'nowhere' does not exist",
    "models fetch gpt": "unknown bundled model 'gpt'",
    "models delete": "models takes: list, fetch NAME, convert MODEL FOLDER, or interpolate START END",
}


@pytest.mark.parametrize("command", MISTAKES)
def test_a_mistake_is_one_sentence_on_standard_error_and_exit_code_2(command, capsys, here):
    before = sorted(here.rglob("*"))
    assert main(command.split()) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith(f"etude: {MISTAKES[command]}")
    assert captured.err.count("\n") == 1 and "Traceback" not in captured.err
    assert captured.out == ""
    assert sorted(here.rglob("*")) == before


def test_a_dry_run_prints_the_configuration_and_writes_nothing(capsys, here):
    before = sorted(here.rglob("*"))
    assert main(["practice", "tiny", "--dry-run", "--steps", "7", "--run", "planned"]) == 0
    text = capsys.readouterr().out
    assert yaml.safe_load(text)["steps"] == 7
    assert "# tasks: train 400, demonstrations 64, evaluation 200, overlap_removed 0, near_copies 0" in text
    assert "# 7 steps, 896 attempts of at most 4 tokens" in text
    assert re.search(r"^# at most about \d+ s here \(warm_start \d+ s, .*\), \d\.\d GB of memory, 0\.\d+ GB of disk$", text, re.MULTILINE)
    assert sorted(here.rglob("*")) == before


def test_the_printed_configuration_can_be_run_again(capsys):
    assert main(["practice", "tiny", "--dry-run"]) == 0
    Path("again.yaml").write_text(capsys.readouterr().out)
    assert main(["practice", "again.yaml", "--dry-run"]) == 0
    assert yaml.safe_load(capsys.readouterr().out) == yaml.safe_load(Path("again.yaml").read_text())


def test_help_names_every_command_and_needs_no_torch():
    code = "import sys; from etude.cli import main; main(['--help']); sys.exit('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for command in COMMANDS:
        assert f"etude {command}" in done.stdout


@pytest.mark.parametrize(
    ("command", "setting"), [("practice", "--explore.num_samples"), ("evaluate", "--evaluation.path"), ("generate", "--stop")]
)
def test_the_help_of_a_command_teaches_its_settings(command, setting, capsys):
    assert main([command, "--help"]) == 0
    text = capsys.readouterr().out
    assert text.startswith(f"etude {command}") and setting in text
    assert "default: " in text and "CONFIG" not in text and "ITEM,..." not in text


def test_the_version_is_told(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("etude 0.")


def test_a_run_is_reported_and_its_result_copied(capsys, here):
    small = ["--n", "20", "--steps", "1", "--warm_start.steps", "0", "--evaluation.n", "5", "--evaluation.num_samples", "0"]
    assert main(["practice", "tiny", *small, "--json", "copies/result.json"]) == 0
    text = capsys.readouterr().out
    assert "runs/tiny/report.html" in text
    assert json.loads(Path("copies/result.json").read_text()) == json.loads(Path("runs/tiny/result.json").read_text())
    assert main(["report", "runs/tiny", "--out", "page.html"]) == 0
    assert capsys.readouterr().out.strip() == "page.html" and Path("page.html").stat().st_size > 1000
    assert main(["practice", "tiny", *small]) == 2
    assert capsys.readouterr().err.startswith("etude: runs/tiny exists already and is never overwritten")


def test_models_are_listed(capsys):
    assert main(["models", "list"]) == 0
    assert capsys.readouterr().out.startswith("smollm2-135m\t")


def test_a_model_is_converted(capsys, here):
    assert main(["models", "convert", "tiny-random", "copy"]) == 0
    assert main(["generate", "copy", "--prompt", "a", "--max_new_tokens", "2"]) == 0
    assert main(["models", "convert", "tiny-random", "copy"]) == 2


def test_the_installed_command_tells_mistakes_without_a_traceback(here):
    done = subprocess.run([sys.executable, "-m", "etude.cli", "practice", "tinny"], capture_output=True, text=True)
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.startswith("etude: unknown practice configuration 'tinny'") and done.stderr.count("\n") == 1


def test_a_folder_where_a_file_is_to_be_written_is_refused_before_the_work(tmp_path, capsys):
    assert main(["evaluate", "tiny-random", "--evaluation.path", "absent.jsonl", "--json", str(tmp_path)]) == 2
    assert capsys.readouterr().err == f"etude: --json {tmp_path}: is a folder: name a file in it\n"


def test_what_the_system_refuses_is_one_sentence(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert main(["practice", "tiny", "--run", str(tmp_path / "file" / "run")]) == 2
    error = capsys.readouterr().err
    assert error.startswith("etude: ") and error.count("\n") == 1 and "Not a directory" in error


@pytest.mark.parametrize(
    ("command", "function"), [("evaluate", "etude.recipes.evaluate.evaluate"), ("generate", "etude.recipes.generate.generate")]
)
def test_a_signal_ends_a_measurement_with_a_sentence_and_writes_nothing(command, function, here, capsys, monkeypatch):
    monkeypatch.setattr(function, lambda *_, **__: os.kill(os.getpid(), signal.SIGTERM))
    more = ["--prompt", "a"] if command == "generate" else ["--recipe", "tiny"]
    assert main([command, "tiny-random", *more, "--json", "found.json"]) == 143
    assert capsys.readouterr().err == "etude: stopped by SIGTERM\n" and not Path("found.json").exists()
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
