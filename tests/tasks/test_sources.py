import builtins
import csv
import json
import time
from contextlib import nullcontext
from dataclasses import replace

import pytest

from etude.errors import UserError
from etude.tasks import TaskSource, load_tasks
from etude.tasks.checks import check_answers


@pytest.fixture(autouse=True)
def hub_is_there(monkeypatch):
    """So that nobody asks for it: `tests/test_hub.py` does."""
    monkeypatch.setattr("etude.tasks.hub.hub_if_reachable", nullcontext)


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def load(path, n=None, seed=0, data=None, **settings):
    return load_tasks(TaskSource(path=[path], **settings), split="train", n=n, seed=seed, data=data)


def test_word_problems_are_worked_by_their_steps(tmp_path):
    path = write(tmp_path / "a.jsonl", [{"question": "How many?", "answer": "12", "steps": ["3 * 4 = 12"]}])
    (task,) = load(path)
    assert (task.answer, task.verifier, task.worked) == ("12", "numeric", "3 * 4 = 12\nThe answer is 12.")
    assert task.origin == "a.jsonl:1"


def test_svamp_joins_body_and_question(tmp_path):
    rows = [
        {"Body": "Dan had 3 pens", "Question": "How many?", "Answer": 51.0},
        {"Body": "He left.", "Question": "How many?", "Answer": 2.5},
    ]
    (tmp_path / "a.json").write_text(json.dumps(rows))
    tasks = load(str(tmp_path / "a.json"))
    assert [task.prompt for task in tasks] == ["Dan had 3 pens. How many?", "He left. How many?"]
    assert [task.answer for task in tasks] == ["51", "2.5"]


def test_gsm8k_loses_its_marks(tmp_path):
    path = write(tmp_path / "a.jsonl", [{"question": "How many?", "answer": "She has 5*400=<<5*400=2000>>2000.\n#### 2,000"}])
    (task,) = load(path)
    assert (task.answer, task.worked) == ("2000", "She has 5*400=2000.\nThe answer is 2000.")


@pytest.mark.parametrize(("answer", "letter"), [(1, "B"), ("B", "B"), ("a pear", "B"), (0, "A")])
def test_a_multiple_choice_task_shows_lettered_choices(tmp_path, answer, letter):
    path = write(tmp_path / "a.jsonl", [{"q": "Which is a fruit?", "options": ["a stone", "a pear"], "a": answer}])
    (task,) = load(path, columns={"question": "q", "choices": "options", "answer": "a"})
    assert task.prompt == "Which is a fruit?\nA. a stone\nB. a pear"
    assert (task.answer, task.verifier, task.metadata) == (letter, "choice", {"choices": ["a stone", "a pear"]})


@pytest.mark.parametrize(
    ("labels", "answer", "letter"), [(["1", "2", "3"], 2, "B"), ([1, 2, 3], 1, "A"), (["A", "B", "C"], 2, "C"), (["A", "B", "C"], "B", "B")]
)
def test_a_label_of_the_source_wins_over_an_index(tmp_path, labels, answer, letter):
    choices = {"text": ["a stone", "a pear", "a chair"], "label": labels}
    path = write(tmp_path / "a.jsonl", [{"question": "Which is a fruit?", "choices": choices, "answer": answer}])
    assert load(path)[0].answer == letter


def test_an_index_may_be_text_where_it_can_be_nothing_else(tmp_path):
    (tmp_path / "a.csv").write_text('question,choices,answer\nWhich?,"[""a stone"", ""a pear""]",1\nWhich?,"[""1"", ""2""]",1\n')
    assert [task.answer for task in load(str(tmp_path / "a.csv"))] == ["B", "A"]
    choices = {"text": ["a stone", "a pear"], "label": ["X", "Y"]}
    path = write(tmp_path / "a.jsonl", [{"question": "Which?", "choices": choices, "answer": "1"}])
    with pytest.raises(UserError, match="answer '1' is not a choice"):
        load(path)


def test_messages_and_own_verifiers_and_other_columns_are_kept(tmp_path):
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Capital of France?"}]
    path = write(
        tmp_path / "a.jsonl", [{"messages": messages, "answer": "Paris", "level": 3}, {"prompt": "2?", "answer": 2, "verifier": "math"}]
    )
    chat, plain = load(path)
    assert chat.prompt == tuple(messages) and chat.question == "Capital of France?"
    assert (chat.verifier, chat.metadata) == ("exact", {"level": 3})
    assert (plain.verifier, plain.answer) == ("math", "2")


@pytest.mark.parametrize(("value", "kept"), [("hard", {"metadata": "hard"}), ([1], {"metadata": [1]}), ({"a": 1}, {"a": 1}), (None, {})])
def test_metadata_that_is_no_object_is_kept_under_its_name(tmp_path, value, kept):
    path = write(tmp_path / "a.jsonl", [{"question": "a", "answer": "1", "metadata": value}])
    assert load(path)[0].metadata == kept


@pytest.fixture
def trap(tmp_path, monkeypatch):
    """The name of a function in a file that leaves a mark when it is run."""
    (tmp_path / "trap.py").write_text("from pathlib import Path\nPath('sprung').touch()\ndef verify(text, task): return 1.0\n")
    monkeypatch.chdir(tmp_path)
    return "trap.py:verify"


def test_a_row_of_data_cannot_name_code_to_run(tmp_path, trap, monkeypatch):
    import datasets

    row = {"question": "a", "answer": "1", "verifier": trap}
    message = r"unknown verifier 'trap.py:verify': Choices: aliases, .*: set tasks\.verifier to use a function of your own"
    with pytest.raises(UserError, match=r"^a\.jsonl:1: " + message):
        load(write(tmp_path / "a.jsonl", [row]))
    with pytest.raises(UserError, match=r"^a\.jsonl:1: "):
        load(write(tmp_path / "a.jsonl", [{**row, "verifier": "", "code": trap}]), columns={"verifier": "code"})
    monkeypatch.setattr(datasets, "load_dataset", lambda *arguments, **options: [row])
    with pytest.raises(UserError, match=r"^some/set/test\[0\]: " + message):
        load_tasks(TaskSource(dataset="some/set"), split="test", n=None, seed=0)
    assert load(str(tmp_path / "a.jsonl"), verifier="numeric")[0].verifier == "numeric"
    assert not (tmp_path / "sprung").exists()


def test_the_user_may_name_a_verifier_of_their_own(tmp_path, trap):
    path = write(tmp_path / "a.jsonl", [{"question": "a", "answer": "1"}])
    assert load(path, verifier=trap)[0].verifier == trap
    (tmp_path / "mine.py").write_text(f"def rows(split, n, seed):\n    yield {{'question': 'a', 'answer': '1', 'verifier': '{trap}'}}\n")
    assert load_tasks(TaskSource(function="mine.py:rows"), split="test", n=None, seed=0)[0].verifier == trap


def test_csv_is_read_with_mapped_columns_and_a_question_template(tmp_path):
    with (tmp_path / "a.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["text", "gold", "unit"], ["How far,\nin all?", "3", "km"]])
    (task,) = load(
        str(tmp_path / "a.csv"), columns={"answer": "gold"}, question="{text} (in {unit})", worked_format="The answer is {answer}."
    )
    assert (task.prompt, task.answer, task.worked) == ("How far,\nin all? (in km)", "3", "The answer is 3.")


def test_an_answers_names_are_read_from_a_list_or_between_semicolons(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"qText": "Who?", "answers": ["Mark Twain", "Samuel Clemens"]}\n')
    (tmp_path / "b.csv").write_text('qText,answers\n"Who?","Mark Twain; Samuel Clemens; Mark Twain"\n')
    columns = {"question": "qText", "answer": "answers"}
    for name in ("a.jsonl", "b.csv"):
        source = TaskSource(path=[str(tmp_path / name)], verifier="aliases", columns=columns)
        (task,) = load_tasks(source, split="train", n=None, seed=0)
        assert (task.answer, task.metadata["aliases"]) == ("Mark Twain", ["Mark Twain", "Samuel Clemens"])


def test_a_rows_own_column_of_aliases_adds_names(tmp_path):
    rows = [
        '{"question": "Who?", "answer": "Mark Twain", "aliases": ["Samuel Clemens"]}',
        '{"question": "Who?", "answer": "A", "aliases": "B; C"}',
    ]
    (tmp_path / "a.jsonl").write_text("\n".join(rows))
    tasks = load_tasks(TaskSource(path=[str(tmp_path / "a.jsonl")], verifier="aliases"), split="train", n=None, seed=0)
    assert [task.metadata["aliases"] for task in tasks] == [["Mark Twain", "Samuel Clemens"], ["A", "B", "C"]]


def test_a_relative_path_is_looked_up_here_and_then_in_the_data_folder(tmp_path, monkeypatch):
    (tmp_path / "data").mkdir()
    (tmp_path / "here").mkdir()
    write(tmp_path / "data" / "train.jsonl", [{"question": "data", "answer": "1"}])
    monkeypatch.chdir(tmp_path / "here")
    assert load("{split}.jsonl", data=tmp_path / "data")[0].prompt == "data"
    write(tmp_path / "here" / "train.jsonl", [{"question": "here", "answer": "1"}])
    assert load("{split}.jsonl", data=tmp_path / "data")[0].prompt == "here"


def test_n_tasks_are_picked_by_seed_in_their_order(tmp_path):
    path = write(tmp_path / "a.jsonl", [{"question": str(i), "answer": str(i)} for i in range(50)])
    first, again, other = (load(path, n=10, seed=seed) for seed in (0, 0, 1))
    assert first == again and first != other
    numbers = [int(task.prompt) for task in first]
    assert numbers == sorted(numbers) and len(set(numbers)) == 10
    with pytest.raises(UserError, match=r"a\.jsonl gave 50 tasks for split 'train', n = 51 were asked for: ask for at most 50"):
        load(path, n=51)
    with pytest.raises(UserError, match="n must be at least 1"):
        load(path, n=0)


BROKEN = [
    ("a.jsonl", '{"question": "a", "answer": "1"}\n{"question": ', r"a\.jsonl:2: not JSON"),
    ("a.jsonl", "[1, 2]\n", r"a\.jsonl:1: a row must be an object"),
    ("a.jsonl", "\n", r"a\.jsonl has no rows"),
    ("a.json", "[{]", r"a\.json: not JSON"),
    ("a.json", "3", r"a\.json must be a JSON array"),
    ("a.csv", "question,answer\na,1,2\n", r"a\.csv:2: 3 values for 2 columns \(question, answer\)"),
    ("a.txt", "question", r"a\.txt must end in one of \.jsonl"),
    ("a.jsonl", '{"ask": "a", "gold": "1"}', r"a\.jsonl:1: no question\. The columns are ask, gold; say which is which"),
    (
        "a.jsonl",
        '{"question": "a", "answer": "x", "verifier": "numeric"}',
        r"a\.jsonl:1: the numeric verifier cannot read the answer: no number",
    ),
    ("a.jsonl", '{"question": "a", "answer": "C", "choices": ["x", "y"]}', r"a\.jsonl:1: answer 'C' is not a choice: give a letter A-B"),
    ("a.jsonl", '{"question": "a", "answer": "A", "choices": ["x"]}', r"a\.jsonl:1: choices must be a list of 2 to 26 texts"),
    ("a.jsonl", '{"messages": [{"role": "assistant", "content": "a"}]}', r"a\.jsonl:1: messages must be a list"),
    ("a.jsonl", '{"question": "\\ud800", "answer": "1"}', r"a\.jsonl:1: the question is not valid Unicode"),
    ("a.jsonl", '{"question": "a", "answer": "b\\ud800"}', r"a\.jsonl:1: the answer is not valid Unicode: .* at character 1$"),
    ("a.jsonl", '{"question": "", "answer": "1"}', r"a\.jsonl:1: the question is empty: write the text, or leave the row out$"),
    ("a.jsonl", '{"question": null, "answer": "1"}', r"a\.jsonl:1: the question is null: write the text, or leave the row out$"),
    ("a.jsonl", '{"question": 5, "answer": "1"}', r"a\.jsonl:1: the question must be text, got the number 5: put it in quotation marks$"),
    ("a.jsonl", '{"question": "a", "answer": NaN}', r"a\.jsonl:1: the answer is nan, which is not a number"),
    ("a.jsonl", '{"question": "a", "answer": 1}\n{"question": "abc", "answer":\n', r"a\.jsonl:2: not JSON: Expecting value at column 30$"),
    ("a.jsonl", '{"question": "a", "question": "b"}', r"a\.jsonl:1: not JSON that can be read: 'question' is given twice: give it once"),
    ("a.csv", "question,answer,question\na,1,b\n", r"a\.csv:1: column 'question' is named twice: rename one"),
    ("a.jsonl", '{"question": "a", "x": ' + "[" * 900 + "]" * 900 + "}", r"a\.jsonl:1: more than 100 objects and lists within each other"),
    ("a.parquet", "PAR1", r"a\.parquet is not a Parquet file that can be read: "),
]


@pytest.mark.parametrize(("name", "content", "message"), BROKEN)
def test_a_broken_file_is_reported_in_one_sentence(tmp_path, name, content, message):
    (tmp_path / name).write_text(content)
    with pytest.raises(UserError, match=message):
        load(str(tmp_path / name))


def test_bytes_that_are_not_utf8_are_reported(tmp_path):
    (tmp_path / "a.jsonl").write_bytes(b'{"question": "\xff"}')
    with pytest.raises(UserError, match=r"a\.jsonl is not UTF-8 text"):
        load(str(tmp_path / "a.jsonl"))


def test_a_missing_file_is_reported_with_the_nearest_name(tmp_path):
    write(tmp_path / "train.jsonl", [{"question": "a", "answer": "1"}])
    with pytest.raises(UserError, match=r"path '.*trian\.jsonl' is not a file: did you mean 'train\.jsonl'\?"):
        load(str(tmp_path / "trian.jsonl"))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "exactly one of path, family, dataset and function, got none"),
        ({"family": "gcd", "dataset": "x"}, "got family and dataset"),
        ({"dataset": "x", "parameters": {"a": 1}}, "parameters belongs to family and has no effect on dataset"),
        ({"family": "gcd", "dataset_split": "test"}, "dataset_split belongs to dataset"),
        ({"family": "gcd", "columns": {"question": "a"}}, "columns has no effect on family"),
        ({"family": "gcd", "where": {"kind": "a"}}, "where has no effect on family"),
        ({"family": "gcd", "max_worked_steps": 2}, "max_worked_steps counts the lines of worked steps, which a family's items do not have"),
    ],
)
def test_a_setting_without_effect_is_refused(settings, message):
    with pytest.raises(UserError, match=message):
        TaskSource(**settings)


def test_unknown_names_in_columns_are_refused(tmp_path):
    path = write(tmp_path / "a.jsonl", [{"question": "a", "answer": "1"}])
    with pytest.raises(UserError, match="unknown name in columns 'qestion': did you mean 'question'"):
        load(path, columns={"qestion": "question"})
    with pytest.raises(UserError, match=r"unknown column \(columns.answer\) in a.jsonl:1 'anwser': did you mean 'answer'"):
        load(path, columns={"answer": "anwser"})
    with pytest.raises(UserError, match="is not a format string"):
        load(path, question="{question} {")


def test_a_family_without_n_is_refused():
    with pytest.raises(UserError, match="family 'gcd' has no end: say how many tasks with n"):
        load_tasks(TaskSource(family="gcd"), split="train", n=None, seed=0)


def test_a_hub_data_set_is_read_by_the_datasets_library(monkeypatch):
    import datasets

    asked = []

    def load_dataset(*arguments, **options):
        asked.append((arguments, options))
        return [{"question": "a", "answer": "1"}]

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    source = TaskSource(dataset="some/set", dataset_name="main", dataset_split="validation")
    (task,) = load_tasks(source, split="train", n=None, seed=0)
    load_tasks(source, split="test", n=None, seed=0)  # what is measured on is named by evaluation.split
    assert asked == [(("some/set", "main"), {"split": "validation"}), (("some/set", "main"), {"split": "test"})]
    assert task.origin == "some/set/validation[0]"


def test_a_hub_that_cannot_be_reached_is_one_sentence(monkeypatch):
    import datasets

    def load_dataset(*arguments, **options):
        raise ConnectionError("no route\nand a page more")

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    with pytest.raises(UserError, match=r"dataset 'some/set' .* cannot be loaded: no route\. Without a network") as caught:
        load_tasks(TaskSource(dataset="some/set"), split="test", n=None, seed=0)
    assert "\n" not in str(caught.value)


def test_loading_a_file_imports_neither_hub_nor_families(tmp_path, monkeypatch):
    path = write(tmp_path / "a.jsonl", [{"question": "a", "answer": "1"}])
    real = builtins.__import__

    def refuse(name, *arguments, **options):
        assert name.split(".")[0] not in ("datasets", "reasoning_gym", "torch"), name
        return real(name, *arguments, **options)

    monkeypatch.setattr(builtins, "__import__", refuse)
    assert len(load(path)) == 1


def test_only_items_of_so_many_worked_steps_are_taken_where_that_is_asked_for(tmp_path):
    solutions = {1: "1 + 1 = 2\n#### 2", 2: "1 + 1 = 2\n2 + 2 = 4\n#### 4", 3: "a\nb\nc\n#### 5", 0: "6"}
    path = write(tmp_path / "a.jsonl", [{"question": f"q{steps}", "answer": answer} for steps, answer in solutions.items()])
    assert [task.question for task in load(path, max_worked_steps=2)] == ["q1", "q2"]
    assert len(load(path, max_worked_steps=3)) == 3 and len(load(path)) == 4
    bare = write(tmp_path / "b.jsonl", [{"question": "q", "answer": "6"}])
    with pytest.raises(UserError, match=r"b.jsonl has no item with 2 worked steps at most: raise max_worked_steps"):
        load(bare, max_worked_steps=2)


def sections(tmp_path, count=400):
    rows = [{"question": f"What is {i}?", "answer": str(i), "section": f"s{i // 2}", "kind": "ab"[i % 2]} for i in range(count)]
    (tmp_path / "q.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_rows_are_chosen_by_their_columns(tmp_path):
    sections(tmp_path, 10)
    tasks = load_tasks(TaskSource(path=["q.jsonl"], where={"kind": "b"}), split="train", n=None, seed=0, data=tmp_path)
    assert [task.answer for task in tasks] == ["1", "3", "5", "7", "9"]


def test_split_by_puts_all_rows_of_a_value_in_one_split_with_the_given_shares(tmp_path):
    sections(tmp_path)
    source = TaskSource(path=["q.jsonl"], split_by="section", split_shares={"train": 0.5, "dev": 0.2, "test": 0.3})
    splits = {split: load_tasks(source, split=split, n=None, seed=0, data=tmp_path) for split in source.split_shares}
    of_split = {split: {task.metadata["section"] for task in tasks} for split, tasks in splits.items()}
    assert sum(map(len, splits.values())) == 400 and sum(map(len, of_split.values())) == 200
    assert [len(sections) for sections in of_split.values()] == pytest.approx([100, 40, 60], abs=22)
    again = load_tasks(source, split="dev", n=None, seed=5, data=tmp_path)
    assert [task.key for task in again] == [task.key for task in splits["dev"]]


@pytest.mark.parametrize(
    ("source", "split", "sentence"),
    [
        ({"where": {"kidn": "a"}}, "train", r"unknown column in q\.jsonl:1 'kidn': did you mean 'kind'"),
        ({"where": {"kind": "c"}}, "train", r"q\.jsonl gave no tasks for split 'train' with kind c"),
        ({"split_by": "section"}, "validation", "unknown split of section 'validation'"),
        ({"split_shares": {"train": 0.5, "test": 0.4}}, "train", "split_shares must be above 0 and sum to 1"),
    ],
)
def test_wrong_choices_of_rows_are_named(source, split, sentence, tmp_path):
    sections(tmp_path, 10)
    with pytest.raises(UserError, match=sentence):
        load_tasks(TaskSource(path=["q.jsonl"], **source), split=split, n=None, seed=0, data=tmp_path)


def test_parquet_is_read_row_by_row(tmp_path):
    import pyarrow
    from pyarrow import parquet

    rows = [{"question": "a", "answer": "1", "choices": None}, {"question": "Which?", "answer": "B", "choices": ["x", "y"]}]
    parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "a.parquet")
    first, second = load(str(tmp_path / "a.parquet"))
    assert (first.prompt, first.answer, first.origin) == ("a", "1", "a.parquet[0]")
    assert (second.answer, second.verifier, second.origin) == ("B", "exact", "a.parquet[1]")


@pytest.mark.parametrize("name", ["question", "answer"])
def test_a_text_longer_than_any_model_reads_is_refused_at_once(tmp_path, name):
    rows = [{"question": "a", "answer": "b"}, {"question": "a", "answer": "b", name: "word " * 2_000_000}]
    path = write(tmp_path / "a.jsonl", rows)
    begun = time.perf_counter()
    with pytest.raises(UserError, match=rf"^a\.jsonl:2: the {name} has 10,000,000 characters, the most is 2,000,000: cut it$"):
        load(path)
    assert time.perf_counter() - begun < 2


def test_a_task_without_an_answer_is_named_where_the_verifier_compares_with_one(tmp_path):
    rows = [{"question": "a", "answer": "1"}, {"question": "b"}, {"question": "c", "verifier": "math"}]
    tasks = load(write(tmp_path / "a.jsonl", rows))
    for some, verifier in ((tasks, "exact"), (tasks[2:], "math")):
        with pytest.raises(UserError, match=rf"^a\.jsonl:\d: no answer, which the {verifier} verifier compares with: add it"):
            check_answers(some)
    check_answers([replace(task, verifier="mine.py:judge") for task in tasks])
    check_answers(tasks[:1])
