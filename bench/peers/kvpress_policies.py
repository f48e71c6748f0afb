"""kvpress' answers to what is asked of policies."""

from contextlib import nullcontext
from importlib.metadata import requires, version
from typing import Any

import torch
import transformers
from kvpress import (
    AdaKVPress,
    CriticalKVPress,
    ExpectedAttentionPress,
    KeyDiffPress,
    KnormPress,
    KVzipPress,
    ObservedAttentionPress,
    PyramidKVPress,
    RandomPress,
    SnapKVPress,
    StreamingLLMPress,
    TOVAPress,
)
from policies import Turn, serving, stored
from serving import Answer, serve
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

PRESSES: dict[str, Any] = {
    "streaming": StreamingLLMPress,
    "h2o": ObservedAttentionPress,
    "tova": TOVAPress,
    "snapkv": SnapKVPress,
    "pyramid": PyramidKVPress,
    "ada_snapkv": lambda compression_ratio: AdaKVPress(SnapKVPress(compression_ratio)),
    "key_norm": KnormPress,
    "key_diff": KeyDiffPress,
    "expected_attention": ExpectedAttentionPress,
    "critical_snapkv": lambda compression_ratio: CriticalKVPress(SnapKVPress(compression_ratio)),
    "kvzip": KVzipPress,
    "random": RandomPress,
}


def start(settings: dict[str, Any]) -> tuple[Answer, dict[str, Any]]:
    torch.set_num_threads(settings["threads"])
    models: dict[str, Any] = {
        name: transformers.AutoModelForCausalLM.from_pretrained(folder).eval() for name, folder in settings["models"].items()
    }

    def read(model: Any, method: str, ratio: float, turns: list[Turn]) -> tuple[list[int], torch.Tensor]:
        """Each prompt within its press, since some press what was read when their block ends; answers behind it."""
        if method not in PRESSES:
            raise LookupError("it has none")
        if method == "h2o":
            model.set_attn_implementation("eager")
        try:
            press, bytes_ = PRESSES[method](compression_ratio=1 - ratio), []
            cache = None if model is models["hybrid"] else transformers.DynamicCache(config=model.config)  # LFM2's is its own
            for turn in turns:
                with press(model) if turn.ids_BT.shape[1] > 1 else nullcontext():
                    output = turn.to(model, cache)
                    cache = output.past_key_values
                bytes_.append(stored(cache))
            return bytes_, output.logits[:, -1]
        finally:
            if method == "h2o":
                model.set_attn_implementation("sdpa")

    needs = [each for each in requires("kvpress") or [] if each.startswith("transformers")]
    about = {"kvpress": version("kvpress"), "transformers": transformers.__version__, "torch": torch.__version__}
    replaced = [name for name, own in ALL_ATTENTION_FUNCTIONS.items() if "kvpress" in own.__code__.co_filename]
    return serving(read, models, settings), {"versions": about, "needs": needs, "replaced": replaced}


if __name__ == "__main__":
    serve(start)
