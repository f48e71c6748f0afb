"""Answers under kvpress: a text is read under a press, the question and the answer come behind it, as its own pipeline does."""

from importlib.metadata import version
from typing import Any

import torch
import transformers
from kvpress import ExpectedAttentionPress, KnormPress, SnapKVPress, StreamingLLMPress
from serving import Answer, serve

PRESSES: dict[str, Any] = {
    "streaming": StreamingLLMPress,
    "snapkv": lambda compression_ratio: SnapKVPress(compression_ratio=compression_ratio, window_size=32),
    "key_norm": KnormPress,
    "expected_attention": ExpectedAttentionPress,
}


def start(settings: dict[str, Any]) -> tuple[Answer, dict[str, Any]]:
    torch.set_num_threads(settings["threads"])
    model: Any = transformers.AutoModelForCausalLM.from_pretrained(settings["model"], dtype=getattr(torch, settings["precision"])).eval()

    @torch.inference_mode()
    def answer(request: dict[str, Any]) -> dict[str, Any]:
        cache: Any = transformers.DynamicCache()
        press = PRESSES[request["method"]](compression_ratio=1 - request["ratio"])
        with press(model):
            model.model(input_ids=torch.tensor([request["text"]]), past_key_values=cache)
        held = [layer.keys.shape[2] for layer in cache.layers]
        tokens, found, seen = request["question"], [], len(request["text"])
        for _ in range(request["n"]):
            positions = torch.arange(seen, seen + len(tokens))[None]
            logits = model(input_ids=torch.tensor([tokens]), position_ids=positions, past_key_values=cache, logits_to_keep=1).logits
            seen += len(tokens)
            tokens = [int(logits[0, -1].argmax())]
            if tokens[0] in request["ends"]:
                break
            found += tokens
        return {"tokens": found, "held": sum(held) / len(held)}

    return answer, {"versions": {"kvpress": version("kvpress"), "transformers": transformers.__version__, "torch": torch.__version__}}


if __name__ == "__main__":
    serve(start)
