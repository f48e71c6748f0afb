"""Practice, evaluation and generation with Python objects: models, tasks and reward functions."""

import json

import pytest
import torch
from datasets import Dataset

from etude import Reward, Task, UserError, evaluate, generate, practice
from etude.recipes.objects import hold_out, rows_of
from etude.recipes.results import Answer, Answers, RunResult, as_html
from etude.settings.configuration import flatten
from etude.tasks.columns import task_from_row
from etude.tiny import letters, tiny_model, tiny_tokenizer
from etude.training.run_folder import read_configuration

FEW = {
    **{"n": 40, "steps": 2, "tasks_per_step": 4, "num_samples": 4, "retention": {"probe": False}},
    **{"evaluation.pass_n": 2, "evaluation.num_samples": 2, "machine.dtype": "float32", "max_new_tokens": 4, "warm_start.steps": 2},
}
LETTERS = list(letters("train", 60, seed=0))


def says_the_letter(completions, answer, **columns):
    return [float(own in text) - 0.1 * len(text) for text, own in zip(completions, answer, strict=True)]


def longer(completion):
    return len(completion) / 10


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_model_tasks_and_a_function_are_enough(here):
    model, tokenizer = tiny_model(), tiny_tokenizer()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    result = practice(model=(model, tokenizer), tasks=LETTERS, reward=says_the_letter, **FEW)
    assert isinstance(result, RunResult) and result.folder.name == "default"
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert {row["suite"] for row in result.evaluation} == {"held_out"}
    assert result.gain == result.after.accuracy - result.before.accuracy
    settings = flatten(read_configuration(result.folder / "configuration.yaml"))
    assert settings["tasks.verifier"] == "python:says_the_letter" and settings["model"] == "runs/default/given/model"
    rows = [json.loads(line) for line in (result.folder / "given/tasks.jsonl").read_text().splitlines()]
    held_out = [json.loads(line) for line in (result.folder / "given/evaluation/held_out.jsonl").read_text().splitlines()]
    assert len(rows) + len(held_out) == 60 and not {row["question"] for row in rows} & {row["question"] for row in held_out}
    assert len(list((result.folder / "attempts").iterdir())) == 2
    (answer,) = generate(result.model, "repeat c after 12: c", max_new_tokens=2)
    assert isinstance(answer, Answer) and answer.text == str(answer)
    again = practice(model=(model, tokenizer), tasks=LETTERS, reward=says_the_letter, **FEW)
    assert again.folder.name == "default-2" and dict(again) | {"weights": ""} == dict(result) | {"weights": ""}


def test_objects_train_as_files_do(here):
    """The same tasks as a list and as a file, the same function as an object and in a file, the same model by name: equal numbers."""
    for name, rows in (("train", LETTERS[:40]), ("test", LETTERS[40:])):
        (here / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (here / "mine.py").write_text("def judge(text, task):\n    return float(task.answer in text) - 0.1 * len(text)\n")
    files = {"tasks.path": ["train.jsonl"], "evaluation.path": ["test.jsonl"], "tasks.verifier": "mine.py:judge", "model": "tiny-random"}
    of_files = practice("default", FEW | files, run=here / "files")
    model = (tiny_model(), tiny_tokenizer())
    how = {"tasks": LETTERS[:40], "evaluation": {"test": LETTERS[40:]}, "reward": says_the_letter, "run": here / "objects"}
    of_objects = practice(model=model, **how, **FEW)
    for name in ("evaluation", "paired"):
        assert of_files[name] == of_objects[name]
    assert (here / "files/metrics.jsonl").read_text() == (here / "objects/metrics.jsonl").read_text()


def test_a_run_keeps_what_differs_from_its_recipe(here, small):
    small(here / "run", {"steps": 3, "token_budget.tokens": 9})
    changed = json.loads((here / "run/environment.json").read_text())["changed_settings"]
    assert changed["steps"] == "3 (40)" and changed["token_budget.tokens"] == "9 (null)" and "model" not in changed


def test_an_interrupted_run_goes_on_with_the_same_call_and_no_other(here, killed_behind_step_3):
    call = {"model": "tiny-random", "tasks": LETTERS, "run": here / "run", **FEW, "steps": 5, "save_steps": 2}
    whole = practice(**call | {"run": here / "whole"}, reward=says_the_letter)
    with killed_behind_step_3:
        practice(**call, reward=says_the_letter)
    for wrong, sentence in (
        ({"reward": longer}, "tasks.verifier"),
        ({"reward": says_the_letter, "tasks": LETTERS[:50]}, "changed since the run began"),
    ):
        with pytest.raises(UserError, match=sentence):
            practice(**call | wrong, resume=True)
    resumed = practice(**call, reward=says_the_letter, resume=True)
    assert dict(resumed) == dict(whole)


def test_a_changed_function_of_the_same_name_does_not_resume(here, killed_behind_step_3):
    def versions(text):
        def score(completion):
            return len(completion)

        def other(completion):
            return -len(completion)

        other.__name__ = "score"
        return score if text == "old" else other

    call = {"model": "tiny-random", "tasks": LETTERS, "run": here / "run", **FEW, "steps": 5, "save_steps": 2}
    with killed_behind_step_3:
        practice(**call, reward=versions("old"))
    with pytest.raises(UserError, match="the verifier python:score changed since the run"):
        practice(**call, reward=versions("new"), resume=True)


def test_functions_are_weighed_and_their_parts_logged(here):
    weights = {"longer": 0.5}
    result = practice(model="tiny-random", tasks=LETTERS, reward=[says_the_letter, longer], reward_weights=weights, **FEW)
    first = json.loads((result.folder / "metrics.jsonl").read_text().splitlines()[2])
    assert first["phase"] == "practice"
    total = first["part_says_the_letter"] + 0.5 * first["part_longer"]
    assert first["mean_reward"] == pytest.approx(total)


def test_a_model_as_an_object_is_measured_and_asked_as_one_by_name(here):
    pair = (tiny_model(), tiny_tokenizer())
    rows = [{"question": row["question"], "answer": row["answer"]} for row in LETTERS[:10]]
    how = {"max_new_tokens": 3, "num_samples": 2, "machine": {"dtype": "float32"}}
    found, by_name = evaluate(pair, tasks=rows, **how), evaluate("tiny-random", tasks=rows, **how)
    assert [row.pop("model") for row in found.evaluation] == [found.model]
    by_name.evaluation[0].pop("model")
    assert found.evaluation == by_name.evaluation and found["items"] == by_name["items"]
    scored = evaluate(pair, tasks={"easy": rows[:4], "hard": rows[4:]}, reward=longer, **how)
    assert [(row["suite"], row["n"]) for row in scored.evaluation] == [("easy", 4), ("hard", 6)]
    assert generate(pair, ["repeat c", "repeat d"], max_new_tokens=3) == generate("tiny-random", ["repeat c", "repeat d"], max_new_tokens=3)


TASKS = [Task("a", "1", "numeric", metadata={"level": 2}), Task(({"role": "user", "content": "b"},), None)]


@pytest.mark.parametrize(
    ("tasks", "rows"),
    [
        (["a", "b"], [{"question": "a"}, {"question": "b"}]),
        ([{"prompt": "a", "level": 1}], [{"prompt": "a", "level": 1}]),
        (Dataset.from_list([{"prompt": "a", "level": 1}]), [{"prompt": "a", "level": 1}]),
        (
            TASKS,
            [
                {"question": "a", "answer": "1", "verifier": "numeric", "metadata": {"level": 2}},
                {"messages": [{"role": "user", "content": "b"}], "verifier": "exact"},
            ],
        ),
    ],
)
def test_tasks_of_all_kinds_become_rows(tasks, rows):
    assert rows_of(tasks, "tasks") == rows


def test_a_task_stays_the_same_as_a_row():
    (first, second) = (task_from_row(row, origin="", columns={}) for row in rows_of(TASKS, "tasks"))
    assert first == TASKS[0] and second == TASKS[1]


def test_held_out_tasks_share_no_prompt_with_the_others_and_do_not_depend_on_the_order():
    rows = [{"question": f"question {number % 30}", "n": number} for number in range(60)]
    train, held_out = hold_out(rows)
    assert len(held_out) == 12 and len(train) == 48
    assert not {row["question"] for row in train} & {row["question"] for row in held_out}
    turned = hold_out(rows[::-1])
    assert {row["question"] for row in turned[1]} == {row["question"] for row in held_out}
    assert len(hold_out([{"question": str(n)} for n in range(5000)])[1]) == 200


def test_results_are_shown_as_tables_with_escaped_texts():
    answers = Answers([Answer(prompt="<b>", completions=["x\ny", "\x1b[2J"], finish=["stop", "stop"])])
    assert repr(answers).splitlines() == ["prompt  answer", "<b>     x y", "<b>     ?[2J"]
    assert "&lt;b&gt;" in answers._repr_html_() and "<b>" not in as_html([["h"], ["<b>"]])
    with pytest.raises(AttributeError, match="Answer has no 'txt': it has prompt, completions, finish"):
        _ = answers[0].txt
    assert "completions" in dir(answers[0])


def test_a_reward_object_is_part_of_the_interface():
    assert Reward(0.5).score == 0.5
