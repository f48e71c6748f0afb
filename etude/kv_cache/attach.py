"""Attach a cache policy to a model within a `with` block.

with attach(model, "snapkv", keep_ratio=0.25):
    model.generate(**inputs)
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from etude.errors import UserError
from etude.kv_cache.attachment import Attachment
from etude.kv_cache.cache_policy import CachePolicy
from etude.kv_cache.policies import policy_named
from etude.models.adapters import base_of


@contextmanager
def attach(model: Any, policy: CachePolicy | str, **options: Any) -> Iterator[Attachment]:
    """Apply a policy to the model's KV cache until the block ends; `options` are fields of the policy, such as `keep_ratio=0.25`.

    Raises UserError for an unknown policy, for options that the policy does not allow, for a model that has a policy already, and for a
    model with unknown attention layers. Within the block, `generate` raises UserError for speculative decoding
    (`prompt_lookup_num_tokens`, `assistant_model`) under a policy that does not keep or read everything.
    """
    chosen = (policy_named(policy) if isinstance(policy, str) else policy).with_options(**options)
    attachment = Attachment.to(model, chosen)
    try:
        with attachment.installed(), _drafts_refused(base_of(model), chosen):
            yield attachment
    finally:
        attachment.is_open = False


@contextmanager
def _drafts_refused(model: Any, policy: CachePolicy) -> Iterator[None]:
    """Refuse speculative decoding within the block, unless the policy keeps and reads everything and prompts are dense.

    Draft tokens are passed together, with the prompt or after it, and a policy treats such a pass as a prompt: tokens evicted for rejected
    drafts are not restored, and pages are read in full.
    """
    if (policy.keeps_all and policy.sparse is None) or not hasattr(model, "_get_candidate_generator"):
        yield
        return

    def refuse(*_: Any, **__: Any) -> None:
        raise UserError(
            "drafts (prompt_lookup_num_tokens, assistant_model) are read in one pass, in which this policy keeps and reads other tokens "
            "than one by one: generate without them, or with keep_ratio 1 and without sparse"
        )

    model._get_candidate_generator = refuse  # called only by speculative decoding, before the first pass
    try:
        yield
    finally:
        del model._get_candidate_generator
