"""Tagged actions: what is well-formed and what is not, the words that ask for them, and answers that stand in them."""

import time

import pytest

from etude.errors import UserError
from etude.rollouts.prompts import render_prompt
from etude.rollouts.steps import Steps
from etude.tasks.actions import MAX_ACTIONS, MAX_CHARACTERS, PRESETS, Action, Actions, parse
from etude.tasks.answers import final_answer, marked_answer
from etude.tasks.overlap import overlap
from etude.tasks.sources import TaskSource, load_tasks
from etude.tasks.task import Task
from etude.tasks.verifiers import choice, exact, math, numeric

TAGS = ("plan", "solve")
DIVIDED = (
    "Let me see.\n<subproblem>What is 2 + 3?</subproblem>\n<subproblem>What is its double?</subproblem>\n"
    "<solve>2 + 3 = 5</solve> so\n<solve>2 * 5 = 10\n10 is even.</solve>\n<answer>10</answer>\n"
)


def test_actions_are_spans_and_text_between_them_is_tolerated():
    found, problem = parse("a <plan>add\nthem</plan> b <solve>5 < 6</solve><solve> 7 </solve> c", TAGS)
    assert found == [Action("plan", "add\nthem"), Action("solve", "5 < 6"), Action("solve", " 7 ")] and not problem
    assert parse("", TAGS) == parse("no action", TAGS) == ([], "")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("<plan>add", "<plan> is never closed"),
        ("add</plan>", "</plan> closes what is not open"),
        ("<plan>add</solve>", "</solve> closes what is not open"),
        ("<plan>a<plan>b</plan></plan>", "<plan> is opened within itself"),
        ("<plan>a<solve>b</solve></plan>", "<solve> is opened within <plan>"),
        ("<plan> \n </plan>", "<plan> is empty"),
        ("<plan>a</plan><solve>", "<solve> is never closed"),
    ],
)
def test_malformed_answers_are_described(text, problem):
    assert parse(text, TAGS)[1] == problem


@pytest.mark.parametrize("text", ["<b>5</b>", "</think>", "<plan>a <b>c</b></plan>"])
def test_tags_of_other_names_are_text_unless_it_is_strict(text):
    assert parse(text, TAGS)[1] == "" and parse(text, TAGS, strict=True)[1].startswith("unknown tag <")


@pytest.mark.parametrize("text", ["<Plan>a</Plan>", "< plan>a</ plan>", "<plan >a</plan >", "2 <plan and solve> 1"])
def test_text_that_resembles_a_tag_is_text(text):
    assert parse(text, TAGS) == ([], "")


@pytest.mark.parametrize(
    "text",
    [
        "<plan" * 200_000,
        "<" + "a" * 1_000_000,
        "<a>" * 300_000,
        "<plan>a</plan>" * 70_000,
        "<plan>" + "a" * 1_000_000 + "</plan>",
    ],
)
def test_a_long_text_takes_linear_time(text):
    def seconds(text):
        start = time.perf_counter()
        parse(text, TAGS)
        return time.perf_counter() - start

    assert seconds(text) < 2


def test_length_and_number_are_bounded():
    assert "more than" in parse("a" * (MAX_CHARACTERS + 1), TAGS)[1]
    found, problem = parse("<plan>a</plan>" * (MAX_ACTIONS + 1), TAGS)
    assert len(found) == MAX_ACTIONS and problem == f"more than {MAX_ACTIONS} actions"


# ---------------------------------------------------------------------- numbers and order


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (DIVIDED, ""),
        (DIVIDED.replace("<answer>10</answer>", ""), "0 <answer> where at least 1 are asked for"),
        (DIVIDED + "<answer>11</answer>", "2 <answer> where at most 1 are asked for"),
        ("<answer>10</answer>" + DIVIDED.replace("<answer>10</answer>", ""), "<subproblem> comes behind <answer>"),
        ("The answer is 10.", "0 <subproblem> where at least 2 are asked for"),
    ],
)
def test_dividing_asks_for_two_subproblems_solutions_and_one_answer(text, problem):
    assert Actions("divide").find_problem(text) == problem


def test_numbers_and_order_are_settings():
    own = Actions(tags={"plan": [0, 1], "solve": [2]})
    assert own.find_problem("<solve>a</solve><solve>b</solve>") == ""
    assert own.find_problem("<solve>a</solve><plan>p</plan><solve>b</solve>") == "<plan> comes behind <solve>"
    assert Actions(tags=own.tags, ordered=False).find_problem("<solve>a</solve><plan>p</plan><solve>b</solve>") == ""
    assert own.find_problem("<plan>p</plan><solve>b</solve>") == "1 <solve> where at least 2 are asked for"


def test_planning_solving_and_checking():
    text = "<plan>add</plan><solve>2 + 3 = 5</solve><check>5 - 3 = 2</check><answer>5</answer>"
    assert Actions("plan_solve_check").find_problem(text) == "" and Actions("plan_solve_check").find_problem(text[18:]) != ""


@pytest.mark.parametrize("preset", PRESETS)
def test_a_presets_instruction_names_its_actions(preset):
    limits, words = PRESETS[preset].limits, Actions(preset).words
    assert all(f"<{tag}>" in words and f"</{tag}>" in words for tag in limits)
    assert list(limits)[-1] == "answer" and Steps(end="tag", tags=list(limits)).pattern


def test_actions_that_are_off_ask_for_nothing():
    off = Actions()
    assert not off.is_on and off.words == "" and off.find_problem("<plan><plan>") == ""


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"preset": "devide"}, "did you mean 'divide'"),
        ({"tags": {"a b": [1]}}, "a tag's name is a letter"),
        ({"tags": {"plan": []}}, r"tasks.actions.tags.plan must be \[least\] or \[least, most\]"),
        ({"tags": {"plan": [2, 1]}}, "got"),
        ({"tags": {"plan": [0, 0]}}, "got"),
        ({"gate": True}, "there are no actions"),
        ({"malformed_score": 1.5}, "must be a finite number of at most 1, got 1.5"),
        ({"malformed_score": float("-inf")}, "must be a finite number of at most 1, got -inf"),
    ],
)
def test_contradictory_action_settings_are_refused(settings, said):
    with pytest.raises(UserError, match=said):
        Actions(**settings)


# ---------------------------------------------------------------------- the question


def test_the_instruction_is_asked_and_is_no_part_of_question_and_key(tokenizer, chat_tokenizer):
    plain = TaskSource(function="etude.tiny:letters")
    asked = TaskSource(function="etude.tiny:letters", actions=Actions("divide"))
    before, after = (load_tasks(source, split="train", n=5, seed=0) for source in (plain, asked))
    assert [task.key for task in before] == [task.key for task in after] and len(overlap(before, after)) == 5
    assert [task.question for task in before] == [task.question for task in after]
    text = tokenizer.decode(render_prompt(tokenizer, after[0]))
    assert text == f"{before[0].question}\n\n{PRESETS['divide'].instruction}\n"
    chat = Task(({"role": "system", "content": "S"}, {"role": "user", "content": "Q"}), instruction="In tags.")
    assert chat_tokenizer.decode(render_prompt(chat_tokenizer, chat)) == "<system>S<user>Q\n\nIn tags.<assistant>"
    assert chat.prompt[-1]["content"] == "Q"  # the task itself is as it was


def test_the_instruction_may_be_ones_own():
    assert Actions("divide", instruction="Divide.").words == "Divide." and Actions("divide", instruction="").words == ""
    assert Actions(tags={"plan": [1]}).words == ""


# ---------------------------------------------------------------------- the answer


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (DIVIDED, "10"),
        ("<answer>\n  10\n</answer>", "10"),
        ("<answer>The answer is 10.</answer>", "10"),
        ("<answer>10</answer> I hope that helps. 11", "10"),
        ("<answer>7</answer> No: <ANSWER>10</ANSWER>", "10"),
        ("<answer>10</answer><answer></answer>", "10"),
        ("<answer>10", "10"),
        ("<solve>The answer is 7.</solve> <answer>**10**</answer>", "10"),
    ],
)
def test_the_final_answer_is_the_content_of_the_last_answer_action(text, answer):
    assert final_answer(text, answer) == answer
    assert exact(text, Task("?", answer)).score == numeric(text, Task("?", answer)).score == math(text, Task("?", answer)).score == 1.0
    assert numeric(text, Task("?", "7")).score == 0.0


def test_choices_and_lists_stand_in_an_answer_action_too():
    assert (
        choice("<solve>A is a stone.</solve><answer>(B)</answer>", Task("?", "B", metadata={"choices": ["a stone", "a pear"]})).score == 1.0
    )
    assert exact("<answer>[1, 2]</answer>", Task("?", "[1, 2]")).score == 1.0


def test_a_closing_tag_alone_marks_no_answer():
    assert marked_answer("5</answer>") is None and marked_answer("<answers>5") is None
