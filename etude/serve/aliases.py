"""Names of models in requests: the model's own, or with a way of answering after a colon.

smollm2-135m                     the model
smollm2-135m:majority            its answers by a method of decoding, with the method's defaults
smollm2-135m:mcts                its answers by a search, with the search's defaults
smollm2-135m:thought@64          its answers after a thought of 64 tokens
smollm2-135m:snapkv@0.25         with a cache policy that keeps a quarter of the tokens
"""

from collections.abc import Mapping
from typing import Any

from etude.decoding.settings import READS
from etude.kv_cache.settings import VIEWS
from etude.rollouts.search.settings import REFINE, SEARCHES
from etude.serve.protocol import Refused

METHODS = tuple(name for name in READS if name != "none")
ANSWER_SEARCHES = (*SEARCHES, REFINE)
POLICIES = tuple(name for name in VIEWS if name != "full")
THOUGHT = "thought"


def alias(name: str, served: str) -> Mapping[str, Mapping[str, Any]]:
    """Return the settings that a model's name chooses, by the option of a request. Raises Refused for another name."""
    own, colon, way = name.partition(":")
    if own == served and not colon:
        return {}
    if own == served and (found := _chosen(way)):
        return found
    ways = (f"METHOD ({', '.join(METHODS)})", f"SEARCH ({', '.join(ANSWER_SEARCHES)})", f"{THOUGHT}@TOKENS")
    raise Refused(
        f"unknown model {name!r}: this server has {', '.join([served, *(f'{served}:{each}' for each in ways)])} and "
        f"{served}:POLICY@KEEP_RATIO ({', '.join(POLICIES)})",
        status=404,
        param="model",
        code="model_not_found",
    )


def _chosen(way: str) -> Mapping[str, Mapping[str, Any]]:
    """Return the settings behind a colon; none if there is no such way."""
    name, _, number = way.partition("@")
    if way in METHODS:
        return {"decoding": {"method": way}}
    if way in ANSWER_SEARCHES:
        return {"search": {"method": way}}
    if name == THOUGHT and number.isdecimal() and len(number) < 10:
        return {"thought": {"budget_tokens": int(number)}}
    if name in POLICIES and _is_number(number):
        return {"kv_cache": {"policy": name, "keep_ratio": float(number)}}
    return {}


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
