"""Templates write demonstrations of instructions that the verifier accepts."""

from itertools import islice
from random import Random

from etude.tasks.families import sample_tasks
from etude.tasks.instructions.verify import instructions
from etude.tasks.task import Task
from experiments.instruction_templates import answer, demonstrations


def test_a_template_follows_every_kind_of_rule_that_training_asks_for() -> None:
    random, written, asked = Random(0), set[str](), set[str]()
    for task in islice(sample_tasks("instructions", {}, split="train", seed=0), 300):
        kinds = {rule["kind"] for rule in task.metadata["rules"]}
        asked |= kinds
        if (text := answer(task, random)) is not None:
            assert instructions(text, task).is_right
            written |= kinds
    assert written == asked


def test_a_request_that_no_template_answers_has_no_demonstration() -> None:
    rules = [{"kind": "uppercase", "arguments": {}}]
    assert (
        answer(Task("Write a line about the sea. ...", metadata={"subject": "Write a line about the sea.", "rules": rules}), Random(0))
        is None
    )
    assert answer(Task("Sing. ...", metadata={"subject": "Sing.", "rules": rules}), Random(0)) is None


def test_demonstrations_depend_on_the_seed_only_and_more_of_them_append() -> None:
    few, many, others = (list(demonstrations({}, seed, n)) for seed, n in ((1, 5), (1, 9), (2, 5)))
    assert few == many[:5] and len(many) == 9 and few != others and set(few[0]) == {"question", "answer"}
