"""Instructions with rules: every kind by a hand-worked example, the grammar, and the verifier's guard against empty compliance."""

from itertools import islice
from random import Random

import pytest

from etude.errors import UserError
from etude.tasks.families import load_family
from etude.tasks.instructions.family import sample_instructions
from etude.tasks.instructions.ifeval import IFEVAL, ifeval_rules
from etude.tasks.instructions.requests import are_compatible, sample_request
from etude.tasks.instructions.rules import HELD_OUT, RULES, TRAINING
from etude.tasks.instructions.verify import empty_compliance
from etude.tasks.sources import TaskSource, load_tasks
from etude.tasks.task import Task
from etude.tasks.verifiers import VERIFIERS

EXAMPLES: dict[str, tuple[dict[str, object], tuple[str, ...], tuple[str, ...]]] = {
    "exact_words": ({"n": 4}, ("Don't wake the cat!", "one 2 three-four five"), ("Wake the cat!", "")),
    "at_most_words": ({"n": 3}, ("Sea and sky", "Sea"), ("Sea and blue sky", "...")),
    "at_least_words": ({"n": 3}, ("Sea and sky",), ("Blue sea",)),
    "words_between": ({"low": 2, "high": 3}, ("Sea and sky", "Blue sea"), ("Sea", "Sea and blue sky")),
    "sentences": ({"n": 2}, ("It rains. Stay in!", "It rains. Stay in"), ("It rains.", "It rains... Stay in! Now.")),
    "one_sentence": ({}, ("It rains.", '"It rains"'), ("It rains. Stay in!", "")),
    "lines": ({"n": 2}, ("One\n\ntwo",), ("One", "One\ntwo\nthree")),
    "dashed_items": ({"n": 2}, ("- tea\n- milk",), ("- tea\nmilk", "Here:\n- tea\n- milk", "-tea\n-milk")),
    "numbered_items": ({"n": 2}, ("1. tea\n2. milk",), ("1. tea\n3. milk", "1. tea", "Here:\n1. tea\n2. milk")),
    "comma_list": ({"n": 3}, ("moss, ferns, a deer.",), ("moss, ferns", "moss, , deer")),
    "quoted": ({}, ('"Fresh bread."', "\u201cFresh bread.\u201d"), ('"Fresh" bread', '"Fresh" or "old"', '""')),
    "brackets": ({}, ("[Fresh bread.]",), ("[Fresh] bread", "(Fresh bread)")),
    "begin_word": ({"word": "Soon"}, ("Soon it rains", '"soon, I hope"'), ("Sooner or later", "It rains soon")),
    "begin_words": ({"phrase": "long ago"}, ("Long ago it rained", '"Long, ago'), ("It was long ago", "Long")),
    "begin_letter": ({"letter": "S"}, ("Soon", '"sea"'), ("It rains soon", "")),
    "end_word": ({"word": "rain"}, ("I like rain.", '"Rain"'), ("I like rain today", "trains")),
    "end_mark": ({"mark": "!"}, ("Come in!",), ("Come in!)", "!", "Come in.")),
    "sign": ({"name": "Tom"}, ("See you there, Tom", "Yours,\nTOM!"), ("Tom says hello", "Tommy")),
    "question": ({}, ("Who is there?", '"Who is there?"'), ("Who? Me.", "?")),
    "end_letter": ({"letter": "N"}, ("I like rain.",), ("I like tea.", "")),
    "lowercase": ({}, ("the sea is 3 miles off",), ("The sea", "33")),
    "uppercase": ({}, ("THE SEA IS 3 MILES OFF",), ("THE sea", "33")),
    "title_case": ({}, ("The Sea And 3 Ships",), ("The sea", "")),
    "include_word": ({"word": "rain"}, ("I like Rain.",), ("I like rainbows.",)),
    "two_words": ({"first": "sun", "second": "rain"}, ("Rain, then sun",), ("sun and sun", "rainy sun")),
    "phrase": ({"phrase": "in the end"}, ("It rained in the end.", "In the end, rain"), ("in the ending", "the end")),
    "words_in_order": ({"first": "sun", "second": "rain"}, ("Sun, then rain", "rain, sun, rain"), ("Rain, then sun", "sun")),
    "word_times": ({"word": "tea", "n": 2}, ("Tea for me, tea for you",), ("Tea", "tea tea tea", "teas and teas")),
    "avoid_letter": ({"letter": "e"}, ("A cat sat on a mat",), ("The cat", "...")),
    "avoid_word": ({"word": "the"}, ("Other cats",), ("On the mat", "")),
    "no_comma": ({}, ("Sea and sky",), ("Sea, sky", "...")),
    "commas": ({"n": 2}, ("sea, sky, sand",), ("sea, sky", ",,")),
    "number": ({"number": 3}, ("3 ships", "ships, 3."), ("Three ships", "33 ships", "3.5 ships are 35")),
}


def test_every_kind_of_rule_has_a_hand_worked_example() -> None:
    assert set(EXAMPLES) == set(RULES)


@pytest.mark.parametrize("kind", EXAMPLES)
def test_a_rule_accepts_what_follows_it_and_refuses_what_does_not(kind: str) -> None:
    arguments, good, bad = EXAMPLES[kind]
    assert [text for text in good if not RULES[kind].is_followed(text, **arguments)] == []
    assert [text for text in bad if RULES[kind].is_followed(text, **arguments)] == []


@pytest.mark.parametrize("kind", RULES)
def test_sampled_arguments_fit_the_check_and_all_ways_to_ask(kind: str) -> None:
    random, rule = Random(kind), RULES[kind]
    for _ in range(50):
        arguments = rule.sample(random)
        assert isinstance(rule.is_followed("A text.", **arguments), bool)
        assert all("{" not in asked.format(**arguments) for asked in rule.asked)


def test_rules_of_a_request_differ_in_their_group_and_can_all_be_followed() -> None:
    random = Random(0)
    for request in (sample_request(random, [*RULES], 4) for _ in range(2000)):
        groups = [RULES[kind].group for kind, _ in request.rules]
        assert 1 <= len(groups) == len(set(groups)) <= 4 and request.prompt.startswith(request.subject)
        given = dict(request.rules)
        if "avoid_letter" in given and "include_word" in given:
            assert given["avoid_letter"]["letter"] not in given["include_word"]["word"]


@pytest.mark.parametrize(
    "rules",
    [
        [("exact_words", {"n": 5}), ("at_most_words", {"n": 7})],
        [("exact_words", {"n": 5}), ("sentences", {"n": 3})],
        [("avoid_letter", {"letter": "a"}), ("end_word", {"word": "cat"})],
        [("avoid_word", {"word": "the"}), ("begin_word", {"word": "The"})],
        [("lowercase", {}), ("begin_word", {"word": "Soon"})],
        [("quoted", {}), ("end_mark", {"mark": "!"})],
        [("comma_list", {"n": 3}), ("no_comma", {})],
        [("numbered_items", {"n": 3}), ("begin_word", {"word": "Soon"})],
        [("numbered_items", {"n": 3}), ("quoted", {})],
    ],
)
def test_rules_that_contradict_each_other_are_never_asked_together(rules: list[tuple[str, dict[str, object]]]) -> None:
    assert not are_compatible(rules)
    assert all(are_compatible([rule]) for rule in rules)


def test_training_never_asks_for_a_held_out_kind_and_the_held_out_suite_for_no_other() -> None:
    asked = {
        name: {
            rule["kind"]
            for task in islice(sample_instructions({"rules": name}, split="train", seed=0), 1500)
            for rule in task.metadata["rules"]
        }
        for name in ("training", "held_out")
    }
    assert asked == {"training": set(TRAINING), "held_out": set(HELD_OUT)} and not set(TRAINING) & set(HELD_OUT)


def test_more_tasks_only_append_and_splits_and_seeds_differ() -> None:
    few, many = (load_family("instructions", {}, split="train", n=n, seed=0) for n in (20, 60))
    assert few == many[:20] and len({task.key for task in many}) == 60
    others = [load_family("instructions", {}, split=split, n=60, seed=seed) for split, seed in (("test", 0), ("train", 1))]
    assert all(len({task.key for task in many} & {task.key for task in other}) < 6 for other in others)


def test_formats_that_have_no_effect_and_more_tasks_than_there_are_are_refused() -> None:
    with pytest.raises(UserError, match=r"tasks.question and tasks.worked_format have no effect on the family instructions"):
        load_family("instructions", {}, split="train", n=3, seed=0, question="{words}")
    with pytest.raises(UserError, match="family 'instructions' has too few distinct items"):
        load_family("instructions", {"rules": ["title_case"], "max_rules": 1}, split="train", n=100_000, seed=0)


def test_the_score_is_the_share_of_rules_and_right_is_all_of_them() -> None:
    rules = [{"kind": "exact_words", "arguments": {"n": 4}}, {"kind": "end_mark", "arguments": {"mark": "!"}}]
    task = Task("Describe a harbour. ...", verifier="instructions", metadata={"subject": "Describe a harbour.", "rules": rules})
    answers = ("Boats rest in rain!", "Boats rest in rain.", "Boats rest there.")
    whole, half, none = (VERIFIERS["instructions"](text, task) for text in answers)
    assert (whole.score, half.score, none.score) == (1.0, 0.5, 0.0)
    assert whole.is_right and not half.is_right
    assert half.message == "breaks end_mark" and half.parts["kept_exact_words"] == 1.0


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "fewer than 3 words"),
        ("...!", "fewer than 3 words"),
        ("Write a line about the sea", "copies the prompt"),
        ("sea sea sea", "repeats a word"),
        ("the sea and the sea and the sea and the sea and the sea", "repeats itself"),
        ("The sea with the word tea.", "speaks of the rules"),
        ("The sea sent a letter.", None),
        ("The sea never sleeps.", None),
    ],
)
def test_empty_compliance_is_named(text: str, problem: str | None) -> None:
    assert empty_compliance(text, "Write a line about the sea. Use no commas.", asked="the sea letter") == problem


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"rule": "all"}, "unknown parameter of instructions 'rule'"),
        ({"rules": "heldout"}, "unknown set of rules of instructions 'heldout'"),
        ({"rules": ["lowercas"]}, "unknown kind of rule 'lowercas'"),
        ({"rules": []}, "rules of instructions must be"),
        ({"max_rules": 9}, "max_rules of instructions must be a whole number from 1 to 4, got 9"),
        ({"rules": ["quoted", "brackets"], "min_rules": 2}, "no 2 of quoted, brackets go together: set min_rules lower"),
        ({"min_rules": 3}, r"min_rules of instructions is 3, above max_rules \(2\): set max_rules as high"),
    ],
)
def test_a_wrong_parameter_is_answered_in_one_sentence(parameters: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        load_tasks(TaskSource(family="instructions", parameters=parameters), split="train", n=3, seed=0)


# ---------------------------------------------------------------------- IFEval

PUBLIC: dict[str, tuple[dict[str, object], str, str]] = {
    "keywords:existence": ({"keywords": ["sea", "sky"]}, "The SEA and the sky", "The sea"),
    "keywords:frequency": ({"keyword": "sea", "frequency": 2, "relation": "at least"}, "sea to sea", "one sea"),
    "keywords:forbidden_words": ({"forbidden_words": ["sea"]}, "seas", "The sea"),
    "keywords:letter_frequency": ({"letter": "q", "let_frequency": 1, "let_relation": "less than"}, "none", "quite"),
    "language:response_language": ({"language": "de"}, "Das ist ein schöner Tag am Meer.", "This is a fine day by the sea."),
    "length_constraints:number_sentences": ({"num_sentences": 2, "relation": "less than"}, "One.", "One. Two."),
    "length_constraints:number_paragraphs": ({"num_paragraphs": 2}, "One\n***\ntwo", "One\n\ntwo"),
    "length_constraints:number_words": ({"num_words": 3, "relation": "at least"}, "don't go", "do go"),
    "length_constraints:nth_paragraph_first_word": (
        {"num_paragraphs": 2, "nth_paragraph": 2, "first_word": "weekend"},
        "One.\n\nWeekend, at last.",
        "Weekend.\n\nOne.",
    ),
    "detectable_content:number_placeholders": ({"num_placeholders": 2}, "[name], [city]", "[name]"),
    "detectable_content:postscript": ({"postscript_marker": "P.P.S"}, "Bye.\np.p.s. Tea?", "Bye.\nP.S. Tea?"),
    "detectable_format:number_bullet_lists": ({"num_bullets": 2}, "* tea\n- milk", "* tea\n**milk**"),
    "detectable_format:constrained_response": ({}, "Well: My answer is no.", "No."),
    "detectable_format:number_highlighted_sections": ({"num_highlights": 2}, "*a b* and **c**", "*a b* and **"),
    "detectable_format:multiple_sections": ({"section_spliter": "Day", "num_sections": 2}, "Day 1\nsea\nDay 2\nsky", "Day 1"),
    "detectable_format:json_format": ({}, '```json\n{"a": 1}\n```', "a: 1"),
    "detectable_format:title": ({}, "<<The sea>>\nBlue.", "<The sea>"),
    "combination:two_responses": ({}, "Yes.\n******\nNo.", "Yes.\n******\nYes."),
    "combination:repeat_prompt": ({"prompt_to_repeat": "Say hello."}, "say hello. Hello!", "Hello!"),
    "startend:end_checker": ({"end_phrase": "That is all."}, 'Bye. That is all."', "That is all. Bye."),
    "startend:quotation": ({}, ' "Sea." ', '"Sea'),
    "change_case:capital_word_frequency": ({"capital_frequency": 2, "capital_relation": "at least"}, "SEA and SKY", "SEA and sky"),
    "change_case:english_capital": ({}, "THIS IS A FINE DAY BY THE SEA", "This is a fine day"),
    "change_case:english_lowercase": ({}, "this is a fine day by the sea", "This is a fine day"),
    "punctuation:no_comma": ({}, "sea and sky", "sea, sky"),
}


def test_all_25_kinds_of_ifeval_have_a_hand_worked_example() -> None:
    assert set(PUBLIC) == set(IFEVAL) and len(IFEVAL) == 25


@pytest.mark.parametrize("kind", PUBLIC)
def test_a_public_rule_accepts_and_refuses_as_its_authors_do(kind: str) -> None:
    arguments, good, bad = PUBLIC[kind]
    assert IFEVAL[kind](good, **arguments) and not IFEVAL[kind](bad, **arguments)


def test_a_row_of_ifeval_is_a_task_and_nulls_among_its_arguments_are_left_out(tmp_path) -> None:  # type: ignore[no-untyped-def]
    (tmp_path / "rows.jsonl").write_text(
        '{"key": 1, "prompt": "Name a river. Use no commas and three words or more.", '
        '"instruction_id_list": ["punctuation:no_comma", "length_constraints:number_words"], '
        '"kwargs": [{"num_words": null}, {"num_words": 3, "relation": "at least"}]}\n'
    )
    (task,) = load_tasks(TaskSource(path=[str(tmp_path / "rows.jsonl")]), split="test", n=None, seed=0)
    assert task.verifier == "instructions" and task.question.startswith("Name a river.")
    answers = ("The long Nile", "Nile", "", "Nile, or so it seems")
    assert [VERIFIERS["instructions"](text, task).score for text in answers] == [1, 0.5, 0, 0.5]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"instruction_id_list": ["punctuation:no_coma"], "kwargs": [{}]}, "unknown kind of rule in f:1 'punctuation:no_coma'"),
        ({"instruction_id_list": ["startend:end_checker"], "kwargs": [{}]}, "f:1: kwargs of startend:end_checker are wrong"),
        ({"instruction_id_list": ["punctuation:no_comma"], "kwargs": [{}, {}]}, "must be lists of the same length"),
    ],
)
def test_a_wrong_row_of_ifeval_is_answered_in_one_sentence(row: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        ifeval_rules(row, "f:1")
