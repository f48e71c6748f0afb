from collections import Counter

import pytest

from etude.knowledge.leaks import Leaks
from etude.knowledge.passages import Knowledge, Rarity, Writing, rule_made, together
from etude.tasks.choices import show_choices
from etude.tasks.task import Task

HEART = Knowledge(
    "The Heart",
    "Objectives\n\n* Name the chambers\n\nThe heart is a muscle that pumps blood through the body. The left ventricle has the thickest "
    "wall of all chambers. The sinoatrial node is called the pacemaker, because it sets the rhythm of the heart.",
    "book:1",
)
BONES = Knowledge(
    "Bones",
    "The femur is the longest bone of the body and bears its weight. Osteoblasts are cells that build new bone. The marrow inside of bones "
    "makes blood cells of every kind.",
    "book:2",
)
SHIPS = Knowledge("Ships", "The ship sails over the sea to an island with its crew. The captain stands at the wheel.", "book:3")
ALL = [HEART, BONES, SHIPS]
RARITY = Rarity.of([each.text for each in ALL])


def choice(question, choices, answer, origin):
    return Task(show_choices(question, choices), answer, "choice", metadata={"choices": choices}, origin=origin)


PACEMAKER = choice("Which part is called the pacemaker?", ["the aorta", "the sinoatrial node"], "B", "q:1")
WALL = Task("Why is the wall of the left ventricle the thickest?", "It pumps blood to the whole body", origin="q:2")
FEMUR = choice("Which is the longest bone?", ["the femur", "the tibia"], "A", "q:3")
TASKS = [PACEMAKER, WALL, FEMUR]
NO_LEAKS = Leaks({})


def written(writer=None, leaks=NO_LEAKS, tasks=TASKS, **how):
    writing = Writing(writer or rule_made(RARITY), leaks, **how)
    return list(writing.passages(together(ALL, tasks, RARITY))), writing.rejected


def test_tasks_go_to_the_knowledge_that_has_their_rare_words():
    assert together(ALL, TASKS, RARITY) == [(HEART, [PACEMAKER, WALL]), (BONES, [FEMUR])]


def test_a_word_says_more_the_fewer_documents_have_it():
    assert RARITY("femur") == pytest.approx(1.0986, abs=1e-4) and RARITY("blood") == pytest.approx(0.4055, abs=1e-4)
    assert RARITY("the") == RARITY("unheard") == 0.0


def test_sentences_are_prose_without_headings_and_lists():
    assert HEART.sentences[0] == "The heart is a muscle that pumps blood through the body." and len(HEART.sentences) == 3


def test_a_passage_has_each_answer_with_its_reason_and_then_what_is_shared_and_special():
    (heart, bones), rejected = written()
    assert not rejected
    assert heart.sources == ("book:1", "q:1", "q:2") and bones.sources == ("book:2", "q:3")
    parts = heart.text.split("\n\n")
    assert parts[0] == "The Heart"
    assert parts[1] == (
        "Question: Which part is called the pacemaker?\nAnswer: the sinoatrial node. "
        "The sinoatrial node is called the pacemaker, because it sets the rhythm of the heart."
    )
    assert parts[2].endswith("It pumps blood to the whole body. The left ventricle has the thickest wall of all chambers.")
    assert parts[3].startswith("What these questions share: all are about The Heart")
    assert "Question 1 asks which of several answers is right" in parts[3] and "Question 2 asks for an explanation" in parts[3]
    assert len(bones.text.split("\n\n")) == 2  # one problem shares nothing


def test_a_passage_mixes_kinds_of_tasks():
    more = [choice(f"Which part of the heart is number {n}?", ["the aorta", "the atrium"], "A", f"m:{n}") for n in range(2)]
    (first, second), _ = written(tasks=[*more, WALL, PACEMAKER], most_tasks=2, similarity=1.0)
    assert first.sources == ("book:1", "m:0", "q:2") and second.sources == ("book:1", "m:1", "q:1")


@pytest.mark.parametrize(
    ("writer", "leaks", "reason"),
    [
        (lambda knowledge, tasks: "The answer is the tibia and the aorta.", NO_LEAKS, "gold answer missing"),
        (lambda knowledge, tasks: None, NO_LEAKS, "nothing to say"),
        (None, Leaks({"test": "The femur is the longest bone of the body and bears its weight"}), "holds a question that is asked"),
    ],
)
def test_what_is_not_good_enough_is_counted_by_reason(writer, leaks, reason):
    passages, rejected = written(writer, leaks, [FEMUR])
    assert passages == [] and rejected == Counter({reason: 1})


def test_a_passage_that_repeats_another_is_left_out():
    passages, rejected = written(tasks=[FEMUR, FEMUR], most_tasks=1)
    assert len(passages) == 1 and rejected == Counter({"repeats another": 1})


def test_knowledge_without_sentences_has_nothing_to_say():
    assert rule_made(RARITY)(Knowledge("Empty", "* a list\n* of bones", "book:9"), [FEMUR]) is None
    assert rule_made(RARITY)(BONES, []) is None
