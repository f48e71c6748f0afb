"""The policies by name; a budget comes with `dataclasses.replace(POLICIES[name], keep_ratio=0.25)`."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from etude.kv_cache.policy import Policy
from etude.kv_cache.recall import Recall
from etude.kv_cache.scores.expected_attention import ExpectedAttention
from etude.kv_cache.scores.key_difference import KeyDifference
from etude.kv_cache.scores.key_norm import KeyNorm
from etude.kv_cache.scores.last_query import LastQuery
from etude.kv_cache.scores.observation_window import ObservationWindow
from etude.kv_cache.scores.random import Random
from etude.kv_cache.scores.replayed import ASK, Replayed
from etude.kv_cache.scores.streaming import Streaming
from etude.kv_cache.scores.summed_attention import SummedAttention
from etude.kv_cache.scores.weighed_by_value import WeighedByValue

_SNAPKV = Policy(ObservationWindow())

DROPPING: Mapping[str, Policy] = {
    "streaming": Policy(Streaming()),
    "h2o": Policy(SummedAttention()),
    "tova": Policy(LastQuery()),
    "snapkv": _SNAPKV,
    "pyramid": replace(_SNAPKV, layers="pyramid"),
    "ada_snapkv": replace(_SNAPKV, by_head=True),
    "key_norm": Policy(KeyNorm()),
    "key_diff": Policy(KeyDifference()),
    "expected_attention": Policy(ExpectedAttention()),
    "critical_snapkv": Policy(WeighedByValue(ObservationWindow())),
    "kvzip": Policy(Replayed(), layers="all", least_share=0.0),
    "random": Policy(Random()),
}

RECALLING: Mapping[str, Recall] = {
    "quest": Recall("bounds", page_tokens=16),
    "arkvale": Recall("cuboid", page_tokens=32),
    "small_pages": Recall("cuboid", page_tokens=4),
    "sketch": Recall("sketch", page_tokens=16),
}

POLICIES: Mapping[str, Policy | Recall] = {**DROPPING, **RECALLING}


def asking(policy: Policy | Recall, tokenizer: Any) -> Policy | Recall:
    """The policy, with the words before a replay (`Replayed.ask`) as a model's tokens, where it goes by one."""
    if not isinstance(policy, Policy) or not isinstance(policy.score, Replayed):
        return policy
    return replace(policy, score=replace(policy.score, ask=tuple(tokenizer(ASK, add_special_tokens=False)["input_ids"])))
