"""Names of models in requests: the model's own, or with a method of decoding or a cache policy after a colon.

smollm2-135m                     the model
smollm2-135m:majority            its answers by a method of decoding, with the method's defaults
smollm2-135m:snapkv@0.25         with a cache policy that keeps a quarter of the tokens
"""

from collections.abc import Mapping
from typing import Any

from etude.decoding.settings import READS, ReliableDecoding
from etude.engine.settings import Sampling
from etude.errors import UserError
from etude.kv_cache.settings import VIEWS, KVCacheSettings
from etude.serve.protocol import Refused

METHODS = tuple(name for name in READS if name != "none")
POLICIES = tuple(name for name in VIEWS if name != "full")


def alias(name: str, served: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the settings of decoding and of the cache that a model's name chooses. Raises Refused for another name."""
    own, colon, way = name.partition(":")
    policy, _, ratio = way.partition("@")
    if own == served and not colon:
        return {}, {}
    if own == served and way in METHODS:
        return {"method": way}, {}
    if own == served and policy in POLICIES and ratio:
        try:
            return {}, {"policy": policy, "keep_ratio": float(ratio)}
        except ValueError:
            pass
    raise Refused(
        f"unknown model {name!r}: this server has {served}, {served}:METHOD ({', '.join(METHODS)}) and {served}:POLICY@KEEP_RATIO "
        f"({', '.join(POLICIES)})",
        status=404,
        param="model",
        code="model_not_found",
    )


def decoding_of(named: Mapping[str, Any], asked: Mapping[str, Any] | None) -> ReliableDecoding:
    """Return the settings of decoding. Raises Refused for wrong ones, and for a model to load, which a client may not name."""
    given = {**named, **(asked or {})}
    if "embedder" in given:
        raise Refused("decoding.embedder is the server's, not a request's: leave it out", param="decoding")
    try:
        return ReliableDecoding(**given | ({"sampling": Sampling(**given["sampling"])} if "sampling" in given else {}))
    except (UserError, TypeError) as error:
        raise Refused(f"decoding: {error}", param="decoding") from None


def kv_cache_of(named: Mapping[str, Any], asked: Mapping[str, Any] | None) -> KVCacheSettings:
    """Return the settings of the cache. Raises Refused for wrong ones, and for files, which a client may not name."""
    given = {**named, **(asked or {})}
    if given.keys() & {"folder", "offload"}:
        raise Refused("kv_cache.folder and kv_cache.offload are the server's, not a request's: leave them out", param="kv_cache")
    try:
        return KVCacheSettings(**given)
    except (UserError, TypeError) as error:
        raise Refused(f"kv_cache: {error}", param="kv_cache") from None
