"""Instructions whose keeping a function can check."""

import pytest

from etude.errors import UserError
from etude.evaluation.instructions import RULES, Instruction, instructions, is_followed

KEPT = {
    ("lowercase", ""): ("trees and a deer.", "Trees and a deer."),
    ("uppercase", ""): ("TREES, 3 OF THEM", "TREES and a deer"),
    ("begin", "Well,"): (" Well, trees.", "well, trees."),
    ("end", "The end."): ("Trees. The end.\n", "Trees. The end. And more."),
    ("items", "2"): ("Here:\n- a tree\n- a deer", "- a tree\n- a deer\n- moss"),
    ("without", "e"): ("A stork, a fox.", "A DEER"),
    ("contain", "river"): ("A River runs by.", "Rivers run by."),
    ("short", "5"): ("A fox, a stork, moss.", "A fox, a stork and some moss."),
    ("commas", ","): ("A fox and moss", "A fox, moss"),
    ("quoted", ""): ('"A fox."', '"A fox" and moss'),
    ("sentences", "2"): ("A fox at 3.5 metres. Moss!", "A fox. Moss. And more."),
}


@pytest.mark.parametrize(("rule", "argument"), KEPT, ids=[rule for rule, _ in KEPT])
def test_a_rule_tells_an_answer_that_keeps_it_from_a_near_miss(rule, argument):
    asked = Instruction("?", rule, argument)
    kept, missed = KEPT[rule, argument]
    assert is_followed(kept, asked) and not is_followed(missed, asked)
    assert not is_followed("", asked) and not is_followed(" \n", asked)


@pytest.mark.parametrize(
    ("rule", "argument", "text", "follows"),
    [
        ("items", "2", "1. a tree\n2. a deer", False),
        ("items", "2", "\u2013 a tree\n\u2014 a deer", True),
        ("sentences", "2", "It is green. It is tall. There are", False),
        ("sentences", "2", "1. It is green.\n2. It is tall.", True),
        ("sentences", "2", 'It is green. They say "it is tall."', True),
    ],
)
def test_each_rule_accepts_and_rejects_answers(rule, argument, text, follows):
    assert is_followed(text, Instruction("?", rule, argument)) == follows


def test_instructions_cycle_through_every_rule():
    assert {rule for rule, _ in KEPT} == set(RULES)
    asked = instructions(550)
    assert len({each.prompt for each in asked}) == 550
    assert {each.rule for each in asked[: len(RULES)]} == set(RULES)
    assert {(each.rule, each.argument) for each in asked} == {(name, each) for name, rule in RULES.items() for each in rule.arguments}
    assert asked[:40] == instructions(40) and asked[:40] != instructions(40, seed=1)
    with pytest.raises(UserError, match="instructions must be at most 550, got 551"):
        instructions(551)
