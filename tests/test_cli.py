"""The command: what it prints, and that every mistake is one sentence and exit code 2."""

import json
import logging
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
    Path("faulty.py").write_text("def rows(:")
    monkeypatch.syspath_prepend(tmp_path)
    Path("unknown.yaml").write_text("tasks: {path: good.jsonl}\nrollout: {num_sample: 4}\n")
    (tmp_path / "pickled").mkdir()
    Path("pickled/config.json").write_text("{}")
    Path("pickled/pytorch_model.bin").write_text("")
    return tmp_path


SMALL = ["--n", "20", "--steps", "1", "--warm_start.steps", "0", "--evaluation.n", "5", "--evaluation.num_samples", "0"]
TINY = "practice tiny --tasks.path good.jsonl --evaluation.path test.jsonl"
MISTAKES = {
    "practise tiny": "unknown command 'practise': did you mean 'practice'?",
    "practice": "practice needs a configuration: a YAML file or one of ",
    "practice tinny": "unknown practice configuration 'tinny': did you mean 'tiny'?",
    "practice none.yaml": "configuration 'none.yaml': no such file",
    "practice unknown.yaml": "unknown.yaml: unknown setting rollout.num_sample: did you mean rollout.num_samples?",
    "practice tiny --stepz 3": "unknown setting --stepz: did you mean --steps?",
    "practice tiny --steps many": "--steps: expected a whole number, got many",
    "practice tiny --run": "--run needs a value",
    "practice tiny --data nowhere": "--data nowhere: no such folder",
    "practice tiny --resume": "--resume: runs/tiny holds no run",
    "practice tiny --model smollm2": "unknown model 'smollm2': did you mean 'smollm2-135m'?",
    "practice tiny --model pickled": "model 'pickled': expected *.safetensors, found only pytorch_model.bin, a pickle",
    "practice tiny --machine.device abacus": "machine.device 'abacus' can't be used here",
    "practice tiny --tasks.path goot.jsonl --evaluation.path goot.jsonl": "path 'goot.jsonl' is not a file in the current folder: did you ",
    "practice word_problems": "path 'word_problems/test.jsonl' is not a file in the current folder: correct it, or name the folder that ",
    "practice tiny --tasks.path good.jsonl --evaluation.path good.jsonl": "every training item stands in the evaluation too",
    f"{TINY} --rollout.max_new_tokens 300": "max_new_tokens 300 leaves no room for a prompt: the model has 256 positions",
    f"{TINY} --learn.optimizer.lr_scheduler linear --learn.optimizer.decay_steps 5": "learn.optimizer.decay_steps is 5, but the run may ",
    f"{TINY} --learn.optimizer.betas [1.0,0.95]": "learn.optimizer.betas must lie in [0, 1), got [1.0, 0.95]",
    f"{TINY} --learn.preference.beta -1": "learn.preference.beta must be above 0, got -1.0",
    f"{TINY} --preferences.loss dppo": "unknown preferences.loss 'dppo': did you mean 'dpo'?",
    f"{TINY} --search mcts --rollout.search.width 1 --rollout.search.simulations 1": "rollout.search.method mcts finds one ",
    f"{TINY} --machine.device mps": "machine.device 'mps' can't be used: its random numbers need float64",
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
    "report good.jsonl": "run folder 'good.jsonl' is not a folder",
    "report pickled": "pickled holds no run, since it has none of",
    "report --out page.html": "report needs the folder of a run",
    "report pickled --format pdf": "unknown option --format: etude report RUN",
    "models convert tiny-random x.gguf": "x.gguf: a conversion is a folder of safetensors, not a .gguf file: name a folder",
    "practice tiny --dry_run": "unknown option --dry_run: did you mean --dry-run?",
    "practice tiny --output_dir x": "unknown option --output_dir: did you mean --run?",
    "practice tiny --run=": "--run needs a value, and got an empty one",
    "practice tiny --json absent/x.json": "--json absent/x.json: there is no folder ",
    "practice tiny --json good.jsonl": "--json good.jsonl: exists already, and etude did not write it: name another file",
    "evaluate tiny-random --evaluation.path absent.jsonl --json pickled": "--json pickled: is a folder: name a file in it",
    "evaluate tiny-random --json good.jsonl --evaluation.path good.jsonl": "--json good.jsonl: exists already, and etude did not",
    "generate tiny-random --prompt a --method majority --page good.jsonl": "--page good.jsonl: exists already, and etude did not",
    "practice tiny --seed -5": "seed must be at least 0, got -5",
    "practice tiny --rollout.tasks_per_step 100000": "rollout.tasks_per_step is 100,000, but there are 400 tasks to practise on: ",
    "practice tiny --machine.device tpu": "machine.device 'tpu' can't be used here: choose auto, cpu, cuda, or one such as cuda:1",
    "practice tiny --machine.device gpu": "machine.device 'gpu' can't be used here: did you mean 'cuda'? choose auto, cpu, cuda, or one",
    "practice tiny --machine.dtype bf16": "--machine.dtype: expected one of 'auto', 'float32', 'bfloat16', got bf16: did you mean",
    "practice tiny --tasks.function faulty.py": "a function is named file.py:function or package.module:function, got 'faulty.py': say",
    "practice tiny --learn.optimiser.learning_rate 1": "unknown setting --learn.optimiser.learning_rate: it is --learn.optimizer.learning",
    "practice tiny --explore mcts": "unknown setting --explore: it is --search now",
    "practice tiny --learn.loss clipped": "unknown learn.loss 'clipped': did you mean 'ppo'?",
    "practice tiny --rollout.sampling.temperature 1e-300": "temperature must be 0 (greedy), or 0.001 or more, got 1e-300",
    "generate tiny-random --prompt a --top_k 1": "unknown setting --top_k: did you mean --sampling.top_k?",
    "generate tiny-random --file /dev/null": "there is no prompt: /dev/null is empty; give --prompt TEXT",
    "generate tiny-random --file pickled": "--file pickled: is a folder: name a file in it",
    "evaluate tiny-random --tasks gsm8k": "unknown setting --tasks: a suite that ships is named by --suite NAME, files of tasks by ",
    "evaluate tiny-random --model tiny-random": "the model is given twice: tiny-random and --model tiny-random; give it once",
    "models delete": "models takes: list, fetch NAME, convert MODEL FOLDER, interpolate START END --factor A --out DIR, or export",
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


def test_a_dry_run_prints_a_configuration_that_can_be_run_again_and_writes_nothing(capsys, here):
    before = sorted(here.rglob("*"))
    assert main(["practice", "tiny", "--dry-run", "--steps", "7", "--run", "planned"]) == 0
    text = capsys.readouterr().out
    assert yaml.safe_load(text)["steps"] == 7
    assert "# tasks: train 400, demonstrations 64, evaluation 200, overlap_removed 0, near_copies 0" in text
    assert "# 7 steps, 896 attempts of at most 4 tokens" in text
    assert re.search(r"^# at most about \d+ s here \(warm_start \d+ s, .*\), \d\.\d GB of memory, 0\.\d+ GB of disk$", text, re.MULTILINE)
    assert sorted(here.rglob("*")) == before
    Path("again.yaml").write_text(text)
    assert main(["practice", "again.yaml", "--dry-run"]) == 0
    assert yaml.safe_load(capsys.readouterr().out) == yaml.safe_load(text)


WITHOUT_TORCH = (
    *("--help", "--version", "models list", "models --help", "report --help", "report nowhere"),
    *(f"{command} --help" for command in ("practice", "adapt", "evaluate", "generate")),
    *(
        "practice tiny --stepz 3",
        "practice tiny --steps many",
        "practice tiny --learn.advantage loo",
        "practice tiny --kl_penalty.kl_coef -1",
    ),
    *("practice tiny --json absent/x.json", "practice tiny --rollout.tasks_per_step 100000", "practice tinny", "adapt python --lr 1"),
    *("evaluate tiny-random --typo 1", "generate tiny-random --typo 1", "generate tiny-random --prompt a --num_samples 0"),
)


def test_settings_are_listed_checked_and_refused_without_torch():
    code = f"""
import sys
from etude.cli import main
from etude.settings.configuration import find_configuration
from etude.training.parse import parse_practice
for command in {WITHOUT_TORCH}:
    main(command.split())
    loaded = {{"torch", "transformers", "datasets", "peft"}} & sys.modules.keys()
    assert not loaded, (command, loaded)
parse_practice(find_configuration("practice", "quickstart"), ["--steps", "3"])
assert "torch" not in sys.modules
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for told in (*(f"etude {command}" for command in COMMANDS), "\netude 0.", "name\tmodel\tstate\nsmollm2-135m\t"):
        assert told in done.stdout
    assert done.stderr.count("\n") == sum("--help" not in each and each not in ("--version", "models list") for each in WITHOUT_TORCH)


@pytest.mark.parametrize(
    ("command", "setting"), [("practice", "--rollout.num_samples"), ("evaluate", "--evaluation.path"), ("generate", "--stop")]
)
def test_the_help_of_a_command_teaches_its_settings(command, setting, capsys):
    assert main([command, "--help"]) == 0
    text = capsys.readouterr().out
    assert text.startswith(f"etude {command}") and setting in text
    assert "default: " in text and "CONFIG" not in text and "ITEM,..." not in text


def test_help_is_short_and_goes_deeper_where_it_is_asked_to(capsys):
    def told(words):
        assert main(words.split()) == 0
        return capsys.readouterr().out

    short, whole = told("practice --help"), told("practice --help all")
    assert short.count("\n") < 200 < 1000 < whole.count("\n")
    assert "here: 40" in told("practice tiny --help") and "here:" not in short
    assert told("practice tiny --help learn").startswith("Settings of learning from scored attempts")
    assert "--temperature" in told("generate --help") and "--num_samples" in told("evaluate --help num_samples")
    assert "--suite" in told("evaluate --help") and "--study.tokens" in told("adapt python --help")
    assert main(["practice", "--help", "lern"]) == 2
    assert "did you mean 'learn'" in capsys.readouterr().err


def test_recipes_are_listed_and_shown(capsys):
    assert main(["recipes"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert {line.split()[1] for line in lines} >= {"quickstart", "tiny", "python", "retention", "long", "domain"}
    assert {line.split()[0] for line in lines} == {"practice", "adapt", "evaluate"}
    assert main(["recipes", "show", "tiny"]) == 0
    assert yaml.safe_load(capsys.readouterr().out)["model"] == "tiny-random"
    assert main(["recipes", "show", "tinny"]) == 2
    assert capsys.readouterr().err.startswith("etude: unknown recipe 'tinny': did you mean 'tiny'?")


def test_a_practice_of_ones_own_begins_with_one_command(capsys, here, monkeypatch):
    assert main(["init", "mine"]) == 0
    files = [Path(line) for line in capsys.readouterr().out.splitlines()]
    assert [file.name for file in files] == ["recipe.yaml", "verifier.py", "tasks.jsonl", "evaluation.jsonl"]
    tasks, held_out = ({json.loads(line)["question"] for line in file.read_text().splitlines()} for file in files[2:])
    assert len(tasks) == 128 and len(held_out) == 32 and not tasks & held_out
    before = files[1].read_text()
    assert main(["init", "mine"]) == 2 and "exists already" in capsys.readouterr().err and files[1].read_text() == before
    monkeypatch.chdir("mine")
    less = [
        "--model",
        "tiny-random",
        "--steps",
        "1",
        "--tasks_per_step",
        "2",
        "--num_samples",
        "2",
        "--evaluation.n",
        "4",
        "--evaluation.pass_n",
        "0",
    ]
    assert main(["practice", "recipe.yaml", *less, "--retention.probe", "false"]) == 0
    assert json.loads(Path("runs/recipe/result.json").read_text())["evaluation"][0]["mean_reward"] is not None


def test_a_shell_completes_commands_recipes_and_settings(here):
    for command, expected in {
        "COMP_WORDS=(etude pra); COMP_CWORD=1": {"practice"},
        "COMP_WORDS=(etude practice quick); COMP_CWORD=2": {"quickstart"},
        "COMP_WORDS=(etude practice quickstart --gate.ev); COMP_CWORD=3": {"--gate.every"},
        "COMP_WORDS=(etude generate m --temp); COMP_CWORD=3": {"--temperature"},
    }.items():
        script = f'eval "$({sys.executable} -m etude completion bash)"; {command}; _etude; echo "${{COMPREPLY[@]}}"'
        done = subprocess.run(["bash", "-c", script], capture_output=True, text=True)
        assert set(done.stdout.split()) == expected and not done.stderr


def test_a_dry_run_begins_with_what_differs_from_the_recipe(capsys):
    assert main(["practice", "tiny", "--dry-run", "--steps", "3", "--token_budget.tokens", "2000"]) == 0
    first = capsys.readouterr().out.splitlines()[0]
    assert first.startswith("# changed from tiny: steps 3 (40), ") and "token_budget.tokens 2000 (null)" in first


def test_a_run_tells_of_settings_without_effect_as_its_dry_run_did_and_is_reported_and_its_result_copied(capsys, here):
    given = ["--kv_cache.keep_ratio", "0.5", "--learn.pass_k", "3"]
    assert main(["practice", "tiny", "--dry-run", *given]) == 0
    said = next(line.removeprefix("# ") for line in capsys.readouterr().out.splitlines() if "unused settings" in line)
    assert said == "unused settings: learn.pass_k: learn.advantage is dr_grpo; kv_cache.keep_ratio: kv_cache.policy is full"
    assert main(["practice", "tiny", *SMALL, *given, "--json", "result.json"]) == 0
    text = capsys.readouterr().out
    assert said in text.splitlines() and "runs/tiny/report.html" in text
    assert json.loads(Path("result.json").read_text()) == json.loads(Path("runs/tiny/result.json").read_text())
    assert main(["report", "runs/tiny", "--out", "page.html"]) == 0
    assert capsys.readouterr().out.strip() == "page.html" and Path("page.html").stat().st_size > 1000
    assert main(["practice", "tiny", *SMALL]) == 2
    assert capsys.readouterr().err.startswith("etude: runs/tiny exists already and is never overwritten")


def test_a_model_is_converted(capsys, here):
    assert main(["models", "convert", "tiny-random", "copy"]) == 0
    assert main(["generate", "copy", "--prompt", "a", "--max_new_tokens", "2"]) == 0
    assert main(["models", "convert", "tiny-random", "copy"]) == 2


def test_the_installed_command_tells_mistakes_without_a_traceback(here):
    done = subprocess.run([sys.executable, "-m", "etude", "practice", "tinny"], capture_output=True, text=True)
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.startswith("etude: unknown practice configuration 'tinny'") and done.stderr.count("\n") == 1


def test_what_the_system_refuses_is_one_sentence(capsys):
    assert main(["practice", "tiny", "--run", "good.jsonl/run"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("etude: ") and error.count("\n") == 1 and "Not a directory" in error


def test_nobody_who_reads_is_no_mistake():
    command = subprocess.Popen([sys.executable, "-m", "etude", "practice", "--help"], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    command.stdout.close()
    assert command.stderr.read() == b"" and command.wait() == 0
    command.stderr.close()


def test_the_result_alone_goes_to_standard_output_where_it_is_asked_for(capfd, here):
    assert main(["practice", "tiny", *SMALL, "--json", "-"]) == 0
    captured = capfd.readouterr()
    assert json.loads(captured.out) == json.loads(Path("runs/tiny/result.json").read_text()) and "practice 1:" in captured.err
    assert main(["report", "runs/tiny", "--out", "-"]) == 0
    assert capfd.readouterr().out.startswith("<!doctype html>")
    Path("page.html").write_text("mine")
    assert main(["report", "runs/tiny", "--out", "page.html"]) == 2 and Path("page.html").read_text() == "mine"
    assert "etude did not write it" in capfd.readouterr().err
    assert main(["report", "runs/tiny", "--out", "page.html", "--force"]) == 0
    assert main(["report", "runs/tiny", "--out", "page.html"]) == 0  # now it is etude's
    assert capfd.readouterr().out == "page.html\npage.html\n"


def test_answers_alone_go_to_standard_output_as_a_result(capfd):
    assert main(["generate", "tiny-random", "--prompt", "a", "--max_new_tokens", "2", "--json", "-"]) == 0
    captured = capfd.readouterr()
    assert [row["completions"] for row in json.loads(captured.out)] == [[captured.err.removesuffix("\n")]]


def test_a_quiet_run_says_only_how_it_ended(capsys, here):
    assert main(["practice", "tiny", "-q", *SMALL]) == 0
    text = capsys.readouterr().out
    assert "practice 1:" not in text and "measuring" not in text and "model: runs/tiny/model" in text


def test_a_mistake_is_shown_where_it_was_found_when_that_is_asked_for(capsys):
    assert main(["practice", "tiny", "--steps", "many", "--verbose"]) == 2
    error = capsys.readouterr().err
    assert "Traceback" in error and error.endswith("etude: --steps: expected a whole number, got many\n")


def test_the_model_may_be_named_by_an_option(capsys):
    assert main(["evaluate", "--model", "tiny-random", "--evaluation.path", "good.jsonl", "--max_new_tokens", "2"]) == 0
    assert "good: 0.0% [" in capsys.readouterr().out


def test_a_warning_is_told_once_and_by_etude_alone(capsys):
    main(["practice", "tinny"])
    main(["practice", "tinny"])
    capsys.readouterr()
    logging.getLogger("etude.models.load").warning("converting")
    logging.getLogger("another.library").info("unheard")
    assert capsys.readouterr().err == "etude: converting\n"


@pytest.mark.parametrize("command", ["generate tiny-random --prompt a", "evaluate tiny-random --evaluation.path good.jsonl"])
def test_a_command_without_a_run_does_not_speak_of_going_on(command, capsys, monkeypatch):
    def stopped(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("etude.recipes.generate.load_model", stopped)
    monkeypatch.setattr("etude.recipes.evaluate.load_model", stopped)
    assert main(command.split()) == 130
    assert capsys.readouterr().err == "etude: interrupted\n"


def test_an_adaptation_that_is_stopped_says_how_to_go_on_once_it_has_a_folder(capsys, monkeypatch, here):
    def stopped(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("etude.recipes.adapt.adapt_named", stopped)
    given = ["adapt", "python", "--run", "run"]
    assert main(given) == 130 and capsys.readouterr().err == "etude: interrupted\n"
    Path("run").mkdir()
    Path("run/configuration.yaml").write_text("")
    assert main(given) == 130 and capsys.readouterr().err == "etude: interrupted; go on with --resume\n"


@pytest.mark.parametrize(
    ("command", "function"), [("evaluate", "etude.recipes.evaluate.evaluate"), ("generate", "etude.recipes.generate.generate")]
)
def test_a_signal_ends_a_measurement_with_a_sentence_and_writes_nothing(command, function, here, capsys, monkeypatch):
    monkeypatch.setattr(function, lambda *_, **__: os.kill(os.getpid(), signal.SIGTERM))
    more = ["--prompt", "a"] if command == "generate" else ["--recipe", "tiny"]
    assert main([command, "tiny-random", *more, "--json", "found.json"]) == 143
    assert capsys.readouterr().err == "etude: stopped by SIGTERM\n" and not Path("found.json").exists()
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
