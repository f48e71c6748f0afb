"""Answers that are searched for where nobody says what is right."""

import json

import pytest

from etude.cli import main
from etude.decoding.search import search_answers
from etude.decoding.search_settings import AnswerSearch
from etude.device.machine import Machine
from etude.engine.sampling import GREEDY, Sampling
from etude.engine.transformers import TransformersEngine
from etude.errors import UserError
from etude.models.load import load_model
from etude.recipes.evaluate import evaluate
from etude.recipes.generate import GenerateSettings, generate
from etude.rollouts.samples import sample_groups
from etude.rollouts.steps import Steps
from etude.tasks.answers import comparable_answer
from etude.tasks.task import Task
from etude.tasks.votes import majority

QUESTION = "repeat c after 1234: c"
HOT = Sampling(temperature=1.0)
SHORT_STEPS = Steps("tokens", max_tokens=2)
METHODS = ("samples", "beam", "mcts", "tree", "vine")
EVALUATED = {"recipe": "tiny", "evaluation.n": 20, "evaluation.pass_n": 5, "evaluation.num_samples": 3, "machine.dtype": "float32"}


@pytest.fixture(scope="module")
def plain(finished):
    """What is measured without a search."""
    return evaluate(str(finished / "model"), EVALUATED)["evaluation"][0]


def found_by(model, method, **options):
    search = AnswerSearch(method, **({"steps": SHORT_STEPS} | options))
    settings = GenerateSettings(num_samples=5, max_new_tokens=6, sampling=HOT, search=search, machine=Machine(dtype="float32"))
    return generate(model, [QUESTION, "repeat b after 99: b"], settings)


@pytest.mark.parametrize("method", METHODS)
def test_a_search_returns_one_answer_and_its_cost(model, method):
    rows = found_by(model, method)
    assert rows == found_by(model, method)
    for row in rows:
        assert len(row["completions"]) == len(row["finish"]) == 1
        assert row["search"]["answers"] >= 1 and row["search"]["tokens"] >= 1
        ends = [node for node in row["search"]["tree"] if node["finish"]]
        assert sum(node["drawn"] for node in ends) == row["search"]["answers"]


def test_the_answer_of_most_samples_is_their_majority(model):
    loaded, tokenizer = load_model(model)
    engine, tasks, prompts = TransformersEngine(loaded, tokenizer), [Task("a"), Task("b")], [[9, 10, 11], [20, 21]]
    sizes = {"num_samples": 7, "max_new_tokens": 3, "sampling": HOT}
    found = search_answers(
        engine, list(zip(tasks, map(tuple, prompts), strict=True)), AnswerSearch("samples"), **sizes, names=(4,), room_tokens=99
    )
    for answer, group in zip(found, sample_groups(engine, tasks, [tuple(p) for p in prompts], **sizes, names=(4,)), strict=True):
        ends = [answer.tree.text_of(node) for node in answer.tree.ends() for _ in node.keys]
        assert sorted(ends) == sorted(attempt.text for attempt in group.attempts)
        assert answer.text == ends[majority([comparable_answer(end) for end in ends])]
        assert answer.sampled_tokens == sum(attempt.num_own_tokens for attempt in group.attempts)


def test_the_likeliest_answer_is_chosen_by_value(model):
    loaded, tokenizer = load_model(model)
    how = {"num_samples": 9, "max_new_tokens": 3, "sampling": HOT, "names": (4,), "room_tokens": 99}
    (answer,) = search_answers(
        TransformersEngine(loaded, tokenizer), [(Task("a"), (9, 10, 11))], AnswerSearch("samples", choose="value"), **how
    )
    means = {answer.tree.text_of(node): sum(node.own_logprobs) / len(node.own_logprobs) for node in answer.tree.ends()}
    assert means[answer.text] == max(means.values())


@pytest.mark.parametrize("method", [*METHODS, "refine"])
def test_an_evaluation_reports_accuracy_and_cost_of_a_search(model, plain, method):
    how = {"search.method": method, "search.steps.end": "tokens", "search.steps.max_tokens": 2}
    (row,) = evaluate(model, EVALUATED | how)["evaluation"]
    assert {name: row[name] for name in plain} == plain
    assert row["search_accuracy_low"] <= row["search_accuracy"] <= row["search_accuracy_high"] and row["search_tokens"] >= 3
    assert row["search_accuracy"] * 20 == pytest.approx(round(row["search_accuracy"] * 20))


def test_the_commands_take_a_search_by_its_name(model, capsys, tmp_path):
    given = ["--search", "mcts", "--sampling.temperature", "1", "--max_new_tokens", "4", "--json", str(tmp_path / "found.json")]
    assert main(["generate", model, "--prompt", QUESTION, *given]) == 0
    assert json.loads((tmp_path / "found.json").read_text())[0]["search"]["tokens"] > 0
    given = ["--recipe", "tiny", "--evaluation.n", "10", "--evaluation.pass_n", "0", "--search", "beam"]
    assert main(["evaluate", model, *given]) == 0
    assert "; by search " in capsys.readouterr().out


def test_an_answer_is_revised_at_temperature_0_too(model):
    plain, one, three = (
        generate(model, [QUESTION], GenerateSettings(max_new_tokens=6, search=search, machine=Machine(dtype="float32")))[0]
        for search in (AnswerSearch(), AnswerSearch("refine", turns=1), AnswerSearch("refine", turns=3))
    )
    assert one["completions"] == plain["completions"] and one["finish"] == plain["finish"]
    turns = three["search"]["turns"]
    assert len(turns) == 3 and turns[0] == plain["completions"][0] and three["completions"] == [turns[-1]]
    assert three["search"]["tokens"] > one["search"]["tokens"]


def test_refinement_words_follow_the_sampled_answer(model):
    loaded, tokenizer = load_model(model)
    engine, items = TransformersEngine(loaded, tokenizer), [(Task("a"), (9, 10, 11)), (Task("b"), (20, 21))]
    how = {"num_samples": 1, "max_new_tokens": 3, "sampling": GREEDY, "names": (4,)}
    search = AnswerSearch("refine", words="Sure?")
    for (_, prompt), answer in zip(items, search_answers(engine, items, search, **how, room_tokens=99), strict=True):
        ((first,),) = engine.generate([prompt], max_new_tokens=3, sampling=GREEDY)
        end = () if first.finish == "stop" else (tokenizer.eos_token_id,)
        prefix = (*prompt, *first.tokens, *end, *tokenizer("\nSure?\n")["input_ids"])
        ((second,),) = engine.generate([prefix], max_new_tokens=3, sampling=GREEDY)
        assert (answer.text, answer.sampled_tokens) == (second.text, len(first.tokens) + len(second.tokens))
    alone = search_answers(engine, items, search, **how, room_tokens=5)
    assert [len(answer.found["turns"]) for answer in alone] == [1, 1]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"method": "baem"}, "did you mean 'beam'"),
        ({"width": 0}, "search.width must be at least 1"),
        ({"method": "refine", "turns": 0}, "search.turns must be at least 1, got 0"),
        ({"method": "refine", "words": ""}, "search.words is empty"),
        ({"method": "mcts", "to_end": False}, "search.value to step_model .they are mcts and likelihood."),
        ({"method": "beam", "value": "step_model", "to_end": False}, "set search.method to mcts"),
        ({"method": "samples", "value": "step_model"}, "has no effect on search.method samples, where answers are chosen by majority"),
    ],
)
def test_a_search_that_cannot_be_is_one_sentence(settings, message):
    with pytest.raises(UserError, match=message):
        AnswerSearch(**settings)
