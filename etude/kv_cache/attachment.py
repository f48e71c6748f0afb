"""The mechanism of `attach`: installs a KV cache policy on a transformers model, by forward hooks and an attention function.

While it is installed, the policy's layers replace the full-attention layers of every cache that the model computes with, in place. Other
layers (sliding windows, states) stay unchanged. etude's attention function is used for these layers, so that prompts, generation, beams and
later turns follow the policy. At the end everything is restored, also after an exception: no registration or hook remains. A forward pass
without a cache is full attention.

Identity: a policy that keeps everything gives the model's own logits, up to rounding.
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
from etude.kv_cache.cache_layer import NO_SEAM, PolicyCacheLayer, held_bytes, split_layers
from etude.kv_cache.cache_policy import CachePolicy
from etude.kv_cache.kvzip_reconstruct import Prompt, evict_prompt, reconstruct
from etude.kv_cache.rotation import Rotation
from etude.models.adapters import base_of

_numbers = itertools.count()
_attached: "weakref.WeakSet[Any]" = weakref.WeakSet()
_REFUSED = ("softcap", "s_aux", "sinks", "sliding_window")
"""Arguments of attention functions that change the attention weights, which this one does not support."""


class Attachment:
    """A policy on a model; provides the state of the forward pass to the policy's layers (`cache_layer.Forward`)."""

    def __init__(self, decoder: Any, policy: CachePolicy) -> None:
        self.policy, self.rotation = policy, Rotation.of(decoder)
        self.pending: PolicyCacheLayer | None = None
        self.is_real_BQ = self.turned_BQ = np.zeros((0, 0))
        self.modules: dict[int, Any] = {}
        self.scales: dict[int, float] = {}
        self.is_replaying = False
        self._masks: list[torch.Tensor] = []
        self._given: list[torch.Tensor] = []
        """Keys that layers have received in this pass."""
        self._prompt: Prompt | None = None
        """The current prompt, for a score that reads it twice."""
        self.is_open = True
        self.caches: weakref.WeakSet[Cache] = weakref.WeakSet()
        """Caches under the policy."""
        self._reconstruction = policy.reconstruction
        self.decoder = decoder
        self.cache_name = cache_argument(decoder)
        self._signature = inspect.signature(decoder.forward)

    def __deepcopy__(self, _: Any) -> "Attachment":
        """Return the same object: a copy of a cache has the same model and policy."""
        return self

    @staticmethod
    def to(model: Any, policy: CachePolicy) -> "Attachment":
        """Create an attachment, which can be installed repeatedly while contexts under it are continued."""
        return Attachment(base_of(model).get_decoder(), policy)

    @contextmanager
    def installed(self) -> Iterator[None]:
        """Apply the policy within the block.

        Raises UserError for a model that has a policy already, has unknown attention layers, or has keys that can't be rerotated.
        """
        decoder = self.decoder
        if self.policy.rerotate:
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
            restored.callback(decoder.register_forward_hook(self._after).remove)
            yield

    @cached_property
    def _attentions(self) -> list[Any]:
        """The model's attention modules, searched only once, since a view is installed at every token."""
        found = [module for module in self.decoder.modules() if hasattr(module, "layer_idx") and hasattr(module, "config")]
        if not found:
            raise UserError(f"the attention layers of a {type(self.decoder).__name__} can't be found, so what it keeps can't be chosen")
        return found

    @cached_property
    def _configs(self) -> list[Any]:
        """The configurations that name the attention function."""
        return list({id(module.config): module.config for module in self._attentions}.values())

    def _check_moves(self) -> None:
        dtype = next(self.decoder.parameters()).dtype
        if dtype in (torch.bfloat16, torch.float16):  # small rotations are lost in rounding, repeatedly
            raise UserError(
                f"keys that are moved again and again in {str(dtype).removeprefix('torch.')} do not arrive: set machine.dtype to "
                "float32, or leave rerotate out"
            )
        config = self.config.get_text_config()
        width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        self.rotation.check_moves(self._attentions[0], width)

    @contextmanager
    def replaying(self) -> Iterator[None]:
        """Compute tokens without keeping them within the block (KVzip)."""
        self.is_replaying = True
        try:
            yield
        finally:
            self.is_replaying = False

    def check_open(self) -> None:
        if not self.is_open:
            raise UserError(
                "this cache was made under a policy and holds only what that kept: go on with it inside the `with attach(...)` block, or "
                "save it and load it in another one (etude.kv_cache.cache_io)"
            )

    @property
    def bytes(self) -> int:
        """Bytes allocated for keys, values and inputs of scores, in all caches that still exist."""
        return sum(held_bytes(cache.layers) for cache in self.caches)

    # ------------------------------------------------------------------ before and after a forward pass of the decoder

    def _before(self, _: Any, given: tuple[Any, ...], named: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Record which tokens are new, and put the policy's layers into the cache.

        Raises UserError for unsupported passes: training, an empty prompt, a mask for each query, a cache that is not a list of layers.
        """
        # reset the state of the pass
        if not self.is_replaying:
            self._prompt = None
        self._masks, self._given = [], []
        if self.decoder.training and torch.is_grad_enabled():
            raise UserError("a policy is for reading, not for learning: take model.eval(), or learn outside of its block")
        # find the cache, or create it
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
        # check the inputs and the mask
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
        # record real tokens and positions of the new tokens
        self.adopt(cache, mask)
        seen = cache.get_seq_length()
        self.is_real_BQ = np.ones((rows, length), bool) if mask is None else mask[:, -length:].bool().cpu().numpy()
        turned = arguments.get("position_ids")
        if turned is None or turned.ndim != 2:
            turned = torch.arange(seen, seen + length)[None]
        self.turned_BQ = turned.expand(rows, length).cpu().numpy()
        # keep a prompt for the second pass of KVzip
        if self._reconstruction and not self.is_replaying and not (seen and length == 1):
            if arguments.get("input_ids") is None:
                raise UserError("a score by replay needs the tokens of a prompt: give input_ids instead of inputs_embeds")
            self._prompt = Prompt(inputs, self.is_real_BQ, self.turned_BQ, cache)
        return given, named

    def _after(self, *_: Any) -> None:
        self._masks, self._given = [], []
        self.is_real_BQ = self.turned_BQ = np.zeros((0, 0))
        if self.pending:
            self.pending = None
            raise UserError(NO_SEAM)
        if self._reconstruction and self._prompt and not self.is_replaying:
            prompt, self._prompt = self._prompt, None
            with self.replaying():
                reconstruct(self.decoder, self.cache_name, prompt, self._reconstruction)
            evict_prompt(prompt.cache)

    @property
    def config(self) -> Any:
        return self.decoder.config

    @property
    def device(self) -> torch.device:
        device: torch.device = next(self.decoder.parameters()).device
        return device

    def adopt(self, cache: Cache, mask_BT: torch.Tensor | None = None) -> None:
        """Replace the cache's full-attention layers by the policy's, which take over their content. Scores only use later queries.

        Raises UserError for a cache that has no such layer, belongs to another model, or is offloaded by transformers.
        """
        if not hasattr(cache, "layers"):
            raise UserError(f"a {type(cache).__name__} can't be kept small: take a decoder-only model")
        ours = next(iter(split_layers(cache.layers)[0]), None)
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
            cache.layers[number] = after = self.policy.layer(self, place, len(full))
            if before.get_seq_length():
                after.take(before.keys, before.values, mask_BT)

    # ------------------------------------------------------------------ the attention function

    def _masking(self, own: Any) -> Any:
        """Wrap the model's mask function to record its masks; any other mask of a layer is more than padding and causality."""

        def mask(*given: Any, **named: Any) -> Any:
            made = own(*given, **named)
            if isinstance(made, torch.Tensor):
                self._masks.append(made)
            return made

        return mask

    def _attention(self, own: str) -> Callable[..., Any]:
        """Wrap the model's attention function of this name, which other layers and passes without a cache still use."""

        def attend(
            module: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, attention_mask: torch.Tensor | None, **rest: Any
        ) -> tuple[torch.Tensor, torch.Tensor | None]:
            # not a layer of the policy: use the model's own function
            layer, self.pending = self.pending, None
            if layer is None:
                if any(_same(key, each) for each in self._given):
                    raise UserError(f"layers of a {type(self.decoder).__name__} share keys and values, which a policy does not know")
                found: tuple[torch.Tensor, torch.Tensor | None] = _function(module, own)(module, query, key, value, attention_mask, **rest)
                return found
            # refuse attention that the policy can't reproduce
            given_keys, given_values = layer.keys, layer.values
            if given_keys is None or given_values is None or not (_same(key, given_keys) and _same(value, given_values)):
                raise UserError(f"{type(module).__name__} reads something else than what its cache holds, which a policy does not know")
            if attention_mask is not None and not any(_same_storage(attention_mask, mask) for mask in self._masks):
                raise UserError(f"{type(module).__name__} makes a mask of its own for each query, to which a policy can't keep")
            self._given += [given_keys]
            for name in _REFUSED:
                if rest.get(name) is not None:
                    raise UserError(f"{type(module).__name__} changes its attention weights by {name}, which a policy does not know")
            # attend under the policy
            scale = rest.get("scaling")
            self.modules[layer.number], self.scales[layer.number] = module, query.shape[-1] ** -0.5 if scale is None else scale
            return layer.attend(query), None

        return attend


def _function(module: Any, name: str) -> Callable[..., Any]:
    """Return the attention function of this name that a module's code uses."""
    mapping: Mapping[str, Callable[..., Any]] = AttentionInterface._global_mapping
    return vars(sys.modules[type(module).__module__])["eager_attention_forward"] if name == "eager" else mapping[name]


def _same_storage(one: torch.Tensor, other: torch.Tensor) -> bool:
    return one.untyped_storage().data_ptr() == other.untyped_storage().data_ptr()


def _same(one: torch.Tensor, other: torch.Tensor) -> bool:
    return one.shape == other.shape and one.data_ptr() == other.data_ptr()


def _is_full(layer: Any) -> bool:
    """Tell whether a layer keeps keys and values of all positions, and nothing else."""
    others = (DynamicIndexedLayer, BaseQuantizedLayer, LinearAttentionCacheLayerMixin)
    return isinstance(layer, DynamicLayer) and not layer.is_sliding and not isinstance(layer, others)
