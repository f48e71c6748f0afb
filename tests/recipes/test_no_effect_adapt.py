"""What an adaptation says of settings that were changed and that nothing reads."""

from dataclasses import replace
from pathlib import Path

import pytest

from etude.recipes.adapt_settings import parse_adapt
from etude.recipes.no_effect_adapt import without_effect
from etude.settings.arguments import arguments_from
from etude.settings.configuration import find_configuration, shipped_configurations


def settings(path: Path, **changes):
    return parse_adapt(path, arguments_from(changes))


@pytest.fixture
def path(tmp_path) -> Path:
    (tmp_path / "mine.yaml").write_text(
        "command: adapt\ncorpus: {path: [a.txt]}\nselection: {method: all}\nstudy: {order: knowledge_only, replay_share: 0}\n"
    )
    return tmp_path / "mine.yaml"


@pytest.mark.parametrize("recipe", shipped_configurations("adapt"))
def test_adaptations_that_ship_set_nothing_without_effect(recipe):
    assert without_effect(settings(find_configuration("adapt", recipe))) == []


TASKS = {"tasks.path": ["q.jsonl"], "study.order": "mixed"}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"tasks.path": ["q.jsonl"]}, "tasks.path: study.order is knowledge_only"),
        ({"study.tasks_share": 0.2}, "study.tasks_share: study.order is knowledge_only"),
        (
            {**TASKS, "study.mixing": 0.4, "study.later_stage_lr_factor": 0.1},
            "study.mixing, study.later_stage_lr_factor: study.order is mixed",
        ),
        ({"general.path": ["b.txt"]}, "general.path: study.replay_share is 0"),
        ({"selection.replay_tokens": 9}, "selection.replay_tokens: study.replay_share is 0"),
        ({"domain.path": ["c.txt"], "selection.found": 0.5}, "domain.path, selection.found: selection.method is all"),
        ({"suite.glossary_n": 5}, "suite.glossary_n: suite.glossary names no file"),
        (
            {"general.path": ["b.txt"], "study.replay_share": 0.1, "selection.replay_tokens": 9},
            "selection.replay_tokens: general text is read from a place of its own",
        ),
    ],
)
def test_what_nothing_reads_is_said_with_the_reason(path, changes, said):
    assert sorted(without_effect(settings(path, **changes))) == [said]


def test_what_is_read_is_not_said(path):
    read = {**TASKS, "study.tasks_share": 0.2, "study.replay_share": 0.1, "general.path": ["b.txt"], "selection.workers": 0}
    assert without_effect(settings(path, **read)) == []
    two = settings(path, **read | {"study.order": "knowledge_then_tasks", "study.mixing": 0.4, "study.later_stage_lr_factor": 0.1})
    assert without_effect(two) == []
    assert without_effect(replace(two, save_steps=7)) == []
