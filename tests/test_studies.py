"""Every study runs in its tiny form, goes on where it stopped, and its verdict follows from its rows."""

import copy
import importlib
import json
import re
import runpy
import sys
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from unittest.mock import Mock

import numpy as np
import pytest
import torch
import yaml

from etude.evaluation.long.task import LongTask
from etude.evaluation.long.tokenized import TokenizedTask
from etude.evaluation.statistics import mean_interval, rank_correlation, sign_flip_test
from etude.recipes.adapt_settings import parse_adapt
from etude.settings.configuration import find_configuration, to_plain_values
from etude.suites.general_knowledge import SHIPPED
from etude.suites.retention_changes import CHAT
from etude.tasks.task import Task
from etude.training.run_folder import RunFolder
from experiments import questions
from experiments.arms import ARMS, TINY, Arms, reduce_arms, share
from experiments.cells import Options, compute
from experiments.figures import draw
from experiments.pages import PAGES, ROOT, fill, seen_from
from experiments.runs import run_interval
from studies import (
    calculator,
    decoding,
    demonstrations,
    diversity,
    exploration,
    importance,
    instructions,
    knows_says,
    layers,
    long_context,
    long_thought,
    number_sorting,
    order,
    practice_alone,
    practice_views,
    retention,
    retention_stress,
    searching,
    selection,
    self_training,
    step_values,
)

STUDIES = sorted(path.stem for path in Path(number_sorting.__file__).parent.glob("*.py") if not path.stem.startswith("_"))
OF_PRACTICE = {"number_sorting": ARMS, "word_problems": ("practice",), "calculator": ("practice",)}
"""By study the arms that are tried: both have the same."""


def test_every_study_is_tried_here():
    assert set(STUDIES) == {*OF_PRACTICE, *(name for name, own in globals().items() if getattr(own, "__package__", "") == "studies")}


def run(name: str, folder: Path, *words: str) -> None:
    """`python -m studies.NAME --tiny --out FOLDER`, in this process: one of its own would take seconds to begin."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", [name, "--tiny", "--out", str(folder), *words])
        runpy.run_path(str(Path(number_sorting.__file__).with_name(f"{name}.py")), run_name="__main__")


@pytest.mark.parametrize(("name", "arms"), OF_PRACTICE.items())
def test_a_study_runs_in_its_tiny_form_and_skips_cells_that_are_there(name, arms, tmp_path, capsys):
    run(name, tmp_path, "--only", *arms)
    assert "cell practice" in capsys.readouterr().out
    result = json.loads((tmp_path / "result.json").read_text())
    assert {"claim", "commit", "hardware", "rows", "verdict", "because"} <= result.keys()
    assert [row["id"] for row in result["rows"]] == ["base", "warm_start", *arms]
    assert all(row["accuracy_low"] <= row["accuracy"] <= row["accuracy_high"] for row in result["rows"])
    figure = (tmp_path / "figure.svg").read_text()
    assert all(row["id"].replace("_", " ") in figure for row in result["rows"])
    assert "bfloat16" in result["hardware"] or "float32" in result["hardware"]
    run(name, tmp_path, "--only", *arms)
    assert "cell practice" not in capsys.readouterr().out
    if name == "number_sorting":  # the rest is the table's, whatever it is of
        refuses_other_settings(name, tmp_path)


def refuses_other_settings(name: str, folder: Path) -> None:
    cell_path = next((folder / "cells").glob("practice-*.json"))
    cell = json.loads(cell_path.read_text())
    assert cell["settings"]["steps"] == TINY["steps"] and cell["commit"]
    cell_path.write_text(json.dumps({**cell, "settings": {**cell["settings"], "steps": 7}}))
    with pytest.raises(SystemExit, match="another steps than there is now"):
        run(name, folder)
    cell_path.unlink()
    kept = folder / "runs" / cell_path.stem / "configuration.yaml"
    kept.write_text(kept.read_text().replace("steps: 6", "steps: 7"))
    with pytest.raises(SystemExit, match="was run with another"):
        run(name, folder)
    assert not cell_path.exists()


def test_the_study_of_exploration_tries_arms_in_its_tiny_form(tmp_path):
    arms = (exploration.BASELINE, "star_rationalised", "policy_gradient_step_model")
    result = tiny("exploration", tmp_path, *arms)
    assert result["verdict"] == "undecided"
    assert {row["id"] for row in result["rows"]} == {"base", "warm_start", *arms}
    for row in result["rows"]:
        if "gain" in row:
            assert row["set"] == "screen: tiny" and row["sampled_tokens"] > 0 and row["divergence"] is not None and row["entropy"] > 0


def test_the_study_of_diversity_keeps_the_course_of_its_runs_in_its_tiny_form(tmp_path):
    result = tiny("diversity", tmp_path)
    assert result["verdict"] == "undecided" and "not all cells are there" in result["because"]
    rows = {row["id"]: row for row in result["rows"]}
    assert rows.keys() == {"base", "warm_start", *diversity.TINY_ARMS}
    for arm in diversity.TINY_ARMS:
        assert list(rows[arm]["pass_curve"]) == ["1", "2", "4"] and len(rows[arm]["course"]["distinct_forms"]) == 3
        assert rows[arm]["final_pass_each_seed"] == [rows[arm]["pass_curve"]["4"]]
    cell = json.loads((tmp_path / "cells" / f"{diversity.BASELINE}-{diversity.SEEDS[0]}.json").read_text())
    assert cell["course"].keys() == set(diversity.COURSE) and "pass_at_4" in cell["evaluation"][0]


def tiny(name: str, folder: Path, *arms: str) -> dict:
    """The result of a study's tiny form, of all its arms or of these."""
    run(name, folder, *(("--only", *arms) if arms else ()))
    assert (folder / "figure.svg").read_text().count("<svg") == 1
    result = json.loads((folder / "result.json").read_text())
    assert importlib.import_module(f"studies.{name}").STUDY.table(result["rows"]).startswith("| ")
    return result


def test_the_study_of_practice_alone_keeps_what_runs_showed_on_the_way(tmp_path):
    rows = {row["id"]: row for row in tiny("practice_alone", tmp_path)["rows"]}
    assert rows.keys() == {"base", "warm_start", *practice_alone.TINY_ARMS}
    assert rows["proposer_solver"]["made"] > 0 and "made" not in rows["gold"]
    assert all(0 <= rows[arm]["majority_right_first"] <= 1 and rows[arm]["collapsed"] == 0 for arm in practice_alone.TINY_ARMS)


def test_the_best_of_the_screen_of_each_kind_is_in_the_final():
    best = {"gold": 0.5, "gold_rate": 0.9, "random_reward": 0.9, "agreement_abstain": 0.4, "svs": 0.6}
    accuracy = dict.fromkeys(practice_alone.ARMS, 0.3) | best
    screened = [{"id": arm, "accuracy": value} for arm, value in accuracy.items()]
    assert {arm for arm, _ in practice_alone.final(screened)} == {"gold", "random_reward", "agreement_abstain", "svs"}
    assert practice_alone.to_read(screened) == [("svs", 41)]
    assert practice_alone.final(screened[:-1]) == practice_alone.to_read(screened[:-1]) == []


def test_what_a_reader_says_of_own_problems_stands_with_the_arm_that_wrote_them_on_the_set_it_practised(tmp_path):
    said = [{"arm": "svs", "is_sound": True}, {"arm": "svs", "is_sound": False}, {"arm": "svs", "is_sound": None}]
    (tmp_path / "read.jsonl").write_text("".join(json.dumps(row) + "\n" for row in said))
    rows = [{"id": arm, "set": name} for arm, name in (("svs", "test"), ("svs", "SVAMP_dev"), ("gold", "test"))]
    assert practice_alone._with_reading(tmp_path, rows) == [rows[0] | {"made_read_sound": 0.5, "made_read_n": 2}, *rows[1:]]
    assert practice_alone._with_reading(tmp_path / "none", rows) == rows


@pytest.mark.parametrize(
    ("question", "answer", "valid"),
    [
        ("Sort in descending order: -1.0, 3, 2", "['3', '2', '-1']", True),
        ("Sort in ascending order: 3, 3, 2", "['2', '3']", False),
        ("Sort in ascending order: 3", "['3']", False),
        ("Sort these: 3, 2", "['2', '3']", None),
        ("Sort in ascending order: 3, 2", None, False),
    ],
)
def test_a_problem_of_sorting_is_judged_by_rule(question, answer, valid):
    assert practice_alone.is_valid(question, answer) is valid


def test_the_study_of_step_values_asks_every_estimator_in_its_tiny_form(tmp_path):
    rows = tiny("step_values", tmp_path)["rows"]
    assert [row["id"] for row in rows] == list(step_values.ESTIMATORS)
    assert all(row["spearman_low"] <= row["spearman"] <= row["spearman_high"] and row["n"] == 8 for row in rows)
    assert all(0 <= row["ordered_within_low"] <= row["ordered_within"] <= row["ordered_within_high"] <= 1 for row in rows)


def test_the_study_of_searching_answers_with_the_step_model_and_without_in_its_tiny_form(tmp_path):
    rows = tiny("searching", tmp_path)["rows"]
    assert {row["id"] for row in rows} == {"greedy", *searching.TINY_CASES}


def test_the_study_of_long_thought_measures_every_model_at_every_length_in_its_tiny_form(tmp_path):
    result = tiny("long_thought", tmp_path)
    lengths = ("free", *long_thought.TINY_BUDGETS)
    assert [row["id"] for row in result["rows"]] == [f"{arm}_{length}" for arm in long_thought.ROWS for length in lengths]
    assert result["verdict"] == "undecided" and "random_reward_behind_low" in result["rows"][3]


def test_the_slope_of_an_item_is_what_a_doubling_of_its_thought_adds():
    answers = {"a": [[1, 0, 0, 1, 1]], "b": [[0, 1, 1, 1, 1]], "c": [[0, 0, 0, 0, 1], [0, 1, 0, 0, 0]]}
    slopes = long_thought.slopes_of(answers, (8, 16, 32, 64))
    assert slopes == {"a": pytest.approx((0.5 + 1.5) / 5), "b": pytest.approx(0), "c": pytest.approx(0)}


def test_the_study_of_retention_measures_what_every_model_can_and_knows_in_its_tiny_form(tmp_path):
    rows = tiny("retention", tmp_path)["rows"]
    assert [row["id"] for row in rows] == [arm for arm in retention.ARMS if arm in retention.TINY_ARMS]
    start, *others = rows
    assert (start["gain"], start["kept"], start["rise"], start["forward_kl"]) == (0.0, 1.0, 0.0, 0.0)
    assert all(row["kept_low"] <= row["kept"] <= row["kept_high"] and row["forward_kl"] for row in others)
    assert all(row["forward_kl"] > 0 for row in others if row["id"] != "harmful_gate")  # which fell back: its estimate may be below 0
    assert start["kl_correlation_n"] == 3 and "sound_kl_correlation" not in start  # of two sound ways none is told
    assert "above_rl" in next(row for row in rows if row["id"] == "sft")


def test_the_study_of_stress_measures_what_is_kept_after_long_practice_and_a_second_task_in_its_tiny_form(tmp_path):
    result = tiny("retention_stress", tmp_path)
    assert result["verdict"] == "undecided" and "not all cells are there" in result["because"]
    rows = {row["id"]: row for row in result["rows"]}
    assert list(rows) == [arm for arm in retention_stress.ARMS if arm in retention_stress.TINY_ARMS]
    start = rows.pop("start")
    assert [start[name] for name in ("gain", "known", "kept", "new", "kl_text", "kl_chat")] == [0.0, 1.0, 1.0, 0.0, 0.0, 0.0]
    assert all(row["kl_text"] > 0 and row["kl_chat"] > 0 and 0 <= row["known"] <= 1 for row in rows.values())
    assert rows["base"]["kept_of_base"] == 1.0 and "second" in rows[retention_stress.LAST]


def test_what_is_kept_is_of_what_each_seed_of_the_start_knew_and_had_right():
    def cell(margins, bits):
        return {"choices": {"all": [[margin, margin > 0, 0.25] for margin in margins]}, "answers": {"instructions": bits}}

    start, now = cell([2.0, 0.2, 1.0, -1.0], "1100"), cell([1.0, -9.0, -0.1, 5.0], "1010")
    assert retention_stress.known(now, start, margin=0.5) == [1.0, None, 0.0, None]
    assert retention_stress.answers_right(now, start, were_right=True) == [1.0, 0.0, None, None]
    assert retention_stress.answers_right(now, start, were_right=False) == [None, None, 1.0, 0.0]
    other = cell([1.0, 1.0, 1.0, 1.0], "0000"), cell([1.0, 1.0, 1.0, -1.0], "1000")
    known = retention_stress.shares("known", [(now, start), other], lambda own, its: retention_stress.known(own, its, margin=0.5))
    assert known["known_each_seed"] == [0.5, 1.0]
    assert known["known_n"] == 3 and known["known"] == pytest.approx((1 + 1 + 0.5) / 3)  # the fourth question was known by neither
    assert retention_stress.nats_a_token("kl", [[(1.0, 10), (2.0, 5)], [(0.0, 3)]])["kl"] == pytest.approx(0.1)


def test_of_the_models_on_the_way_the_nearest_on_dev_tasks_is_taken_and_of_two_as_near_the_earlier():
    assert retention.nearest({5: 0.25, 10: 0.5, 20: 0.75}, 0.7) == 20
    assert retention.nearest({5: 0.25, 10: 0.5, 20: 0.75}, 0.375) == 5


def test_forgetting_follows_divergence_only_where_the_interval_is_above_0():
    rising = retention.correlation("kl", [(float(i), float(i * i)) for i in range(8)])
    assert rising["kl"] == pytest.approx(1.0) and rising["kl_low"] > 0.9 and rising["kl_n"] == 8
    mixed = retention.correlation("kl", [(0.0, 1.0), (1.0, 0.0), (2.0, 3.0), (3.0, 1.5)])
    assert mixed["kl_low"] < 0 < mixed["kl_high"]


def test_rank_correlation_is_pearsons_of_ranks_where_equal_values_share_theirs():
    assert rank_correlation([3.0, 1.0, 1.0, 9.0], [3.0, 1.5, 1.5, 4.0]) == pytest.approx(1.0)
    assert step_values._spearman([[(1.0, 10.0), (2.0, 100.0)], [(3.0, 1000.0)]]) == pytest.approx(1.0)
    assert step_values._spearman([[(1.0, 3.0), (2.0, 1.0), (3.0, 2.0)]]) == pytest.approx(-0.5)
    assert step_values._spearman([[(1.0, 3.0), (1.0, 1.0)]]) == 0.0


def test_pairs_in_order_are_of_one_task_and_lie_apart():
    assert step_values._ordered_within([[(0.9, 0.8), (0.1, 0.2), (0.9, 0.35)], [(5.0, 0.1), (0.0, 0.15)]]) == pytest.approx(
        (1 + 0.5 + 1) / 3
    )
    assert step_values._ordered_within([[(0.9, 0.8)], [(0.1, 0.2)]]) == 0.5


def cell(arm: str, seed: int, items: str, before: str, after: str) -> dict:
    models = {"base": "0" * len(before), "warm_start": before, "practice": after}
    rows = [{"suite": "s", "model": model, "pass_at_8": 0.5, "parsable": 1.0, "baselines": {}} for model in models]
    right = {model: {"s": bits} for model, bits in models.items()}
    return {"id": arm, "seed": seed, "items": {"s": items}, "right": right, "evaluation": rows, "training_seconds": {"practice": 1.0}}


def test_answers_of_several_seeds_to_one_item_count_as_one_item():
    rows = reduce_arms([cell("practice", 1, "a b c", "000", "110"), cell("practice", 2, "a b c", "001", "101")])
    found = next(row for row in rows if row["id"] == "practice")
    assert (found["n"], found["seeds"], found["accuracy"]) == (3, 2, pytest.approx(4 / 6))
    assert found["gain"] == pytest.approx((1 + 0.5 + 0) / 3)
    assert (found["gain_low"], found["gain_high"]) == mean_interval([1.0, 0.5, 0.0])
    assert found["gain_p"] == sign_flip_test([2, 1, 0]) == 0.5
    assert found["gain_each_seed"] == [pytest.approx(2 / 3, abs=1e-4), pytest.approx(1 / 3, abs=1e-4)]


def test_gains_and_leads_have_an_interval_over_runs_those_of_samples_too():
    runs = [cell("practice", 1, "a b", "00", "11"), cell("practice", 2, "a b", "00", "01")]
    others = [cell("imitation", 1, "a b", "00", "01"), cell("imitation", 2, "a b", "00", "01")]
    runs[0]["evaluation"][2]["pass_at_8"] = 0.75
    rows = {row["id"]: row for row in reduce_arms([*runs, *others])}
    assert rows["practice"]["gain_each_seed"] == [1.0, 0.5] and rows["imitation"]["practice_ahead_each_seed"] == [0.5, 0.0]
    assert (rows["practice"]["gain_run_low"], rows["practice"]["gain_run_high"]) == run_interval([1.0, 0.5])
    assert (rows["imitation"]["practice_ahead_run_low"], rows["imitation"]["practice_ahead_run_high"]) == run_interval([0.5, 0.0])
    assert rows["practice"]["pass_at_8_gain_each_seed"] == [0.25, 0.0] and rows["practice"]["pass_at_8_gain"] == 0.125
    assert rows["imitation"]["pass_at_8_practice_ahead_each_seed"] == [0.25, 0.0]
    one = {row["id"]: row for row in reduce_arms([runs[0], others[0]])}
    assert "gain_run_low" not in one["practice"] and one["imitation"]["practice_ahead_each_seed"] == [0.5]


def test_seeds_with_items_of_their_own_add_up_to_more_items():
    rows = reduce_arms([cell("practice", 1, "a b", "00", "11"), cell("practice", 2, "c d", "00", "11")])
    found = next(row for row in rows if row["id"] == "practice")
    assert (found["n"], found["accuracy"], found["gain_p"]) == (4, 1.0, sign_flip_test([1] * 4))


def test_what_an_arm_gains_is_counted_from_its_own_warm_start_and_a_longer_one_from_that_of_practice():
    others = [cell(name, 1, "a b c d", "0001", "0011") for name in ("imitation", "longer_warm_start")]
    rows = reduce_arms([cell("practice", 1, "a b c d", "0000", "1111"), *others])
    assert {row["id"]: row["gain"] for row in rows if "gain" in row} == {"practice": 1.0, "imitation": 0.25, "longer_warm_start": 0.5}


def test_without_a_warm_start_gains_are_over_the_model_as_it_came():
    runs = [cell("practice", 1, "a b c d", "0000", "1111"), cell("imitation", 1, "a b c d", "0000", "0011")]
    for run in runs:
        run["right"] = {"base": {"s": "0001"}, "practice": run["right"]["practice"]}
    rows = reduce_arms(runs, ("practice", "imitation"), start="base")
    assert [(row["id"], row.get("gain")) for row in rows] == [("base", None), ("practice", 0.75), ("imitation", 0.25)]


def test_a_cell_from_before_its_recipe_had_this_name_has_its_suite_under_todays(tmp_path):
    table = Arms("number_sorting", number_sorting.STEPS)
    path = tmp_path / "cells" / "practice-10.json"
    path.parent.mkdir()
    found = {"items": {"quickstart": "a b"}, "evaluation": [{"suite": "quickstart"}], "commit": "quickstart"}
    path.write_text(json.dumps({"id": "practice", "seed": 10, "settings": table.settings("practice", 10), **found}))
    (kept,) = compute([], table, Options(tmp_path, None, 1.0, [], [10], is_tiny=False))
    assert (kept["items"], kept["evaluation"]) == ({"number_sorting": "a b"}, [{"suite": "number_sorting"}])
    assert kept["commit"] == "quickstart"


def test_the_study_of_instructions_compares_practice_with_every_control_in_its_tiny_form(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # where demonstrations are written
    result = tiny("instructions", tmp_path / "out")
    assert [row["id"] for row in result["rows"]] == ["base", *instructions.ARMS]
    assert all("gain" in row for row in result["rows"][1:]) and result["verdict"] == "undecided"
    assert all("practice_ahead" in row for row in result["rows"][2:])


def test_every_arm_of_instructions_differs_from_practice_and_far_ones_have_fewer_seeds():
    table = instructions.Instructed("quickstart", {}, instructions.RUN, instructions.CHANGES)
    settings = [json.dumps(table.settings(arm, 121)) for arm in instructions.ARMS]
    assert len(set(settings)) == len(instructions.ARMS)
    own = json.loads(settings[0])
    updates = own["steps"] * own["learn"]["minibatches_per_epoch"]
    assert instructions.CHANGES["sft_own"]["learn.minibatches_per_epoch"] == updates
    assert instructions.CHANGES["sft_own"]["rollout.tasks_per_step"] == own["steps"] * own["rollout"]["tasks_per_step"]
    assert instructions.CHANGES["demonstrations"]["warm_start.steps"] == updates


def test_what_an_arm_kept_is_over_all_questions_and_texts_of_a_seed_without_chat_and_the_text_of_the_bound():
    def rows(known, nats):
        return [
            {"part": "known", "name": "a", "n": 1, "value": known},
            {"part": "known", "name": "b", "n": 3, "value": 1.0},
            {"part": "divergence", "name": "a book", "n": 2, "value": nats},
            {"part": "divergence", "name": CHAT, "n": 2, "value": 9.0},
            {"part": "divergence", "name": SHIPPED, "n": 2, "value": 7.0},
        ]

    runs = [cell("practice", seed, "a b", "00", "11") | {"retention": rows(*each)} for seed, each in ((121, (0.0, 0.1)), (122, (1.0, 0.3)))]
    for run in runs:
        run["items"], run["right"] = {"quickstart": "a b"}, {"base": {"quickstart": "00"}, "practice": {"quickstart": "11"}}
    row = next(row for row in instructions.reduce(runs) if row["id"] == "practice")
    assert (row["known_each_seed"], row["known"], row["forgetting_each_seed"]) == ([0.75, 1.0], 0.875, [0.1, 0.3])


@pytest.mark.parametrize(
    ("answer", "is_readable"),
    [
        ("The smell of bread is like a song.", True),
        ("A kitchen is a kitchen of your mind.", False),
        ("The moon is 68.", False),
        ("It is so, and so it is.", True),
    ],
)
def test_an_answer_is_shown_if_it_has_six_words_and_no_long_one_twice(answer, is_readable):
    assert instructions._is_readable(answer) == is_readable


@pytest.mark.parametrize(
    ("gain", "subtractions", "verdict"),
    [(0.1, 0.1, "holds"), (0.1, 0.0, "undecided"), (0.1, None, "undecided"), (-0.1, 0.1, "does not hold")],
)
def test_the_claim_of_the_calculator_needs_gains_leads_and_subtractions(gain, subtractions, verdict):
    wobble = [0.01 * (place % 3 - 1) for place in range(5)]
    rows = [
        {"id": arm, "set": name, "seeds": 5, **{f"{of}_each_seed": [gain + one for one in wobble] for of in ("gain", "practice_ahead")}}
        for arm in ARMS
        for name in ("test", "SVAMP_dev")
    ]
    if subtractions is not None:
        rows.append({"id": "one_subtraction", "set": "test", "seeds": 5, "gain_each_seed": [subtractions + one for one in wobble]})
    assert calculator.judge(rows)[0] == verdict


def test_the_study_of_demonstrations_compares_practice_with_sft_for_as_long_in_its_tiny_form(tmp_path):
    result = tiny("demonstrations", tmp_path)
    rows = {row["id"]: row for row in result["rows"]}
    assert result["verdict"] == "undecided" and {"practice_3", "sft_16_for_3", "practice_of_4", "sft_32"} < rows.keys()
    for steps in (2, 3, 4):
        row, (plain,), (longer,) = (
            rows[f"practice_{steps}"],
            *(rows[arm]["accuracy_each_seed"] for arm in ("sft_16", f"sft_16_for_{steps}")),
        )
        (own,) = row["accuracy_each_seed"]
        assert row["added_each_seed"] == [pytest.approx(own - plain)] and row["ahead_each_seed"] == [pytest.approx(own - longer)]
    assert "added_each_seed" not in rows["sft_16"] and "ahead_each_seed" not in rows["sft_32"]


@pytest.mark.parametrize(
    ("added", "ahead", "verdict"),
    [(0.08, 0.05, "holds"), (0.06, 0.001, "undecided"), (0.02, 0.05, "does not hold"), (0.08, -0.05, "does not hold")],
)
def test_the_claim_of_demonstrations_needs_five_points_and_a_lead_on_sft_for_as_long(added, ahead, verdict):
    wobble = [0.01 * (place % 3 - 1) for place in range(6)]
    rows = [{"id": arm, "seeds": 6} for arm in demonstrations.ARMS]
    own = next(row for row in rows if row["id"] == "practice_150")
    own |= {"added_each_seed": [added + one for one in wobble], "ahead_each_seed": [ahead + one for one in wobble]}
    assert demonstrations.judge(rows)[0] == verdict
    own["seeds"] = 5
    assert demonstrations.judge(rows)[0] == "undecided"


def test_a_page_shows_answers_before_and_after_as_they_are_written():
    run = cell("practice", 121, "a b", "00", "11")
    run["items"], run["right"] = {"quickstart": "a b"}, {"base": {"quickstart": "00"}, "practice": {"quickstart": "11"}}
    run["answers"] = [{"question": "Describe | a boat.", "before": "<b>no</b>", "after": "a *red*\nboat [here](http://x)"}]
    shown = instructions.show_answers(instructions.reduce([run]))
    assert "| Describe \\| a boat. | &lt;b&gt;no&lt;/b&gt; | a \\*red\\* boat \\[here\\](http://x) |" in shown
    assert "The first 1 requests of the first seed" in shown


def test_the_claim_of_instructions_waits_for_all_seeds_of_near_arms_and_fewer_of_far_ones():
    def rows(**seeds):
        each = {arm: instructions.FEW if arm in instructions.FEWER else 10 for arm in ("practice", *instructions.UNTOLD)} | seeds
        return [{"id": arm, "set": "quickstart", "seeds": number} for arm, number in each.items()]

    for missing in ({"imitation": 9}, {"random_reward": instructions.FEW - 1}, {"practice": 5}):
        assert instructions.judge(rows(**missing))[0] == "undecided"


@pytest.mark.parametrize(("held_out", "verdict"), [(0.16, "holds"), (0.10, "does not hold")])
def test_the_claim_of_instructions_needs_half_of_the_gain_on_held_out_kinds(held_out, verdict):
    def row(arm, suite, **measures):
        return {"id": arm, "set": suite, "seeds": 10, **{f"{name}_each_seed": each for name, each in measures.items()}}

    wobble = [0.01 * (place % 3) for place in range(10)]
    rows = [
        row("practice", "quickstart", gain=[0.3 + one / 10 for one in wobble], known=[0.99] * 5 + [0.995] * 5),
        row("practice", "held_out", gain=[held_out + one / 10 for one in wobble]),
        *(row(arm, "quickstart", practice_ahead=[0.1 + one for one in wobble]) for arm in instructions.UNTOLD),
    ]
    assert instructions.judge(rows)[0] == verdict


def test_a_gain_is_over_all_runs_of_an_arm_and_a_comparison_over_those_that_practice_has_too():
    runs = [
        cell("imitation", 1, "a b", "00", "01"),
        cell("imitation", 2, "a b", "00", "11"),
        cell("longer_warm_start", 2, "a b", "00", "11"),
    ]
    rows = {row["id"]: row for row in reduce_arms([cell("practice", 1, "a b", "00", "11"), *runs])}
    assert (rows["imitation"]["seeds"], rows["imitation"]["gain"], rows["imitation"]["gain_each_seed"]) == (2, 0.75, [0.5, 1.0])
    assert rows["imitation"]["practice_ahead"] == 0.5
    assert "gain" not in rows["longer_warm_start"] and rows["longer_warm_start"]["accuracy"] == 1.0


@pytest.mark.parametrize("arm, shared", [("imitation", {"base.json", "warm_start.json"}), ("longer_warm_start", {"base.json"})])
def test_an_arm_begins_with_what_a_finished_arm_of_its_seed_measured(arm, shared, tmp_path):
    table = Arms("tiny", {"longer_warm_start": 60})
    runs = {name: tmp_path / f"{name}-1" for name in ARMS}
    for name in ("practice", "random_reward"):  # practice was interrupted
        folder = RunFolder(runs[name])
        folder.begin(table.settings(name, 1), precision="float32", device="cpu", weights="random")
        for stage in ("base", "warm_start"):
            folder.write_json(f"evaluation/{stage}.json", {"from": name})
        for log in ("metrics.jsonl", "timings.jsonl"):
            (folder.path / log).write_text("")
        (folder.path / "checkpoints" / "warm_start").mkdir(parents=True)
    RunFolder(runs["random_reward"]).write_json("result.json", {})
    share(runs, arm, table.settings(arm, 1))
    begun = RunFolder(runs[arm])
    assert {path.name for path in (begun.path / "evaluation").iterdir()} == shared
    assert begun.read_json("evaluation/base.json") == {"from": "random_reward"}
    assert (begun.path / "checkpoints" / "warm_start").is_dir() == ("warm_start.json" in shared)
    assert begun.read_json("environment.json")["precision"] == "float32"


def test_a_cell_that_is_older_than_a_setting_was_computed_with_its_default(tmp_path):
    table = Arms("number_sorting", number_sorting.STEPS)
    settings = table.settings("practice", 10)
    del settings["retention"]
    path = tmp_path / "cells" / "practice-10.json"
    path.parent.mkdir()
    path.write_text(json.dumps({"id": "practice", "seed": 10, "settings": settings}))
    chosen = Options(tmp_path, None, 1.0, [], [10], is_tiny=False)
    assert [cell["seed"] for cell in compute([], table, chosen)] == [10]
    path.write_text(json.dumps({"id": "practice", "seed": 10, "settings": settings | {"retention": {"probe": False}}}))
    with pytest.raises(SystemExit, match=r"another retention\.probe than there is now"):
        compute([], table, chosen)


def test_a_study_goes_on_with_cells_whose_settings_have_tuples(tmp_path):
    class Tuples:
        settings = staticmethod(lambda arm, seed: {"ask": (), "sizes": (1, 2)})
        defaults = staticmethod(dict)
        run = staticmethod(lambda arm, seed, chosen: {"found": arm})

    chosen = Options(tmp_path, None, 1.0, [], [1], is_tiny=False)
    (computed,) = compute([("one", 1)], Tuples(), chosen)
    (kept,) = compute([("one", 1)], Tuples(), chosen)
    assert computed["found"] == kept["found"] == "one" and kept["settings"] == {"ask": [], "sizes": [1, 2]}


@pytest.mark.parametrize("name", [name for name in STUDIES if (ROOT / "studies" / name / "result.json").exists()])
def test_a_page_shows_the_table_of_the_study_as_it_was_found(name):
    study = importlib.import_module(f"studies.{name}").STUDY
    result = json.loads((study.folder / "result.json").read_text(encoding="utf8"))
    pages = {page: page.read_text(encoding="utf8") for page in PAGES}
    for place, shown in study.shown(result).items():
        holds = [f"<!-- table: {place} -->\n{seen_from(page, shown)}<!-- end -->" in text for page, text in pages.items()]
        assert any(holds), f"run studies.{name} --hours 0"


def test_a_table_is_put_where_its_place_is_marked_and_nowhere_else(tmp_path):
    page, other = tmp_path / "page.md", tmp_path / "other.md"
    page.write_text("before\n<!-- table: mine -->\n| old |\n<!-- end -->\nafter\n")
    other.write_text("<!-- table: another -->\n| old |\n<!-- end -->\n")
    empty = tmp_path / "empty.md"
    empty.write_text("<!-- table: mine -->\n<!-- end -->\nbetween\n<!-- table: another -->\n| old |\n<!-- end -->\n")
    for _ in range(2):
        fill("mine", "| new |\n", [page, other, empty])
        assert page.read_text() == "before\n<!-- table: mine -->\n| new |\n<!-- end -->\nafter\n"
    assert "| old |" in other.read_text()
    assert empty.read_text() == "<!-- table: mine -->\n| new |\n<!-- end -->\nbetween\n<!-- table: another -->\n| old |\n<!-- end -->\n"


def test_leads_that_are_stated_of_papers_claims_are_those_of_the_study():
    rows = json.loads((ROOT / "studies/exploration/result.json").read_text())["rows"]
    ahead = [[-100 * row[f"policy_gradient_ahead{end}"] for end in ("", "_high", "_low")] for row in rows if "policy_gradient_ahead" in row]
    measured = {tuple(f"{value + 0:.1f}" for value in lead) for lead in ahead}
    table = (ROOT / "docs" / "learning.md").read_text(encoding="utf8").split("| claim | here | by |")[1].split("\n\n")[0]
    stated = re.findall(r"([+-][\d.]+)(?: points)? \[(-?[\d.]+), (-?[\d.]+)\]", table)
    assert stated and {(lead.removeprefix("+"), low, high) for lead, low, high in stated} <= measured
    raft = [-100 * row["policy_gradient_ahead"] for row in rows if row["id"] == "raft" and not row["set"].startswith("screen")]
    assert f"{raft[0]:+.1f} points, {', '.join(f'{lead:+.1f}' for lead in raft[1:])}" in table


def test_panels_stand_two_beside_each_other(tmp_path):
    shown = {"id": "base", "n": 9, "seeds": 1, "accuracy": 0.2, "accuracy_low": 0.1, "accuracy_high": 0.3, "accuracy_each_seed": [0.2]}
    rows = [{**shown, "set": name, "best_baseline": 0.0} for name in "abcde"]
    two, five = (draw(some, tmp_path / f"{len(some)}.svg").read_text() for some in (rows[:2], rows))
    (wide, high), (wide_of_five, high_of_five) = (
        map(float, re.search(r'width="(.*?)pt" height="(.*?)pt"', svg).groups()) for svg in (two, five)
    )
    assert wide == wide_of_five and high_of_five > 2 * high
    assert all(f"{name} (n = 9, 1 seed)" in five for name in "abcde")


def test_the_study_of_decoding_answers_by_every_method_in_its_tiny_form(tmp_path):
    rows = tiny("decoding", tmp_path)["rows"]
    told = {row["id"]: row for row in rows if row["set"] == "told"}
    assert list(told) == ["greedy_k1", *(f"{method}_k1" for method in decoding.TOLD)] and {row["n"] for row in told.values()} == {2}
    for row in told.values():
        assert row["gain"] == pytest.approx(row["accuracy"] - told["context_alone_k1"]["accuracy"])
    page = json.loads((tmp_path / "cells" / "told_k1_0-90.json").read_text())["methods"]
    assert all(page[method]["notes"] == 0 for method in decoding.TOLD)  # none is answered without its evidence
    rows = [row for row in rows if row["set"] != "told"]
    second, rows = ([row for row in rows if row["set"].startswith("practised") == is_second] for is_second in (True, False))
    assert [row["id"] for row in second] == [row["id"] for row in rows if row["id"].endswith("_k2")]
    assert {row["n"] for row in second} == {2}  # a fifth
    named = {row["id"] for row in rows}
    assert named >= {f"{method}_k{k}" for k in (1, 2) for method in ("greedy", *decoding.methods_at(k))}
    assert "random_layer_k1" in named and "random_layer_k2" not in named
    one = {row["id"]: row for row in rows}
    for chosen in ("majority_k1", "best_logprob_k1", "universal_self_consistency_k1"):
        assert (one[chosen]["accuracy"], one[chosen]["words"]) == (one["sampled_k1"]["accuracy"], one["sampled_k1"]["words"])
    assert one["integrative_original_k1"]["words"] == one["greedy_k1"]["words"]
    for row in rows:
        assert row["n"] == 2 * int(row["id"][-1]) and row["seconds_ratio"] > 0 and row["tokens"] > 0
        assert row["gain"] == pytest.approx(row["accuracy"] - one[f"greedy_k{row['id'][-1]}"]["accuracy"])


def test_a_story_is_answered_rightly_by_its_own_answer_alone_but_for_what_the_question_names():
    told = ["Mary gave the milk to Bill.", "Fred went to Jeff."]
    task = questions._story(told, "Who gave Julie's milk?", "Mary", ["Bill", "Fred", "Jeff", "Julie", "Mary"])
    said = {"Mary": True, "Mary gave it to Bill.": True, "Mary, not Julie": True, "Mary, or Fred.": False, "Bill": False, "Maryland": False}
    assert {text: questions.says_it_alone(text, task) for text in said} == said


def page_of(method, right):
    return {method: {"right": right}}


def test_the_study_of_long_contexts_cuts_by_every_policy_in_its_tiny_form(tmp_path):
    rows = tiny("long_context", tmp_path)["rows"]
    assert {row["id"] for row in rows} == {"full", "passing", *long_context.POLICIES} and {row["set"] for row in rows} == {"single-420"}
    shares = {(row["share"], row["question"]) for row in rows if "question" in row}
    assert shares == {(0.1, "unseen"), (0.1, "seen"), (0.06, "unseen"), (0.25, "unseen")}
    asked_more = [row for row in rows if row["id"] in long_context.ASKED_MORE and row["question"] == "unseen"]
    assert {row["n"] for row in asked_more} == {6} and all(row["kl"] >= 0 for row in rows if "kl" in row)
    assert all(row["held"] == pytest.approx(0.1, abs=0.01) for row in rows if row["id"] in long_context.EVICTION)
    recalled = {(row["id"], row["share"]): row["held"] for row in rows if row["id"] in long_context.RECALLED}
    assert recalled.pop(("sketch", 0.06)) < recalled["sketch", 0.1] < 0.25
    assert recalled["passing", 0.25] < recalled["sketch", 0.1] + 0.15 / 2, "of two layers half of what is read"
    assert all(0.1 < held < 0.7 for held in recalled.values())  # with digests of pages of 4 and an answer
    cells = {name: json.loads((tmp_path / "cells" / f"{name}-120.json").read_text()) for name in long_context.TINY_ARMS}
    depths = {name: cell["depths"] for name, cell in cells.items()}
    assert depths.pop("sketch-single-420-0") == depths["single-420-0"] + depths["recall-single-420-0"], "the same items in two"
    assert len({tuple(each) for each in depths.values()}) == len(depths), "other items in every other cell"
    assert next(row for row in rows if row["id"] == "full")["n"] == 6, "each item once"
    fewer = [{**cells[name], "id": name} for name in ("single-420-0", "sketch-single-420-0")]
    assert long_context.reduce(fewer)[0]["n"] == 4, "of the cells that have most"
    assert {row["n"] for row in rows if row["id"] == "sketch"} == {4}


def test_practice_under_views_is_compared_with_full_contexts_in_the_tiny_form(tmp_path):
    arms = (practice_views.BASELINE, "h2o_half", "recall_half", "random_half")
    rows = {row["id"]: row for row in tiny("practice_views", tmp_path, *arms)["rows"]}
    assert list(rows) == ["base", "warm_start", *arms]
    assert rows["full"]["context_share"] == 1.0 and rows["h2o_half"]["context_share"] < 0.6
    assert "full_ahead" in rows["random_half"]
    cell = json.loads((tmp_path / "tiny" / "cells" / "h2o_half-140.json").read_text())
    assert len(cell["context_mib"]) == 3 and min(cell["context_mib"]) > 0


def test_the_study_of_importance_asks_every_score_in_its_tiny_form(tmp_path):
    rows = tiny("importance", tmp_path)["rows"]
    ranked = [row for row in rows if "worth_kept" in row]
    assert {(row["id"], row["question"]) for row in ranked} == {
        (name, mode) for name in (*importance.SCORES, "hindsight") for mode in ("unseen", "seen")
    }
    assert all(0 <= row["worth_kept"] <= 1 and len(row["worth_kept_by_layer"]) == 2 for row in ranked)
    (lengths,) = (row for row in rows if row["id"] == "sparsity")
    assert 0.01 < lengths["hundredth"] < lengths["tenth"] < 1 and len(lengths["tenth_far_by_head"][0]) == 4


def test_a_score_keeps_the_worth_of_the_tokens_that_it_ranks_first():
    worth = torch.tensor([5.0, 0.0, 3.0, -9.0, 1.0, *[0.0] * 15], dtype=torch.double)  # of 20 tokens a tenth are two
    finds, misses = torch.zeros(20, dtype=torch.double), torch.zeros(20, dtype=torch.double)
    finds[[0, 2]], misses[[3, 4]] = torch.tensor([2.0, 1.0], dtype=torch.double), torch.tensor([2.0, 1.0], dtype=torch.double)
    kept = importance._agrees([torch.stack([finds, misses]), torch.stack([finds, finds])], worth)["worth_kept"]
    assert kept["by_layer"] == [pytest.approx((1 + 1 / 8) / 2, abs=1e-4), 1.0], "a token that harms takes nothing off"
    assert kept["all"] == 1.0, "three heads of four rank them first"


def test_attention_is_all_in_the_tokens_that_are_read(llama):
    tokens = torch.randint(4, 250, (110,), generator=torch.Generator().manual_seed(0)).tolist()
    found = importance.shares_of(llama, tokens)
    reference = copy.deepcopy(llama)
    reference.set_attn_implementation("eager")
    with torch.no_grad():
        weights = reference(torch.tensor([tokens]), output_attentions=True).attentions[1][0, 2, -importance.QUERIES :].double()
    own = fmean(float(row.topk(11).values.sum()) for row in weights)
    assert found["tenth"][1][2] == pytest.approx(own, abs=1e-4)
    far = []
    for place, row in enumerate(weights, 110 - importance.QUERIES):
        seen = row[4 : place - 31]
        far.append(float(seen.topk(11).values.sum() / seen.sum()))
    assert found["tenth_far"][1][2] == pytest.approx(fmean(far), abs=1e-4)


@pytest.mark.parametrize("ends", [(), (7,)])
def test_rows_that_say_the_full_contexts_answer_are_not_decoded_again(llama, ends):
    policies = [replace(long_context.EVICTION[name], keep_ratio=ratio) for name in ("snapkv", "random") for ratio in (0.2, 0.9, 1.0)]
    prompt, question = torch.randint(4, 250, (79,), generator=torch.Generator().manual_seed(3)).split([70, 9])
    each = TokenizedTask(LongTask("single", "", "", "", ("",)), tuple(prompt.tolist()), tuple(question.tolist()))
    for mode in ("unseen", "seen"):
        reading = long_context.Reading(llama, policies)
        reading.read([*each.text, *each.question] if mode == "seen" else each.text)
        full = reading.rows([long_context.FULL])
        first = full.first(reading) if mode == "seen" else full.forced(each.question)[:, -1]
        (answer,) = full.greedy(first, 6, ends)
        slowly = reading.rows(policies)
        expected = slowly.greedy(slowly.first(reading) if mode == "seen" else slowly.forced(each.question)[:, -1], 6, ends)
        rows = reading.rows(policies)
        own, kl = long_context._distance(rows, reading, each, answer, torch.zeros(max(1, len(answer)), 260), mode)
        rows.keep = Mock(wraps=rows.keep)
        assert own.shape == (6, len(answer) + 1, 260) and len(kl) == 6
        assert long_context._said(rows, own, answer, 6, ends) == expected
        assert expected[5] == answer and 5 not in rows.keep.call_args_list[0].args[0]


class Pressing:
    """In place of kvpress' process: it says what is asked of it, and half of it where more is kept."""

    def __init__(self, peer, settings):
        self.about = {"versions": {"kvpress": "0.5.5"}}
        assert peer.script == "kvpress_answers.py" and Path(settings["model"], "config.json").exists()

    def __enter__(self):
        return self

    def __exit__(self, *error):
        pass

    def ask(self, request):
        keep = round(request["ratio"] * len(request["text"]))
        return {"tokens": request["text"][:6] if request["ratio"] == 0.25 else [], "held": keep}


def test_kvpress_is_asked_the_same_items(llama, tokenizer):
    text = tuple(tokenizer("blue 5")["input_ids"])
    items = [
        TokenizedTask(LongTask("single", "", "", "", ("blue",)), text * 4, (5, 6)),
        TokenizedTask(LongTask("single", "", "", "", ("red",)), text * 8, (5,)),
    ]
    found = long_context.by_kvpress(llama, tokenizer, items, 6, "float32", running=Pressing)
    assert found["policies"].keys() == {f"kvpress_{name} {ratio} unseen" for name in long_context.PRESSED for ratio in (0.1, 0.25)}
    assert found["policies"]["kvpress_snapkv 0.25 unseen"]["score"] == [1.0, 0.0]
    assert found["policies"]["kvpress_snapkv 0.1 unseen"]["score"] == [0.0, 0.0]
    assert found["policies"]["kvpress_snapkv 0.25 unseen"]["held"] == [0.25, 0.25]


def test_only_tasks_that_the_full_context_solves_go_on():
    cells = [
        {"id": "screen-single-2048", "full": [1, 0, 0]},
        {"id": "screen-facts-2048", "full": [0, 0, 0, 1]},
        {"id": "single-2048-0", "full": [1]},
    ]
    assert long_context.solved(cells) == ["single-2048"]


@pytest.mark.parametrize(
    ("greedy", "control", "verdict"),
    [("0" * 40, "0" * 40, "holds"), ("0" * 40, "1" * 40, "does not hold"), ("1" * 40, "0" * 40, "does not hold")],
)
def test_integrative_decoding_holds_where_it_is_ahead_of_greedy_and_of_every_control(greedy, control, verdict):
    page = page_of("greedy", greedy) | page_of("integrative", "1" * 40)
    for name in decoding.CONTROLS:
        page |= page_of(name, control if name == "best_logprob" else "0" * 40)
    at_one = {name: page.pop(name) for name in ("integrative_same_sample",)} | page_of("greedy", greedy)
    cells = [{"id": "a_k8_0", "methods": page}, {"id": "a_k1_0", "methods": at_one}]
    assert decoding.judge(cells, ["a_k1_0", "a_k8_0"])[0] == verdict
    assert decoding.judge(cells[:1], ["a_k1_0", "a_k8_0"])[0] == "undecided"


def test_the_study_of_layers_reads_answers_under_every_contrast_in_its_tiny_form(tmp_path):
    rows = tiny("layers", tmp_path)["rows"]
    assert [row["id"] for row in rows] == ["plain", "static", "random_high"]
    for row in rows:
        assert row["n"] == 4 and 0 <= row["mc2"] <= 1 and 0 <= row["mc3"] <= 1
        assert row["gain"] == pytest.approx(row["accuracy"] - rows[0]["accuracy"])


def test_the_study_of_the_gap_asks_every_model_in_its_tiny_form(tmp_path):
    result = tiny("knows_says", tmp_path)
    base, joined = result["rows"]
    assert (base["id"], joined["id"], base["n"], result["verdict"]) == ("base", "joined", 6, "undecided")
    assert base["said_low"] <= base["said"] <= base["said_high"] and "said_gain" not in base
    assert joined["said_gain"] == pytest.approx(joined["said"] - base["said"])
    assert (tmp_path / "runs" / f"tiny-{knows_says.SEEDS[0]}" / "model").is_dir()
    before = {path: path.read_bytes() for path in (tmp_path / "cells").iterdir()}
    assert tiny("knows_says", tmp_path) == result and {path: path.read_bytes() for path in (tmp_path / "cells").iterdir()} == before


def test_a_term_is_set_against_another_of_its_section_which_does_not_say_it():
    def task(term, section):
        return Task(f"which is {term}?", term, metadata={"section": section})

    tasks = [task("vein", "a"), task("pulmonary vein", "a"), task("artery", "a"), task("heart", "a"), task("bone", "b")]
    assert [knows_says._another(each, tasks) for each in tasks] == ["heart", "artery", "heart", "vein", None]


def test_the_study_of_self_training_asks_every_model_the_same_in_its_tiny_form(tmp_path):
    result = tiny("self_training", tmp_path)
    rows = {row["id"]: row for row in result["rows"]}
    assert list(rows) == list(self_training.TINY_ARMS) and result["verdict"] == "undecided"
    for arm, row in rows.items():
        assert (row["n"], row["sampled_n"], row["seeds"]) == (10, 10, 1) and 1 / 8 <= row["agreement"] <= 1
        assert ("gain" in row) == (arm != "start") and ("single_behind" in row) == (arm not in ("start", "single"))
        assert ("sampled_tokens" in row) == (arm != "start")
    assert rows["joined"]["gain"] == pytest.approx(rows["joined"]["accuracy"] - rows["start"]["accuracy"])
    cell = json.loads(next((tmp_path / "cells").glob("joined-*")).read_text())
    assert cell["old_knowledge"].keys() == {"base", "warm_start", "practice"} and cell["practice_steps"] == 3


def test_facts_are_the_supported_and_the_unsupported_sentences_of_a_biography_that_has_both(tmp_path):
    folder = tmp_path / "factscore_bios"
    folder.mkdir()

    def biography(name, labels):
        said = [{"text": f"{name} {place}.", "label": label} for place, label in enumerate(labels)]
        return {
            "topic": name,
            "input": f"Question: Tell me a bio of {name}.",
            "annotations": [{"human-atomic-facts": said}, {"human-atomic-facts": None}],
        }

    rows = [
        biography("Ann", ["S", "NS", "IR", *["S"] * 5]),
        biography("Ben", ["S"]),
        {"topic": "none", "input": "none", "annotations": None},
    ]
    (folder / "ChatGPT.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "InstructGPT.jsonl").write_text(json.dumps(biography("Cem", ["NS", "S"])) + "\n")
    ann, cem = layers.facts(tmp_path)
    assert ann.true == ("Ann 0.", "Ann 3.", "Ann 4.", "Ann 5.") and ann.false == ("Ann 1.",)
    assert (ann.about, cem.about) == ("Ann", "Cem")
    assert ann.prompt == "Question: Tell me a bio of Ann.\nAnswer:" and (cem.true, cem.false) == (("Cem 1.",), ("Cem 0.",))


def test_the_study_of_selection_finds_hidden_pages_in_its_tiny_form(tmp_path):
    result = tiny("selection", tmp_path)
    assert result["verdict"] == "undecided" and "not all cells are there" in result["because"]
    rows = {row["id"]: row for row in result["rows"]}
    assert rows.keys() == set(selection.ARMS)
    assert rows["classifier"]["recall"] == rows["importance"]["recall"] == 1.0 and rows["random"]["recall"] < 0.5
    assert all(row["recall_low"] <= row["recall"] <= row["recall_high"] for row in rows.values())


def test_a_text_is_scored_once_whatever_the_draws_that_hold_it(tmp_path):
    asked = []

    def lengths(texts):
        asked.append(list(texts))
        return np.array([len(text) for text in texts], dtype=np.float32)

    first = selection.Once(lambda: lengths, tmp_path / "kept.json")
    assert first(["ab", "abc", "ab"]).tolist() == [2, 3, 2]
    again = selection.Once(lambda: lengths, tmp_path / "kept.json")
    assert again(["abc", "a"]).tolist() == [3, 1]
    assert asked == [["ab", "abc"], ["a"]]


@pytest.fixture(scope="module")
def ordered(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("order")
    tiny("order", folder)
    return folder


def test_the_study_of_orders_reads_adapts_and_practises_in_its_tiny_form(ordered):
    ordered = json.loads((ordered / "result.json").read_text())
    assert ordered["verdict"] == "undecided" and "not all cells are there" in ordered["because"]
    rows = {row["id"]: row for row in ordered["rows"]}
    assert set(order.ARMS) - rows.keys() == {"attempts"}
    adapted = {name for name, row in rows.items() if "choices_gain" in row}
    assert adapted == set(order.ARMS) - {"raw", "attempts"} and all(
        rows[name]["choices_before"] == rows["mixed"]["choices_before"] for name in adapted
    )


def test_the_study_of_orders_goes_on_and_no_two_of_its_arms_are_the_same(ordered, capsys):
    before = (ordered / "result.json").read_bytes()
    run("order", ordered)
    assert "cell " not in capsys.readouterr().out and (ordered / "result.json").read_bytes() == before
    table = order.Orders("anatomy_practice")
    settings = {arm: json.dumps(table.settings(arm, 80), sort_keys=True) for arm in order.ARMS}
    assert len(set(settings.values())) == len(order.ARMS)
    own, other = (table.settings(arm, 80)["adaptation"]["study"] for arm in (order.BASELINE, "passages"))
    assert own["mixing"] == 0.5 and (own["task_format"], other["task_format"]) == ("answers", "passages")


def test_an_order_takes_what_another_measured_of_the_same_model_before_it_learned(tmp_path):
    settings = parse_adapt(find_configuration("adapt", "anatomy"), [])
    rows = {"model": "base", "rows": [{"part": "far", "value": 0.5}]}
    first = RunFolder(tmp_path / "mixed-80")
    first.begin(to_plain_values(settings), precision="float32", device="cpu", weights="own")
    first.release()
    order.begin_measured(tmp_path / "mixed-81", settings)
    assert not (tmp_path / "mixed-81").exists()  # nothing was measured yet
    first.write_json("evaluation/base.json", rows)
    order.begin_measured(tmp_path / "mixed-81", replace(settings, seed=81))
    taken = RunFolder(tmp_path / "mixed-81")
    assert taken.read_json("evaluation/base.json") == rows and taken.read_json("environment.json")["weights"] == "own"
    assert yaml.safe_load((taken.path / "configuration.yaml").read_text())["seed"] == 81
    order.begin_measured(tmp_path / "mixed-82", replace(settings, suite=replace(settings.suite, n=5)))
    assert not (tmp_path / "mixed-82").exists()  # another suite


@pytest.mark.parametrize(
    ("study", "explained"),
    [
        (long_context, ("the question is not seen when tokens are chosen", "it is seen", "the full context", "answers right in %")),
        (layers, ("MC1: the right choice is likeliest", "pairs of statements in order", "layers chosen at random (controls)")),
        (decoding, ("difference in accuracy from greedy decoding, percentage points", "samples")),
    ],
)
def test_a_figure_says_what_its_marks_and_axes_are_and_comes_of_the_kept_rows(study, explained, tmp_path):
    kept = ROOT / "studies" / study.__name__.rpartition(".")[2]
    rows = json.loads((kept / "result.json").read_text())["rows"]
    rows = [row for row in rows if row["set"] in (rows[0]["set"], rows[-1]["set"])]  # all of them take seconds
    drawn = study.draw(rows, tmp_path / "figure.svg").read_text()
    for text in explained:
        assert text in drawn and text in (kept / "figure.svg").read_text()
