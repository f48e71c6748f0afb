import pytest

from etude.knowledge.contamination import ContaminationCheck
from etude.knowledge.idf import InverseDocumentFrequency, make_assignments, match_tasks
from etude.knowledge.passages import Assignment, Knowledge, PassageBuilder, WriterOutput, agrees_with_gold, count_rejections
from etude.knowledge.writers.rules import rules_writer
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
RARITY = InverseDocumentFrequency.fit([each.text for each in ALL])


def choice(question, choices, answer, origin):
    return Task(show_choices(question, choices), answer, "choice", metadata={"choices": choices}, origin=origin)


PACEMAKER = choice("Which part is called the pacemaker?", ["the aorta", "the sinoatrial node"], "B", "q:1")
WALL = Task("Why is the wall of the left ventricle the thickest?", "It pumps blood to the whole body", origin="q:2")
FEMUR = choice("Which is the longest bone?", ["the femur", "the tibia"], "A", "q:3")
TASKS = [PACEMAKER, WALL, FEMUR]
NO_LEAKS = ContaminationCheck({})


def rows_of(writer=None, leaks=NO_LEAKS, tasks=TASKS, most_tasks=3, kept=(), **how):
    writing = PassageBuilder(writer or rules_writer(RARITY), leaks, **how)
    return list(writing.rows(make_assignments(match_tasks(ALL, tasks, RARITY), most_tasks), kept))


def saying(**fields):
    """A writer that says the same of everything."""
    return lambda assignments: [WriterOutput(**fields) for _ in assignments]


def test_sentences_are_prose_without_headings_and_lists():
    assert HEART.sentences[0] == "The heart is a muscle that pumps blood through the body." and len(HEART.sentences) == 3
    empty = Assignment(Knowledge("Empty", "* a list\n* of bones", "book:9"), (FEMUR,))
    assert rules_writer(RARITY)([empty]) == [WriterOutput(problem="nothing to say")]


def test_tasks_go_to_the_knowledge_that_has_their_rare_words():
    assert RARITY("femur") == pytest.approx(1.0986, abs=1e-4) and RARITY("blood") == pytest.approx(0.4055, abs=1e-4)
    assert RARITY("the") == RARITY("unheard") == 0.0
    assert match_tasks(ALL, TASKS, RARITY) == [(HEART, [PACEMAKER, WALL]), (BONES, [FEMUR])]


def test_a_passage_has_each_answer_with_its_reason_and_a_shared_paragraph():
    heart, bones = rows_of()
    assert heart["sources"] == ["book:1", "q:1", "q:2"] and bones["sources"] == ["book:2", "q:3"]
    parts = heart["text"].split("\n\n")
    assert parts[0] == "The Heart"
    assert parts[1] == (
        "Question: Which part is called the pacemaker?\nAnswer: the sinoatrial node. "
        "The sinoatrial node is called the pacemaker, because it sets the rhythm of the heart."
    )
    assert parts[2].endswith("It pumps blood to the whole body. The left ventricle has the thickest wall of all chambers.")
    assert parts[3].startswith("What these questions share: all are about The Heart")
    assert "Question 1 asks which of several answers is right" in parts[3] and "Question 2 asks for an explanation" in parts[3]
    assert len(bones["text"].split("\n\n")) == 2  # one problem shares nothing


def test_a_passage_mixes_kinds_of_tasks():
    more = [choice(f"Which part of the heart is number {n}?", ["the aorta", "the atrium"], "A", f"m:{n}") for n in range(2)]
    first, second = rows_of(tasks=[*more, WALL, PACEMAKER], most_tasks=2, similarity=1.0)
    assert first["sources"] == ["book:1", "m:0", "q:2"] and second["sources"] == ["book:1", "m:1", "q:1"]


@pytest.mark.parametrize(
    ("writer", "leaks", "reason", "said"),
    [
        (
            saying(reasons=("It is long.",), answers=("the tibia",)),
            NO_LEAKS,
            "contradicts the gold answer",
            "Answer: the femur. It is long.",
        ),
        (saying(problem="no reply", said="status 500"), NO_LEAKS, "no reply", "status 500"),
        (
            None,
            ContaminationCheck({"test": "The femur is the longest bone of the body and bears its weight"}),
            "holds a question that is asked",
            "femur",
        ),
    ],
)
def test_rejected_passages_are_kept_with_the_reason(writer, leaks, reason, said):
    (row,) = rows_of(writer, leaks, [FEMUR])
    assert row["rejected"] == reason and said in row["said"] and "text" not in row
    assert count_rejections([row, {"text": "", "sources": []}]) == {reason: 1}


def test_an_answer_that_agrees_is_written_as_the_gold_one():
    writer = saying(reasons=("It bears the weight.",), answers=("A",))
    assert "Answer: the femur. It bears the weight." in rows_of(writer, tasks=[FEMUR])[0]["text"]
    freely = saying(reasons=("It pumps far.",), answers=("Because it pumps the blood to all of the body.",))
    assert "Answer: It pumps blood to the whole body. It pumps far." in rows_of(freely, tasks=[WALL])[0]["text"]
    assert rows_of(freely, tasks=[WALL], min_agreement=0.9)[0]["rejected"] == "contradicts the gold answer"


@pytest.mark.parametrize(
    ("task", "said", "is_so"),
    [
        (Task("?", "x + 1", "exact"), "x - 1", False),
        (Task("?", "[1, 2, 3]", "exact"), "[3, 2, 1]", False),
        (Task("?", "7", "numeric"), "It is 7.0", True),
        (Task("?", "the heart", "exact"), "Heart", True),
        (Task("?", "the heart", "exact"), "the heart muscle", False),
        (Task("?", "It pumps the blood", "words"), "because it pumps blood", True),
        (Task("?", "It pumps the blood", "exact"), "to build bone", False),
    ],
)
def test_an_answer_is_right_by_its_verifier_and_by_words_where_it_is_worded_freely(task, said, is_so):
    assert agrees_with_gold(said, task, 0.5) is is_so


def test_a_problem_without_a_reason_and_a_passage_that_repeats_another_are_left_out():
    (row,) = rows_of(saying(reasons=(None, "It pumps far.")), tasks=[PACEMAKER, WALL])
    assert row["sources"] == ["book:1", "q:2"] and "pacemaker" not in row["text"]
    first, second = rows_of(tasks=[FEMUR, FEMUR], most_tasks=1)
    assert "text" in first and second["rejected"] == "repeats another"


def test_a_resumed_writer_writes_missing_passages_and_knows_earlier_ones():
    asked = []

    def writer(assignments):
        asked.extend(each.tasks[0].origin for each in assignments)
        return rules_writer(RARITY)(assignments)

    whole = rows_of(tasks=[FEMUR, FEMUR, PACEMAKER], most_tasks=1)
    for done in range(4):
        asked.clear()
        assert whole[:done] + rows_of(writer, tasks=[FEMUR, FEMUR, PACEMAKER], most_tasks=1, kept=whole[:done]) == whole
        assert asked == ["q:1", "q:3", "q:3"][done:]
    asked.clear()
    assert [row["place"] for row in rows_of(writer, tasks=[FEMUR, FEMUR, PACEMAKER], most_tasks=1, kept=whole[1:2])] == [0, 2]
    assert asked == ["q:1", "q:3"]
