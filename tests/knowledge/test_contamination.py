import pytest

from etude.knowledge.contamination import ContaminationCheck, Leak
from etude.tasks.task import canonical_words

QUESTION = "Which chamber of the heart receives blood that comes from the lungs through the pulmonary veins?"
PAGE = "The heart has four chambers. " * 5
OTHER = "Name the bone that protects the brain and say which joints hold its plates together in adults."


def worst(text, questions=None, **how):
    return ContaminationCheck(questions or {"heart": QUESTION, "skull": OTHER}, **how).find_worst(canonical_words(text))


@pytest.mark.parametrize(
    ("page", "leak"),
    [
        (f"{PAGE} {QUESTION.upper()} {PAGE}", Leak("heart", 1.0)),  # whatever its case and marks
        (f"{PAGE} The left atrium receives blood from the lungs through four pulmonary veins.", None),
        (f"{' '.join(OTHER.split()[:11])}. {QUESTION}", Leak("heart", 1.0)),  # the one that is leaked most
        ("The room that lies behind the left valve is the left atrium and it has thin walls too.", Leak("blank", 1.0)),
    ],
)
def test_a_copy_is_found_and_a_page_on_the_subject_is_none(page, leak):
    """A blank splits a question, and what fills it does not matter."""
    questions = {"blank": "The room that lies behind the left valve is ________ and it has thin walls too."}
    assert worst(page, {"heart": QUESTION, "skull": OTHER} | questions) == leak


def test_a_lightly_edited_copy_is_found():
    edited = QUESTION.replace("lungs", "lung").replace("Which", "What")
    leak = worst(f"{PAGE} {edited} {PAGE}")
    assert leak is not None and leak.question == "heart" and 0.5 <= leak.share < 1


def test_the_share_decides():
    half = " ".join(QUESTION.split()[:11])
    assert worst(half, share=0.4) is not None and worst(half, share=0.9) is None


def test_questions_too_short_to_tell_are_named():
    leaks = ContaminationCheck({"short": "What is bone?", "long": QUESTION})
    assert leaks.unchecked == ["short"]
    assert leaks.find_worst(canonical_words("What is bone?")) is None
