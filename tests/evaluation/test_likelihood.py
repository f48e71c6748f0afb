"""What a model knows by likelihood: by hand on a model of characters."""

import math

import pytest

from etude.errors import UserError
from etude.evaluation.likelihood import SCORINGS, LikelihoodQuestion, cloze_questions, question_from_task, score_questions
from etude.tasks.choices import show_choices
from etude.tasks.task import Task
from etude.tiny import tiny_tokenizer

TOKENIZER = tiny_tokenizer()
NATS = {" ": 0.0, "a": 1.0, "b": 3.0, "c": 2.0}


def spelled(pairs):
    """A model to which a letter costs its NATS, and a b behind a question half of them."""
    found = []
    for prompt, completion in pairs:
        is_asked = "?" in TOKENIZER.decode(prompt)
        letters = TOKENIZER.decode(completion)
        found.append(tuple(-NATS[letter] * (0.5 if is_asked and letter == "b" else 1.0) for letter in letters))
    return found


def known(*choices, right=0):
    return score_questions([LikelihoodQuestion("Which?", choices, right)], TOKENIZER, spelled, room=200)


def test_the_three_ways_of_scoring_by_hand():
    """ "aa" costs 2, 1 a byte, 0 less than unasked; "b" 1.5 in all and a byte, 1.5 less than unasked; "aaa" 3, 1 a byte."""
    per_byte, sums, calibrated = (known("aa", "b", right=0).right[scoring] for scoring in ("per_byte", "sum", "calibrated"))
    assert (per_byte, sums, calibrated) == ([True], [False], [False])
    assert known("aaa", "b", right=1).right == {"per_byte": [False], "sum": [True], "calibrated": [True]}


def test_nats_are_those_of_the_right_choice_a_byte_also_of_an_open_question():
    assert known("aa", "b", right=0).nats == [1.0] and known("aa", "b", right=1).nats == [1.5]
    assert known("cab").nats == pytest.approx([(2 + 1 + 1.5) / 3])
    found = score_questions([LikelihoodQuestion("Which?", ("ab",), 0), LikelihoodQuestion("Who?", ("c",), 0)], TOKENIZER, spelled, room=200)
    assert found.right == {} and found.nats == [1.25, 2.0]

    def flat(pairs):
        return [(-6.0,) * len(completion) for _, completion in pairs]

    assert score_questions([LikelihoodQuestion("?", ("\u00e9",), 0)], TOKENIZER, flat, room=50).nats == [6.0]  # two tokens, two bytes


@pytest.mark.parametrize(
    ("questions", "sentence"),
    [
        (
            [LikelihoodQuestion("Which?", ("a", "b"), 0), LikelihoodQuestion("Why?", ("c",), 0, "q:2")],
            "q:2 has no choices, where others have",
        ),
        ([LikelihoodQuestion("Which?", ("a", " "), 0, "q:1")], "q:1 has an empty choice"),
    ],
)
def test_questions_that_can_not_be_scored_together_are_refused(questions, sentence):
    with pytest.raises(UserError, match=sentence):
        score_questions(questions, TOKENIZER, spelled, room=200)


def test_a_long_question_loses_its_beginning_and_a_long_answer_is_refused():
    seen = []

    def kept(pairs):
        seen.extend(pairs)
        return [(-1.0,) * len(completion) for _, completion in pairs]

    score_questions([LikelihoodQuestion("x" * 50 + "?", ("ab",), 0)], TOKENIZER, kept, room=13)
    assert [TOKENIZER.decode(part) for part in seen[0]] == ["x" * 9 + "?", " ab"]
    with pytest.raises(UserError, match="the answer 'ababababab' has 11 tokens; there is room for 1 to 10"):
        score_questions([LikelihoodQuestion("?", ("ab" * 5,), 0)], TOKENIZER, kept, room=11)


def test_a_task_becomes_a_question_without_choice_letters():
    choices = ["a stone", "a pear"]
    task = Task(show_choices("Which is a fruit?", choices), "B", metadata={"choices": choices})
    assert question_from_task(task) == LikelihoodQuestion("Question: Which is a fruit?\nAnswer:", ("a stone", "a pear"), 1)
    assert question_from_task(Task("Why?", "because")) == LikelihoodQuestion("Question: Why?\nAnswer:", ("because",), 0)
    with pytest.raises(UserError, match="has no answer"):
        question_from_task(Task("Why?", origin="a.jsonl:1"))


def glossary(sections, terms):
    rows = [{"section": s, "term": f"{s} term {t}", "definition": f"what {s} {t} is"} for s in sections for t in range(terms)]
    return [(f"g.jsonl:{number}", row) for number, row in enumerate(rows, 1)]


def test_a_term_has_three_other_terms_of_its_section_as_choices():
    asked = cloze_questions(glossary(("bones", "blood"), 6))
    assert len(asked) == 12
    for question, (_, row) in zip(asked, glossary(("bones", "blood"), 6), strict=True):
        assert question.prompt == f"Definition: {row['definition']}\nTerm:" and question.choices[question.right] == row["term"]
        assert len(set(question.choices)) == 4 and all(choice.startswith(row["section"]) for choice in question.choices)
    assert {question.right for question in asked} == {0, 1, 2, 3}
    assert cloze_questions(glossary(("bones", "blood"), 6)) == asked
    small = cloze_questions(glossary(("bones", "blood"), 2))
    assert all(len(set(question.choices)) == 4 for question in small), "a small section takes the others from all terms"


@pytest.mark.parametrize(
    ("rows", "sentence"),
    [
        ([("g:1", {"term": "a"})], "g:1 has no definition: a glossary needs the columns term and definition; it has term"),
        ([("g:1", {"term": "a", "definition": "b"})], "at least 4 different terms to choose from, got 1"),
    ],
)
def test_a_glossary_that_is_none_is_refused(rows, sentence):
    with pytest.raises(UserError, match=sentence):
        cloze_questions(rows)


def test_a_real_model_gives_the_log_probs_that_its_logits_say():
    """Against a slow reference: one forward pass for each choice, without packing."""
    import torch

    from etude.learn.example import Example
    from etude.learn.logprobs import completion_logprobs
    from etude.tiny import tiny_model

    model = tiny_model()
    questions = [
        LikelihoodQuestion("Which is it?", ("a stone", "a pear", "it"), 1),
        LikelihoodQuestion("Which is that?", ("a pear", "no"), 0),
    ]

    def logprobs(pairs):
        return completion_logprobs(model, [Example(*pair) for pair in pairs])

    def slow(prompt, choice):
        ids = TOKENIZER(f"{prompt} {choice}", return_tensors="pt")["input_ids"]
        with torch.no_grad():
            each = model(ids).logits[0, :-1].log_softmax(-1).gather(1, ids[0, 1:, None])[:, 0]
        return float(each[-len(f" {choice}") :].sum())

    found = score_questions(questions, TOKENIZER, logprobs, room=200)
    for place, question in enumerate(questions):
        sums = [slow(question.prompt, choice) for choice in question.choices]
        per_byte = [value / len(choice) for value, choice in zip(sums, question.choices, strict=True)]
        calibrated = [value - slow("Answer:", choice) for value, choice in zip(sums, question.choices, strict=True)]
        for scoring, values in zip(SCORINGS, (per_byte, sums, calibrated), strict=True):
            assert found.right[scoring][place] == (values.index(max(values)) == question.right), scoring
        assert math.isclose(found.nats[place], -per_byte[question.right], rel_tol=1e-4)
