from collections import Counter

import pytest

from etude.errors import UserError
from etude.rollouts.attempts import Group
from etude.rollouts.curriculum import Curriculum, CurriculumSettings, slope
from etude.tasks.families import curriculum_levels
from etude.tasks.reward import Reward
from etude.tasks.task import Task

TASKS = [Task(f"{kind} {number}?", metadata={"kind": kind}) for kind in ("add", "sort") for number in range(4)]
WEAKNESS = CurriculumSettings("weakness", category="{kind}")
LEVELS = CurriculumSettings("levels", levels=[{}, {}, {}], level_groups=2)


def seen(curriculum, place, *scores):
    return curriculum.observe([Group(TASKS[place], ())], [[Reward(score) for score in scores]])


def levelled():
    return Curriculum([Task(f"{level} {number}?", metadata={"level": level}) for level in range(3) for number in range(5)], LEVELS, seed=0)


def test_before_anything_was_seen_all_tasks_weigh_the_same():
    curriculum = Curriculum(TASKS, WEAKNESS, seed=0)
    assert curriculum.weights() == [0.5] * 8
    counts = Counter(place for step in range(400) for place in curriculum.draw(step, 2))
    assert sum(counts.values()) == 800 and all(70 <= counts[place] <= 130 for place in range(8))


def test_weights_by_hand():
    curriculum = Curriculum(TASKS, WEAKNESS, seed=0)
    seen(curriculum, 0, None, None)
    assert curriculum.visits == [], "a group without scores says nothing"
    seen(curriculum, 0, 0.0, 1.0)  # half right: add fails (0.5 + 1) / (1 + 2)
    assert curriculum.failure_rates() == {"add": 0.5, "sort": 0.5}
    seen(curriculum, 0, 0.0, 0.0, 0.0, 1.0)  # worse than before: failing 1 - (0.5 + 0.25) / 2, and not getting better
    seen(curriculum, 1, 0.0, 0.0)  # nothing to learn from
    seen(curriculum, 4, 1.0, 1.0)
    rates = curriculum.failure_rates()
    assert rates == {"add": pytest.approx((0.5 + 0.75 + 1.0 + 1) / 5), "sort": pytest.approx(1 / 3)}
    weights = curriculum.weights()
    assert weights[0] == pytest.approx(rates["add"] * 1.625) and weights[1] == pytest.approx(rates["add"] * 0.1)
    assert weights[2] == pytest.approx(rates["add"]) and weights[4] == pytest.approx(rates["sort"] * 0.1)
    assert slope([1.0, 0.0]) == -1.0 and slope([0.25, 0.25, 0.25]) == 0.0 and slope([0.0, 1.0, 0.0]) == 0.0
    seen(curriculum, 0, 1.0, 1.0, 1.0, 0.0)  # better again: the slope is above 0
    assert curriculum.weights()[0] == pytest.approx(curriculum.failure_rates()["add"])


def test_a_task_that_stands_there_twice_is_one_task():
    curriculum = Curriculum([*TASKS, TASKS[0], Task("ADD 0 ?", metadata={"kind": "add"})], WEAKNESS, seed=0)
    seen(curriculum, 0, 0.0, 0.0)
    weights = curriculum.weights()
    assert weights[0] == pytest.approx(0.1 * weights[1]) and weights[8:] == [0.0, 0.0]
    assert all(len({TASKS[place].key for place in curriculum.draw(step, 8)}) == 8 for step in range(20))


def test_admission_is_by_variance_not_by_the_mean():
    curriculum = Curriculum(TASKS, WEAKNESS, seed=0)
    for place, scores in enumerate([(0.5, 0.5), (0.0, 1.0), (0.0, 0.0), (1.0, 1.0)]):
        seen(curriculum, place, *scores)
    assert [weight > 0.1 for weight in curriculum.weights()[:4]] == [False, True, False, False]


def test_a_category_is_judged_by_its_last_groups():
    curriculum = Curriculum(TASKS, CurriculumSettings("weakness", memory=2), seed=0)
    for scores in [(0.0,), (0.0,), (1.0,), (1.0,)]:
        metrics = seen(curriculum, 0, *scores)
    assert metrics == {"pool_hard": 0.0, "pool_medium": 1.0, "pool_easy": 0.0, "failing": 0.25}


def test_draws_are_of_the_step_and_the_seed_alone_and_without_repetition():
    first, again, other = (Curriculum(TASKS, WEAKNESS, seed=seed) for seed in (0, 0, 1))
    assert [first.draw(step, 3) for step in (5, 2)] == [again.draw(step, 3) for step in (5, 2)]
    assert [first.draw(step, 3) for step in range(9)] != [other.draw(step, 3) for step in range(9)]
    assert sorted(first.draw(0, 100)) == list(range(8))


def test_levels_rise_with_success_and_fall_without():
    curriculum = levelled()

    def at_level(score, number):
        for _ in range(number):
            task = Task(f"{curriculum.level} 0?", metadata={"level": curriculum.level})
            curriculum.observe([Group(task, ())], [[Reward(score)]])
        return curriculum.level

    assert [at_level(1.0, 1), at_level(1.0, 1)] == [0, 1]  # after two groups
    assert [at_level(0.5, 4), at_level(1.0, 2), at_level(1.0, 4)] == [1, 2, 2]  # neither up nor down; up; no higher
    assert [at_level(0.0, 2), at_level(0.0, 2), at_level(0.0, 2)] == [1, 0, 0]


def test_tasks_above_the_level_never_come_and_those_below_seldom():
    curriculum = levelled()
    assert {place // 5 for step in range(50) for place in curriculum.draw(step, 3)} == {0}
    curriculum.level = 1
    counts = Counter(place // 5 for step in range(200) for place in curriculum.draw(step, 2))
    assert counts[2] == 0 and 0 < counts[0] < counts[1] / 3


def test_the_levels_of_a_family_are_its_own():
    levels = curriculum_levels("chain_sum", 3)
    assert [level["max_terms"] for level in levels] == [2, 3, 4]
    assert "min_value" in curriculum_levels("number_sorting", 1)[0] and "allow_negation" not in levels[0]
    with pytest.raises(UserError, match="family 'number_sorting' has 8 levels of its own, 99 were asked for"):
        curriculum_levels("number_sorting", 99)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"method": "levels"}, "curriculum.method is levels, and there are 0 levels"),
        ({"levels": [{}]}, "curriculum.method is weakness, and there are 1 levels"),
        ({"method": "levels", "levels": [{}], "own_levels": 2}, "two ways to say the same"),
        ({"rest": 0.0}, "curriculum.rest must be above 0 and at most 1, got 0.0"),
        ({"lower_at": 0.7}, "lower_at < raise_at, got 0.7 and 0.7"),
    ],
)
def test_what_makes_no_sense_is_refused(settings, said):
    with pytest.raises(UserError, match=said):
        CurriculumSettings(**{"method": "weakness"} | settings)
    with pytest.raises(UserError, match=r"unknown field in curriculum.category 'colour'"):
        Curriculum(TASKS, CurriculumSettings("weakness", category="{colour}"), seed=0)
