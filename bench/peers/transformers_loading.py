"""What saved folders say in the transformers of this environment: tokens, logits, greedy answers, and what lines of Python print."""

import contextlib
import io
from collections.abc import Sequence
from importlib import metadata
from typing import Any

from serving import Answer, serve


def start(settings: dict[str, Any]) -> tuple[Answer, dict[str, Any]]:
    import torch
    from transformers.utils import logging

    logging.disable_progress_bar()
    torch.set_num_threads(settings["threads"])

    def answer(request: dict[str, Any]) -> dict[str, Any]:
        try:
            return printed(request["code"]) if "code" in request else said(**request)
        except Exception as error:  # is what the other side wants to know
            return {"error": f"{type(error).__name__}: {error}"}

    names = ("transformers", "tokenizers", "torch", "peft")
    return answer, {"versions": {name: metadata.version(name) for name in names}}


def printed(code: str) -> dict[str, Any]:
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        exec(code, {})
    return {"printed": out.getvalue()}


def said(
    folder: str,
    adapter: str | None = None,
    texts: Sequence[str] = (),
    tokens: Sequence[Sequence[int]] = (),
    conversations: Sequence[list[dict[str, str]]] = (),
    new_tokens: int = 1,
) -> dict[str, Any]:
    """Token ids of `texts`, logits of `tokens` [B, T], and of `conversations` the prompts, the greedy answers, and by how much the chosen
    token's logit is ahead of the next one's.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer: Any = AutoTokenizer.from_pretrained(adapter or folder)
    model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    if adapter:
        from peft import PeftModel

        model = PeftModel.from_pretrained(model, adapter)
    model.eval()
    found: dict[str, Any] = {"texts": [tokenizer(text)["input_ids"] for text in texts], "prompts": [], "answers": [], "ahead": []}
    with torch.no_grad():
        if tokens:
            found["logits"] = model(input_ids=torch.tensor(tokens)).logits.tolist()
        for messages in conversations:
            prompt = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_tensors="pt", return_dict=True)
            given = model.generate(**prompt, max_new_tokens=new_tokens, do_sample=False, output_logits=True, return_dict_in_generate=True)
            length = prompt["input_ids"].shape[1]
            found["prompts"].append(prompt["input_ids"][0].tolist())
            found["answers"].append(given.sequences[0, length:].tolist())
            best = [step[0].topk(2).values.tolist() for step in given.logits]
            found["ahead"].append([first - second for first, second in best])
    return found


if __name__ == "__main__":
    serve(start)
