"""Practice under a policy of what is kept of the context; answers under one."""

import json

from run_outputs import attempts_of

from etude.device.machine import Machine
from etude.engine.sampling import GREEDY
from etude.kv_cache.settings import KVCacheSettings
from etude.recipes.generate import GenerateSettings, generate

HALF = {"kv_cache.policy": "snapkv", "kv_cache.keep_ratio": 0.5}


def test_a_view_that_keeps_all_changes_nothing(small, finished, tmp_path):
    found = small(tmp_path / "run", HALF | {"kv_cache.keep_ratio": 1.0})
    assert found["evaluation"] == json.loads((finished / "result.json").read_text())["evaluation"]


def test_attempts_are_sampled_under_the_view_and_say_so(small, finished, tmp_path):
    small(tmp_path / "run", HALF)
    own, full = attempts_of(tmp_path / "run"), attempts_of(finished)
    assert {row["view"] for row in own} == {"snapkv 0.5"} and not any("view" in row for row in full)
    assert [row["text"] for row in own] != [row["text"] for row in full]


def test_answers_are_given_under_a_view():
    question = "Say the alphabet, and then say it again from its end to its beginning, twice."
    found = []
    for cache in (
        KVCacheSettings(),
        KVCacheSettings(policy="streaming", keep_ratio=1.0),
        KVCacheSettings(policy="streaming", budget_tokens=8),
    ):
        settings = GenerateSettings(max_new_tokens=12, sampling=GREEDY, kv_cache=cache, machine=Machine(dtype="float32"))
        found.append(generate("tiny-random", [question], settings)[0]["completions"])
    assert found[0] == found[1] != found[2]
