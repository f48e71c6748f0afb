import pytest

from etude.errors import UserError
from etude.rollouts import collapse
from etude.rollouts.collapse import CollapseSettings, CollapseWatch, agreement_metrics, collapse_in, is_sound

HOW = CollapseSettings(window=2)
WELL = {"vote_share": 0.5, "constant_share": 0.1, "distinct_majorities": 1.0, "entropy": 0.8, "completion_tokens": 20.0}


def steps(*metrics):
    return [{"step": number, **WELL, **each} for number, each in enumerate(metrics, start=1)]


def test_agreement_within_tasks_and_likeness_between_them_by_hand():
    found = agreement_metrics([["7", "7", "8", None], ["9", "9", "9", "9"], ["7", "7", "7", "1"]])
    assert found == {"vote_share": pytest.approx((0.5 + 1.0 + 0.75) / 3), "constant_share": 2 / 3, "distinct_majorities": 2 / 3}
    assert agreement_metrics([[None, None]]) == {"vote_share": 0.0}


def test_one_answer_to_everything_is_a_collapse():
    collapse = collapse_in(steps({}, {}, {}, {"constant_share": 0.6}, {"constant_share": 0.8}, {"constant_share": 0.9}), HOW)
    assert (collapse.step, collapse.signs, collapse.now["constant_share"]) == (5, ("constant",), pytest.approx(0.7))
    assert collapse.words.startswith("collapse at step 5 (constant): one answer to 70% of the tasks (10% at first)")


@pytest.mark.parametrize("falls", ["entropy", "completion_tokens", "distinct_majorities"])
def test_agreement_that_rises_while_something_falls_to_a_quarter_is_a_collapse(falls):
    narrow = {"vote_share": 0.75, falls: WELL[falls] / 4}
    assert collapse_in(steps({}, {}, narrow, narrow), HOW).signs == ("narrow",)
    assert collapse_in(steps({}, {}, narrow | {"vote_share": 0.65}, narrow | {"vote_share": 0.65}), HOW) is None  # no surer
    assert collapse_in(steps({}, {}, {"vote_share": 0.75}, {"vote_share": 0.75}), HOW) is None  # surer alone
    learned = {"vote_share": 0.9, "entropy": 0.3, "completion_tokens": 12.0}
    assert collapse_in(steps({}, {}, *[learned] * 10), HOW) is None  # of different answers


def test_tasks_of_few_answers_have_to_come_closer_to_one():
    assert collapse_in(steps(*[{"constant_share": 1.0}] * 6), HOW) is None, "a step of one task has one answer"
    few, fewer = {"constant_share": 0.6}, {"constant_share": 0.75}
    assert collapse_in(steps(few, few, few, few, fewer, fewer), HOW) is None
    assert collapse_in(steps(few, few, few, few, {"constant_share": 0.9}, {"constant_share": 0.9}), HOW).signs == ("constant",)


def test_steps_in_which_nobody_answers_are_left_out_and_a_model_that_gives_no_answer_is_not_sound():
    silent = {"constant_share": None, "distinct_majorities": None}
    collapsed = steps({}, silent, {}, {"constant_share": 0.9}, silent)
    assert collapse_in(collapsed, HOW).signs == ("constant",)
    assert is_sound(steps({}, {}, {}, silent), HOW) and not is_sound(steps({}, {}, silent, silent), HOW)


def test_nothing_is_seen_in_too_few_steps_nor_without_the_metrics():
    collapsed = steps({}, {}, {"constant_share": 1.0}, {"constant_share": 1.0})
    assert collapse_in(collapsed[:3], HOW) is None
    assert collapse_in([{"step": row["step"]} for row in collapsed], HOW) is None  # a run from before there were these metrics


def test_a_model_is_sound_until_a_sign_is_half_as_strong_as_the_alarm_asks():
    assert is_sound(steps({}, {}, {}, {}), HOW)
    assert is_sound(steps({}, {}, {"constant_share": 0.25}, {"constant_share": 0.25}), HOW)  # 0.1 to 0.55 is a collapse
    assert not is_sound(steps({}, {}, {"constant_share": 0.35}, {"constant_share": 0.35}), HOW)
    narrow, wider = {"vote_share": 0.65, "entropy": 0.35}, {"vote_share": 0.65, "entropy": 0.5}
    assert not is_sound(steps({}, {}, narrow, narrow), HOW) and is_sound(steps({}, {}, wider, wider), HOW)
    assert collapse_in(steps({}, {}, narrow, narrow), HOW) is None


@pytest.mark.parametrize("name", ["constant", "rise", "fall"])
def test_what_is_no_share_is_refused(name):
    with pytest.raises(UserError, match=f"collapse.{name} must be above 0 and at most 1, got 0"):
        CollapseSettings(**{name: 0})


def test_rows_that_grow_are_looked_at_once_and_show_what_all_of_them_show(monkeypatch):
    looked, real = [], collapse._seen
    monkeypatch.setattr(
        collapse, "_seen", lambda first, last, how, **more: looked.append(last[-1]["step"]) or real(first, last, how, **more)
    )
    rows = steps(*[{}] * 8, {"constant_share": 0.6}, {"constant_share": 0.9}, {}, {})
    watch = CollapseWatch(HOW)
    found = [watch.first(rows[:end]) for end in range(len(rows) + 1) for _ in range(3)]
    assert looked == list(range(4, 11))
    assert [each and each.step for each in found[::3]] == [None] * 10 + [10] * 3
    assert found[-1] == collapse_in(rows, HOW)
    assert watch.first(rows[:9]) is None and watch.first(rows).step == 10  # after a log was cut
