"""A GGUF file of the bundled model in half precision gives in llama.cpp the answers that its folder gives here."""

import pytest
import reasoning_gym

from etude.engine.sampling import GREEDY
from etude.engine.transformers import TransformersEngine
from etude.export.formats import FORMATS
from etude.models.bundled import BUNDLED, package_file
from etude.models.load import load_model
from etude.recipes.export import export
from etude.rollouts.prompts import render_prompt
from etude.tasks.task import Task

QUESTIONS = ["What is the capital of France?", "Name three colours.", "Who wrote Hamlet?", "Why is the sky blue?", "Say hello to Anna."]


@pytest.mark.model
@pytest.mark.skipif(package_file(BUNDLED["smollm2-135m"]) is None, reason="the bundled model is not installed")
def test_twenty_greedy_answers_are_equal(tmp_path):
    questions = [*QUESTIONS, *(item["question"] for item in reasoning_gym.create_dataset("chain_sum", seed=0, size=15))]
    model, tokenizer = load_model("smollm2-135m")
    prompts = [render_prompt(tokenizer, Task(question)) for question in questions]
    engine = TransformersEngine(model, tokenizer)
    ours = engine.generate(prompts, max_new_tokens=6, sampling=GREEDY, keys=[[0]] * len(prompts))
    export("smollm2-135m", FORMATS["gguf"], tmp_path / "model.gguf", "f16")
    answer = FORMATS["gguf"].open(tmp_path / "model.gguf", longest_tokens=256, ends=engine.end_tokens, threads=1)
    assert answer(prompts, 6) == [list(completion.tokens) for (completion,) in ours]
