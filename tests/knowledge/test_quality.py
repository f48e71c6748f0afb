import pytest

from etude.errors import UserError
from etude.knowledge.quality import NO_TEXT, RULES, Quality, explaining_rate, find_broken_rule

GOOD = (
    "The heart is a muscle that pumps blood through the body. It has four chambers, and each of them has a valve. "
    "Blood with oxygen leaves by the aorta, and blood without it returns to the right side."
)
BAD = {
    "length": "The heart and the lungs.",
    "word length": "the of a b c d e f g h i j k l m n o p q r s t to and",
    "symbols": GOOD + " #heart #aorta #valve #blood #lungs #veins #muscle",
    "letters": GOOD + " 12 34 56 78" * 10,
    "stop words": "buy cheap shoes now online best price shipping worldwide order today save money great offers click here now today only",
    "list": "\n".join(f"- the heart and its part number {word}" for word in ("one", "two", "three", "four")),
    "cut off": "\n".join(f"The heart of an animal like this has {word} chambers and it ..." for word in ("four", "many", "some", "few")),
    "repeated lines": "The heart is a muscle that pumps.\n" * 3 + GOOD,
    "repeated pairs": "the blood goes round and " + "blood vessels " * 20 + "to the heart",
    "decoding": GOOD + "\ufffd" * 5,
}


@pytest.mark.parametrize("rule", BAD)
def test_each_rule_finds_what_it_is_for_and_no_other_does(rule):
    others = [name for name in RULES if name != rule]
    assert find_broken_rule(BAD[rule], Quality(rules=[rule])) == rule
    assert find_broken_rule(GOOD, Quality(rules=[rule])) is None
    assert find_broken_rule(BAD[rule], Quality(rules=others)) is None
    assert find_broken_rule(GOOD, Quality()) is None and set(BAD) == set(RULES) - {"explaining"}


def test_each_kind_of_symbol_may_be_a_tenth_of_the_words():
    words = "the heart is there and it " * 10
    for text, passes in (
        (words + "# " * 6, True),
        (words + "#" * 8, False),
        (words + "... " * 5 + "# " * 6, True),
        (words + "... " * 5 + "\u2026 " * 3, False),
    ):
        assert (find_broken_rule(text, Quality(rules=["symbols"])) is None) == passes, text[60:]


def test_explaining_counts_phrases_that_define_and_give_reasons():
    text = "A neuron is called a cell, because it is one. It fires. It rests, for example at night."
    assert explaining_rate(text) == 1.0
    assert find_broken_rule(GOOD, Quality(min_explaining=0.5)) == "explaining"
    assert find_broken_rule(f"{text} {GOOD}", Quality(min_explaining=0.5)) is None


def test_without_rules_only_documents_without_text_are_left_out_and_an_unknown_one_is_named():
    with pytest.raises(UserError, match=r"unknown rule of selection.quality.rules 'letter': did you mean 'letters'"):
        Quality(rules=["letter"]).check("selection.quality")
    assert find_broken_rule("x", Quality(rules=[])) is None
    assert find_broken_rule("  \n", Quality(rules=[])) == NO_TEXT
