"""etude's own answers to what is asked of policies."""

from typing import Any

import torch
import transformers
from policies import Turn, serving
from serving import Answer, serve

from etude.kv_cache.attach import attach
from etude.kv_cache.policies import POLICIES, RETRIEVAL
from etude.models.load import load_model


def start(settings: dict[str, Any]) -> tuple[Answer, dict[str, Any]]:
    torch.set_num_threads(settings["threads"])
    loaded = {name: load_model(folder) for name, folder in settings["models"].items()}
    tokenizer = loaded["plain"][1]

    def read(model: Any, method: str, ratio: float, turns: list[Turn], *, is_masked: bool = True) -> tuple[list[int], torch.Tensor]:
        where, bytes_ = {"offload": "file"} if method in RETRIEVAL else {}, []
        with attach(model, POLICIES[method].for_tokenizer(tokenizer), keep_ratio=ratio, **where) as attached:
            cache: Any = None
            for turn in turns:
                output = turn.to(model, cache, is_masked=is_masked or cache is None)
                cache = output.past_key_values
                bytes_.append(attached.bytes)
            return bytes_, output.logits[:, -1]

    versions = {"transformers": transformers.__version__, "torch": torch.__version__}
    return serving(read, {name: model for name, (model, _) in loaded.items()}, settings), {"versions": versions}


if __name__ == "__main__":
    serve(start)
