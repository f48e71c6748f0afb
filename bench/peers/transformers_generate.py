"""Rollouts by transformers' own `generate`, with half-precision weights and every sample a row of one left-padded batch."""

import time
from typing import Any

import torch
import transformers
from serving import Answer, serve


def start(settings: dict[str, Any]) -> tuple[Answer, dict[str, Any]]:
    torch.set_num_threads(settings["threads"])
    model: Any = transformers.AutoModelForCausalLM.from_pretrained(settings["model"], dtype=getattr(torch, settings["dtype"]))

    def answer(request: dict[str, Any]) -> dict[str, Any]:
        transformers.set_seed(request["seed"])
        width = max(map(len, request["prompts"]))
        tokens = torch.tensor([[0] * (width - len(prompt)) + prompt for prompt in request["prompts"]])
        mask = torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in request["prompts"]])
        began = time.perf_counter()
        with torch.inference_mode():
            found = model.generate(
                input_ids=tokens, attention_mask=mask, do_sample=True, temperature=1.0, top_k=0, top_p=1.0, pad_token_id=0,
                num_return_sequences=request["samples"], min_new_tokens=request["tokens"], max_new_tokens=request["tokens"],
            )  # fmt: skip
        return {"seconds": time.perf_counter() - began, "tokens": found[:, width:].numel()}

    return answer, {"versions": {"transformers": transformers.__version__, "torch": torch.__version__}}


if __name__ == "__main__":
    serve(start)
