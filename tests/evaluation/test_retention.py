"""The probe of old knowledge: by hand on a model of three tokens, and on real ones."""

import json
import math

import pytest
from tokenizers.processors import TemplateProcessing

from etude.errors import UserError
from etude.evaluation.retention import (
    OLD_KNOWLEDGE,
    ChoiceQuestion,
    Probe,
    answer_questions,
    compare_retention,
    make_probe,
    measure_retention,
)
from etude.tasks.choices import show_choices
from etude.tasks.sources import TaskSource, load_tasks
from etude.tasks.task import Task
from etude.tiny import tiny_tokenizer


def uniform(pairs):
    """A model that gives token t the probability 1 / (t + 1), whatever comes before."""
    return [tuple(-math.log(token + 1) for token in completion) for _, completion in pairs]


def test_perplexity_is_the_exponential_of_the_mean_over_tokens_not_over_windows():
    probe = Probe([(9, 1, 1, 1), (9, 3)], [])  # 3 tokens at 1/2, 1 token at 1/4
    found = measure_retention(probe, uniform)
    assert found["row"]["perplexity"] == pytest.approx((2 * 2 * 2 * 4) ** (1 / 4))
    assert found["row"]["text_tokens"] == 4
    assert found["nats"] == pytest.approx([math.log(2), math.log(4)])


def test_the_most_likely_choice_per_byte_is_the_answer():
    short, long = ChoiceQuestion((9,), ((1,), (1, 1)), (4, 10), 0), ChoiceQuestion((9,), ((1,), (1, 1)), (4, 10), 1)
    found = measure_retention(Probe([], [short, long]), uniform)  # log 1/2 over 4 bytes against log 1/4 over 10: the second
    assert found["right"] == "01"
    assert (found["row"]["choice_accuracy"], found["row"]["choices_n"]) == (0.5, 2)
    assert "perplexity" not in found["row"]


def test_the_margin_of_a_question_is_per_token_against_the_best_wrong_choice():
    choices = ((1,), (1, 1, 3), (7, 7))  # log 1/2, log 1/16 over three tokens, log 1/64 over two
    first, last = answer_questions([ChoiceQuestion((9,), choices, (4, 4, 4), right) for right in (0, 2)], uniform)
    assert first.margin == pytest.approx(math.log(1 / 2) - math.log(1 / 16) / 3) and first.is_right
    assert last.margin == pytest.approx(math.log(1 / 64) / 2 - math.log(1 / 2)) and not last.is_right
    assert first.chance == pytest.approx(1 / 3)


def test_text_is_cut_into_windows_whose_first_token_is_given():
    probe, longer = (make_probe("abcdefghij", [], tiny_tokenizer(), window_tokens=4, text_tokens=n, room=100) for n in (9, 10))
    assert [len(window) for window in probe.windows] == [4, 4]  # of nine tokens: less than half a window is left out
    assert [len(window) for window in longer.windows] == [4, 4, 2]
    assert probe.key != longer.key


def test_a_window_begins_with_what_the_tokenizer_puts_first_and_not_with_any_token_that_is_called_bos():
    tokenizer = tiny_tokenizer()
    tokenizer.bos_token = "<eos>"
    assert make_probe("abcd", [], tokenizer, window_tokens=4, text_tokens=9, room=100).windows == [tuple(tokenizer("abcd")["input_ids"])]
    tokenizer._tokenizer.post_processor = TemplateProcessing(single="<eos> $A", special_tokens=[("<eos>", tokenizer.eos_token_id)])
    (window,) = make_probe("abc", [], tokenizer, window_tokens=4, text_tokens=9, room=100).windows
    assert tokenizer.decode(window) == "<eos>abc"


def test_questions_have_no_choice_letters_and_choices_follow_a_space():
    choices = ["a stone", "a pear"]
    task = Task(show_choices("Which is a fruit?", choices), "B", "choice", metadata={"choices": choices})
    tokenizer = tiny_tokenizer()
    question = make_probe("ab", [task], tokenizer, window_tokens=4, text_tokens=9, room=100).questions[0]
    assert tokenizer.decode(question.prompt) == "Question: Which is a fruit?\nAnswer:"
    assert [tokenizer.decode(choice) for choice in question.choices] == [" a stone", " a pear"]
    assert (question.sizes, question.right) == ((7, 6), 1)
    with pytest.raises(UserError, match=r"retention\.choices: .* has 43 tokens with its longest choice; there is room for 1 to 40"):
        make_probe("ab", [task], tokenizer, window_tokens=4, text_tokens=9, room=40)


def test_retention_is_compared_in_nats_and_by_a_paired_test():
    before = {"nats": [1.0, 2.0], "right": "1100"}
    same = compare_retention("base", "practice", before, before)
    assert (same["nats"], same["nats_low"], same["nats_high"], same["choices"]["p_value"]) == (0.0, 0.0, 0.0, 1.0)
    found = compare_retention("base", "practice", before, {"nats": [1.5, 2.5], "right": "0110"})
    assert found["nats"] == pytest.approx(0.5)
    assert (found["choices"]["only_first"], found["choices"]["only_second"], found["choices"]["n"]) == (1, 1, 4)


def test_the_questions_that_ship_are_sound():
    path = OLD_KNOWLEDGE / "questions.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert len(rows) == 80 and len({row["question"] for row in rows}) == 80
    assert all(len(set(row["choices"])) == 4 for row in rows)
    letters = [row["answer"] for row in rows]
    assert all(10 <= letters.count(letter) <= 30 for letter in "ABCD")
    assert len(load_tasks(TaskSource(path=[str(path)], verifier="choice"), split="retention", n=None, seed=0)) == 80
