"""A policy on a model, for as long as a `with` block lasts.

    with attach(model, policy):
        model.generate(**inputs)

Within it every cache that the model computes with keeps what the policy keeps: full-attention layers of transformers' own caches are
replaced in place, others (sliding windows, state spaces) stay as they are, and the attention function of these layers is ours; prompts,
generation, beams and later turns all go through it. Behind it the model is what it was, also behind an exception: nothing stays registered
or hooked. A forward pass without a cache is full attention.

Identity: a policy that keeps all gives the model's own logits, up to rounding.
"""

import inspect
import itertools
import sys
import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import cached_property
from typing import Any

import numpy as np
import torch
from transformers import AttentionInterface
from transformers.cache_utils import (
    BaseQuantizedLayer,
    Cache,
    DynamicCache,
    DynamicIndexedLayer,
    DynamicLayer,
    LinearAttentionCacheLayerMixin,
)
from transformers.masking_utils import AttentionMaskInterface

from etude.engine.cache import cache_argument
from etude.errors import UserError
from etude.kv_cache.layer import NO_SEAM, ContextLayer, held_bytes
from etude.kv_cache.page_layer import PageLayer
from etude.kv_cache.policy import Policy
from etude.kv_cache.recall import Recall
from etude.kv_cache.replay import Prompt, cut, replay
from etude.kv_cache.rotation import Rotation
from etude.kv_cache.scores.replayed import Replayed
from etude.kv_cache.slot_layer import SlotLayer
from etude.models.adapters import base_of

_numbers = itertools.count()
_attached: "weakref.WeakSet[Any]" = weakref.WeakSet()
_REFUSED = ("softcap", "s_aux", "sinks", "sliding_window")
"""What an attention function may be given that changes its weights, and ours does not know."""


class Attachment:
    """A policy on a model; what its layers are told of the forward pass that they are part of."""

    def __init__(self, decoder: Any, policy: Policy | Recall) -> None:
        self.policy, self.rotation = policy, Rotation.of(decoder)
        self.pending: ContextLayer | None = None
        self.is_real_BQ = self.turned_BQ = np.zeros((0, 0))
        self.modules: dict[int, Any] = {}
        self.scales: dict[int, float] = {}
        self.is_replaying = False
        self._masks: list[torch.Tensor] = []
        self._given: list[torch.Tensor] = []
        """Keys that layers took in this pass."""
        self._prompt: Prompt | None = None
        """What is read now, for a score that has it read again."""
        self.is_open = True
        self.caches: weakref.WeakSet[Cache] = weakref.WeakSet()
        """Those that it keeps small."""
        score = policy.score if isinstance(policy, Policy) else None
        self._score = score if isinstance(score, Replayed) else None
        self.decoder = decoder
        self.cache_name = cache_argument(decoder)
        self._signature = inspect.signature(decoder.forward)

    def __deepcopy__(self, _: Any) -> "Attachment":
        """Itself: a copy of a cache is of the same model and policy."""
        return self

    @staticmethod
    def to(model: Any, policy: Policy | Recall) -> "Attachment":
        """To be installed, again and again, for as long as contexts under it are gone on with."""
        return Attachment(base_of(model).get_decoder(), policy)

    @contextmanager
    def installed(self) -> Iterator[None]:
        """Within it the model computes under the policy."""
        decoder = self.decoder
        if isinstance(self.policy, Policy) and self.policy.rerotate:
            self._check_moves()
        if decoder in _attached:
            raise UserError("this model has a policy already: leave its `with attach(...)` block first")
        configs = self._configs
        with ExitStack() as restored:
            _attached.add(decoder)
            restored.callback(_attached.discard, decoder)
            for config in configs:
                own = config._attn_implementation or "eager"
                name = f"etude_longcontext_{next(_numbers)}"
                for table, function in (
                    (AttentionInterface._global_mapping, self._attention(own)),
                    (AttentionMaskInterface._global_mapping, self._masking(AttentionMaskInterface._global_mapping[own])),
                ):
                    table[name] = function
                    restored.callback(table.pop, name)
                restored.callback(setattr, config, "_attn_implementation_internal", config._attn_implementation)
                config._attn_implementation_internal = name
            restored.callback(decoder.register_forward_pre_hook(self._before, with_kwargs=True).remove)
            restored.callback(decoder.register_forward_hook(self._behind).remove)
            yield

    @cached_property
    def _attentions(self) -> list[Any]:
        """Looked for once, since a view is installed at every token."""
        found = [module for module in self.decoder.modules() if hasattr(module, "layer_idx") and hasattr(module, "config")]
        if not found:
            raise UserError(f"the attention layers of a {type(self.decoder).__name__} can't be found, so what it keeps can't be chosen")
        return found

    @cached_property
    def _configs(self) -> list[Any]:
        """Those that say which function attention is."""
        return list({id(module.config): module.config for module in self._attentions}.values())

    def _check_moves(self) -> None:
        dtype = next(self.decoder.parameters()).dtype
        if dtype in (torch.bfloat16, torch.float16):  # a turn by little is lost in rounding, again and again
            raise UserError(
                f"keys that are moved again and again in {str(dtype).removeprefix('torch.')} do not arrive: set machine.precision to "
                "float32, or leave rerotate out"
            )
        config = self.config.get_text_config()
        width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        self.rotation.check_moves(self._attentions[0], width)

    @contextmanager
    def replaying(self) -> Iterator[None]:
        """Within it what is read is not kept."""
        self.is_replaying = True
        try:
            yield
        finally:
            self.is_replaying = False

    def check_open(self) -> None:
        if not self.is_open:
            raise UserError(
                "this cache was made under a policy and holds only what that kept: go on with it inside the `with attach(...)` block, or "
                "save it and load it in another one (etude.kv_cache.saved)"
            )

    @property
    def bytes(self) -> int:
        """What is allocated for keys, values and what scores go by, in all caches that are still there."""
        return sum(held_bytes(cache.layers) for cache in self.caches)

    # ------------------------------------------------------------------ before and behind a forward pass of the decoder

    def _before(self, _: Any, given: tuple[Any, ...], named: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """See what the new tokens are, and that the cache is one of ours."""
        if not self.is_replaying:
            self._prompt = None
        self._masks, self._given = [], []
        if self.decoder.training and torch.is_grad_enabled():
            raise UserError("a policy is for reading, not for learning: take model.eval(), or learn outside of its block")
        bound = self._signature.bind_partial(*given, **named)
        arguments = {**bound.arguments, **bound.arguments.get("kwargs", {})}
        self.pending = None
        cache = arguments.get(self.cache_name)
        uses_cache = arguments.get("use_cache")
        if cache is None and (self.decoder.config.use_cache if uses_cache is None else uses_cache):
            cache = DynamicCache(config=self.decoder.config)
            named = {**named, self.cache_name: cache}
        if cache is None:
            return given, named
        inputs = next(states for name in ("input_ids", "inputs_embeds") if (states := arguments.get(name)) is not None)
        rows, length = inputs.shape[:2]
        if length == 0:
            raise UserError("a prompt has no token: give it one at least")
        mask = arguments.get("attention_mask")
        if mask is not None and (not isinstance(mask, torch.Tensor) or mask.ndim != 2):
            raise UserError(
                "a policy needs attention_mask as [rows, tokens], 0 at padding: it can't keep to a mask of each query, as models of images "
                "have them"
            )
        self.adopt(cache, mask)
        seen = cache.get_seq_length()
        self.is_real_BQ = np.ones((rows, length), bool) if mask is None else mask[:, -length:].bool().cpu().numpy()
        turned = arguments.get("position_ids")
        if turned is None or turned.ndim != 2:
            turned = torch.arange(seen, seen + length)[None]
        self.turned_BQ = turned.expand(rows, length).cpu().numpy()
        if self._score and not self.is_replaying and not (seen and length == 1):
            if arguments.get("input_ids") is None:
                raise UserError("a score by replay needs the tokens of a prompt: give input_ids instead of inputs_embeds")
            self._prompt = Prompt(inputs, self.is_real_BQ, self.turned_BQ, cache)
        return given, named

    def _behind(self, *_: Any) -> None:
        self._masks, self._given = [], []
        self.is_real_BQ = self.turned_BQ = np.zeros((0, 0))
        if self.pending:
            self.pending = None
            raise UserError(NO_SEAM)
        if self._score and self._prompt and not self.is_replaying:
            prompt, self._prompt = self._prompt, None
            with self.replaying():
                replay(self.decoder, self.cache_name, prompt, self._score)
            cut(prompt.cache)

    @property
    def config(self) -> Any:
        return self.decoder.config

    @property
    def device(self) -> torch.device:
        device: torch.device = next(self.decoder.parameters()).device
        return device

    def adopt(self, cache: Cache, mask_BT: torch.Tensor | None = None) -> None:
        """Replace the cache's full-attention layers by ours, with what they hold; scores by queries know those that come from now on."""
        if not hasattr(cache, "layers"):
            raise UserError(f"a {type(cache).__name__} can't be kept small: take a decoder-only model")
        ours = next((layer for layer in cache.layers if isinstance(layer, ContextLayer)), None)
        if ours and ours.forward is not self:
            ours.forward.check_open()
            raise UserError("this cache belongs to a policy on another model: take one of this model")
        self.caches.add(cache)
        if ours:
            return
        made = DynamicCache(config=self.decoder.config).layers
        if cache.layer_class_to_replicate is not None:
            cache.layers, cache.layer_class_to_replicate = cache.layers + made[len(cache.layers) :], None
        if cache.offloading:
            raise UserError("a cache with a policy can't be offloaded by transformers: leave cache_implementation='offloaded' out")
        full = [number for number, layer in enumerate(cache.layers) if _is_full(layer) and _is_full(made[number])]
        if not full:
            kinds = ", ".join(sorted({type(layer).__name__ for layer in cache.layers}))
            raise UserError(f"no layer of this cache can be kept small (its layers: {kinds}): take the default dynamic cache")
        for place, number in enumerate(full):
            before: Any = cache.layers[number]
            cache.layers[number] = after = self._layer(place, len(full))
            if before.get_seq_length():
                after.take(before.keys, before.values, mask_BT)

    def _layer(self, number: int, layers: int) -> ContextLayer:
        policy = self.policy
        return PageLayer(self, policy, number, layers) if isinstance(policy, Recall) else SlotLayer(self, policy, number, layers)

    # ------------------------------------------------------------------ the attention function

    def _masking(self, own: Any) -> Any:
        """The model's own masks, remembered: another one that a layer is given is not of padding and order alone."""

        def mask(*given: Any, **named: Any) -> Any:
            made = own(*given, **named)
            if isinstance(made, torch.Tensor):
                self._masks.append(made)
            return made

        return mask

    def _attention(self, own: str) -> Callable[..., Any]:
        """Instead of the model's own one of this name, which other layers, and passes without a cache, still get."""

        def attend(
            module: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, attention_mask: torch.Tensor | None, **rest: Any
        ) -> tuple[torch.Tensor, torch.Tensor | None]:
            layer, self.pending = self.pending, None
            if layer is None:
                if any(_same(key, each) for each in self._given):
                    raise UserError(f"layers of a {type(self.decoder).__name__} share keys and values, which a policy does not know")
                found: tuple[torch.Tensor, torch.Tensor | None] = _function(module, own)(module, query, key, value, attention_mask, **rest)
                return found
            given_keys, given_values = layer.keys, layer.values
            if given_keys is None or given_values is None or not (_same(key, given_keys) and _same(value, given_values)):
                raise UserError(f"{type(module).__name__} reads something else than what its cache holds, which a policy does not know")
            if attention_mask is not None and not any(_same_storage(attention_mask, mask) for mask in self._masks):
                raise UserError(f"{type(module).__name__} makes a mask of its own for each query, to which a policy can't keep")
            self._given += [given_keys]
            for name in _REFUSED:
                if rest.get(name) is not None:
                    raise UserError(f"{type(module).__name__} changes its attention weights by {name}, which a policy does not know")
            scale = rest.get("scaling")
            self.modules[layer.number], self.scales[layer.number] = module, query.shape[-1] ** -0.5 if scale is None else scale
            return layer.attend(query), None

        return attend


@contextmanager
def attach(model: Any, policy: Policy | Recall) -> Iterator[Attachment]:
    """The model keeps of its contexts what the policy keeps, until the block ends.

    Raises UserError for a model that has a policy already, or whose attention can't be reached; and, where `generate` is asked for drafts
    under a policy that does not keep or read everything.
    """
    attachment = Attachment.to(model, policy)
    try:
        with attachment.installed(), _drafts_refused(base_of(model), policy):
            yield attachment
    finally:
        attachment.is_open = False


@contextmanager
def _drafts_refused(model: Any, policy: Policy | Recall) -> Iterator[None]:
    """Drafts come in one pass, with the prompt or behind it, and a policy reads such a pass as a prompt: what it drops for tokens that are
    then refused does not come back, and pages are read in full. Where everything is read, and nothing sparsely, that is no difference.
    """
    if (policy.keeps_all and policy.sparse is None) or not hasattr(model, "_get_candidate_generator"):
        yield
        return

    def refuse(*_: Any, **__: Any) -> None:
        raise UserError(
            "drafts (prompt_lookup_num_tokens, assistant_model) are read in one pass, in which this policy keeps and reads other tokens "
            "than one by one: generate without them, or with keep_ratio 1 and without sparse"
        )

    model._get_candidate_generator = refuse  # what only generation with drafts calls, before the first pass
    try:
        yield
    finally:
        del model._get_candidate_generator


def _function(module: Any, name: str) -> Callable[..., Any]:
    """The attention function that a module's code has under this name."""
    mapping: Mapping[str, Callable[..., Any]] = AttentionInterface._global_mapping
    return vars(sys.modules[type(module).__module__])["eager_attention_forward"] if name == "eager" else mapping[name]


def _same_storage(one: torch.Tensor, other: torch.Tensor) -> bool:
    return one.untyped_storage().data_ptr() == other.untyped_storage().data_ptr()


def _same(one: torch.Tensor, other: torch.Tensor) -> bool:
    return one.shape == other.shape and one.data_ptr() == other.data_ptr()


def _is_full(layer: Any) -> bool:
    """Whether a layer keeps keys and values of all positions, and nothing else."""
    others = (DynamicIndexedLayer, BaseQuantizedLayer, LinearAttentionCacheLayerMixin)
    return isinstance(layer, DynamicLayer) and not layer.is_sliding and not isinstance(layer, others)
