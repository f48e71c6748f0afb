"""kvpress' answers to what is asked of policies."""

from contextlib import ExitStack
from importlib.metadata import requires, version
from typing import Any

import torch
import transformers
from kvpress import (
    AdaKVPress,
    CompressionRatioDecodingPress,
    CriticalKVPress,
    ExpectedAttentionPress,
    KeyDiffPress,
    KnormPress,
    KVzipPress,
    ObservedAttentionPress,
    PrefillDecodingPress,
    PyramidKVPress,
    ScorerPress,
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
}


def start(settings: dict[str, Any]) -> tuple[Answer, dict[str, Any]]:
    torch.set_num_threads(settings["threads"])
    models: dict[str, Any] = {
        name: transformers.AutoModelForCausalLM.from_pretrained(folder).eval() for name, folder in settings["models"].items()
    }

    def read(model: Any, method: str, ratio: float, turns: list[Turn], *, is_masked: bool = True) -> tuple[list[int], torch.Tensor]:
        """A prompt within its press, what is generated behind it, as kvpress' pipeline does. Where there are several prompts, all within a
        press that takes the method for what comes later, too, or the first one alone where it can't.
        """
        if method not in PRESSES:
            raise LookupError("it has none")
        press, later = (PRESSES[method](compression_ratio=1 - ratio) for _ in range(2))
        cache = None if model is models["hybrid"] else transformers.DynamicCache(config=model.config)  # LFM2's is its own
        goes_on = sum(turn.ids_BT.shape[1] > 1 for turn in turns) > 1 and isinstance(later, ScorerPress | AdaKVPress)
        if goes_on:
            press = PrefillDecodingPress(press, CompressionRatioDecodingPress(later, target_compression_ratio=1 - ratio))
        bytes_: list[int] = []
        with ExitStack() as attention, ExitStack() as pressed:
            if method == "h2o":
                model.set_attn_implementation("eager")
                attention.callback(model.set_attn_implementation, "sdpa")
            pressed.enter_context(press(model))
            for turn in turns:
                output = turn.to(model, cache, is_masked=is_masked or not bytes_)
                cache = output.past_key_values
                if not goes_on:
                    pressed.close()
                bytes_.append(stored(cache))
            return bytes_, output.logits[:, -1]

    needs = [each for each in requires("kvpress") or [] if each.startswith("transformers")]
    about = {"kvpress": version("kvpress"), "transformers": transformers.__version__, "torch": torch.__version__}
    replaced = [name for name, own in ALL_ATTENTION_FUNCTIONS.items() if "kvpress" in own.__code__.co_filename]
    return serving(read, models, settings), {"versions": about, "needs": needs, "replaced": replaced}


if __name__ == "__main__":
    serve(start)
