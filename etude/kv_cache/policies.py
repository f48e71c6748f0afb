"""The cache policies by name. To set a budget: `POLICIES["snapkv"].with_options(keep_ratio=0.25)`."""

from collections.abc import Mapping
from dataclasses import replace

from etude.errors import unknown
from etude.kv_cache.cache_policy import CachePolicy
from etude.kv_cache.eviction import EvictionPolicy
from etude.kv_cache.full_cache import FULL
from etude.kv_cache.lazyllm import LazyTokens
from etude.kv_cache.retrieval import PagedRetrieval
from etude.kv_cache.scores.criticalkv import CriticalKV
from etude.kv_cache.scores.expected_attention import ExpectedAttention
from etude.kv_cache.scores.h2o import H2O
from etude.kv_cache.scores.key_norm import KeyNorm
from etude.kv_cache.scores.keydiff import KeyDiff
from etude.kv_cache.scores.kvzip import KVzip
from etude.kv_cache.scores.random import Random
from etude.kv_cache.scores.snapkv import SnapKV
from etude.kv_cache.scores.streaming_llm import StreamingLLM
from etude.kv_cache.scores.tova import TOVA

_SNAPKV = EvictionPolicy(SnapKV())

EVICTION: Mapping[str, EvictionPolicy] = {
    "streaming": EvictionPolicy(StreamingLLM()),
    "h2o": EvictionPolicy(H2O()),
    "tova": EvictionPolicy(TOVA()),
    "snapkv": _SNAPKV,
    "pyramid": replace(_SNAPKV, layers="pyramid"),
    "ada_snapkv": replace(_SNAPKV, by_head=True),
    "key_norm": EvictionPolicy(KeyNorm()),
    "key_diff": EvictionPolicy(KeyDiff()),
    "expected_attention": EvictionPolicy(ExpectedAttention()),
    "critical_snapkv": EvictionPolicy(CriticalKV(SnapKV())),
    "kvzip": EvictionPolicy(KVzip(), layers="all", least_share=0.0),
    "random": EvictionPolicy(Random()),
}

RETRIEVAL: Mapping[str, PagedRetrieval] = {
    "quest": PagedRetrieval("bounds", page_tokens=16),
    "arkvale": PagedRetrieval("cuboid", page_tokens=32),
    "small_pages": PagedRetrieval("cuboid", page_tokens=4),
    "sketch": PagedRetrieval("sketch", page_tokens=16),
}

POLICIES: Mapping[str, EvictionPolicy | PagedRetrieval] = {**EVICTION, **RETRIEVAL}
"""Policies that attach to a model, with a budget."""

ALL: Mapping[str, CachePolicy] = {"full": FULL, **POLICIES, "lazy": LazyTokens()}


def policy_named(name: str) -> CachePolicy:
    """Return the policy of this name, without a budget. Raises UserError for an unknown name."""
    if name not in ALL:
        raise unknown("policy", name, ALL)
    return ALL[name]
