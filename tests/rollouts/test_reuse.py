import pytest

from etude.engine.completion import Completion
from etude.engine.sampling import Sampling
from etude.engine.transformers import TransformersEngine
from etude.learn.settings import Learning
from etude.recipes.step import attempt_rows
from etude.rewards.verdict import Verdict
from etude.rollouts.attempts import Attempt, Group
from etude.rollouts.reuse import Drafts, visits
from etude.rollouts.samples import sample_groups
from etude.tasks.task import Task

A, B = Task("a"), Task("b")


def group(task, *own):
    return Group(task, tuple(Attempt.of((1, 2), Completion(each, (-1.0,) * len(each), "", "stop", 0, 0)) for each in own))


def of(drafts, tasks, num_samples):
    return drafts.of(tasks, visits(task.key for task in tasks), range(num_samples))


def test_the_last_attempts_are_the_drafts():
    drafts = Drafts()
    drafts.keep([group(A, (3, 4), (5,)), group(B, (6,), (7,))])
    drafts.keep([group(B, (8,), (9, 9))])
    assert of(drafts, [B, A, Task("c")], 2) == [[(8,), (9, 9)], [(3, 4), (5,)], [(), ()]]
    assert of(drafts, [A], 3) == [[(3, 4), (5,), ()]] and of(drafts, [A], 1) == [[(3, 4)]]
    assert drafts.of([A], [0], range(1, 3)) == [[(5,), ()]]


def test_a_task_that_comes_twice_in_a_step_has_drafts_for_both():
    drafts = Drafts()
    drafts.keep([group(A, (3,)), group(B, (4,)), group(A, (5,))])
    assert of(drafts, [A, A, A], 1) == [[(3,)], [(5,)], [()]]


def test_the_share_is_of_tokens_up_to_the_first_that_differs():
    drafts = Drafts()
    drafts.keep([group(A, (3, 4, 5, 6), (7,))])
    assert drafts.share([group(A, (3, 4, 9, 6), (7,)), group(B, (1, 2, 3), (4, 5))]) == pytest.approx(3 / 10)


def test_what_the_run_folder_keeps_gives_the_same_drafts():
    groups = [group(A, (3, 4), (5,)), group(B, (6,), (7,)), group(A, (8,), (9, 9))]
    kept, read = Drafts(), Drafts()
    kept.keep(groups)
    no_verdicts = [[Verdict(None)] * 2] * 3
    read.keep_rows(attempt_rows(1, groups, no_verdicts, Learning(), with_tokens=True))
    assert of(read, [A, A, B], 2) == of(kept, [A, A, B], 2) == [[(3, 4), (5,)], [(8,), (9, 9)], [(6,), (7,)]]


def test_attempts_differ_between_tasks_samples_and_visits_of_one_step_but_not_between_steps(llama, tokenizer):
    engine, drafts = TransformersEngine(llama, tokenizer), Drafts()
    how = {"num_samples": 3, "max_new_tokens": 6, "sampling": Sampling(), "names": (0, "visits")}

    def visit(tasks):
        places = visits(task.key for task in tasks)
        groups = sample_groups(engine, tasks, [(9, 8, 7)] * len(tasks), **how, places=places, drafts=drafts)
        drafts.keep(groups)
        return [[attempt.own_tokens for attempt in group.attempts] for group in groups]

    first = visit([A, B, A])
    assert len({own for row in first for own in row}) == 9
    assert visit([B, A]) == [first[1], first[0]]
