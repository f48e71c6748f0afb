"""Exported folders: int8 by compressed-tensors, ONNX and OpenVINO, each read and run by the library that it is for."""

import contextlib
import io
import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import openvino
import openvino_genai
import pytest
import torch
from safetensors.torch import load_file
from small_exports import FAMILIES, TEXTS, bpe_tokenizer, save_family
from transformers import AutoModelForCausalLM

from etude.errors import UserError
from etude.export.formats import FORMATS
from etude.models.load import load_model
from etude.models.save import save_model
from etude.recipes.export import export

PROMPTS = [bpe_tokenizer()(text)["input_ids"] for text in TEXTS]
HOW = {"longest_tokens": 128, "ends": frozenset[int](), "threads": 1}


EXACTLY = {"INFERENCE_PRECISION_HINT": "f32", "KV_CACHE_PRECISION": "f32", "DYNAMIC_QUANTIZATION_GROUP_SIZE": 0}
"""What OpenVINO would by default do in half precision or with 8 bits."""


def answers_of(folder: Path) -> list[list[int]]:
    """The greedy answers of a Hugging Face folder in transformers."""
    return FORMATS["int8"].open(folder, **HOW)(PROMPTS, 8)


def logits_in_openvino(folder: Path, prompt: list[int]) -> torch.Tensor:
    model = openvino.Core().compile_model(folder / "openvino_model.xml", "CPU", EXACTLY)
    tokens = np.array([prompt])
    given = {"input_ids": tokens, "attention_mask": np.ones_like(tokens), "position_ids": np.arange(len(prompt))[None]}
    return torch.from_numpy(model(given | {"beam_idx": np.zeros(1, np.int32)})["logits"])


@pytest.mark.parametrize("family", [family for family in FAMILIES if family != "llama-3"])
def test_openvino_computes_what_transformers_does(model_of, family, tmp_path):
    folder = save_family(model_of, family, tmp_path / "model")
    export(str(folder), FORMATS["openvino"], tmp_path / "out", "f16")
    model, _ = load_model(str(folder))
    model.load_state_dict({name: weight.half().float() if weight.ndim > 1 else weight for name, weight in model.state_dict().items()})
    with torch.no_grad():
        expected = model(torch.tensor([PROMPTS[0]])).logits
    apart = (logits_in_openvino(tmp_path / "out", PROMPTS[0]) - expected).abs().max() / expected.std()
    assert apart < 0.03  # its norms and rotary frequencies are rounded too


def test_openvino_without_the_positions_of_llama_3_refuses_them(model_of, tmp_path):
    folder = save_family(model_of, "llama-3", tmp_path / "model")
    with pytest.raises(UserError, match="has positions of the kind llama3, which OpenVINO's reader of GGUF takes for default"):
        export(str(folder), FORMATS["openvino"], tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model"]


def test_openvino_reads_texts_as_the_tokenizer_does(model_of, tmp_path):
    export(str(save_family(model_of, "llama", tmp_path / "model")), FORMATS["openvino"], tmp_path / "out")
    tokenizer = openvino_genai.Tokenizer(str(tmp_path / "out"))
    assert [tokenizer.encode(text).input_ids.data[0].tolist() for text in TEXTS] == PROMPTS
    assert tokenizer.decode(PROMPTS[0]) == TEXTS[0]


@pytest.fixture(scope="module")
def onnx(model_of, tmp_path_factory) -> tuple[Path, Path]:
    """A model's folder, and its export: the builder takes seconds."""
    scratch = tmp_path_factory.mktemp("onnx")
    folder = save_family(model_of, "llama", scratch / "model", vocab_size=400)
    export(str(folder), FORMATS["onnx"], scratch / "out", "fp32")
    return folder, scratch / "out"


def test_onnx_in_float32_answers_as_transformers_does(onnx):
    folder, out = onnx
    whole = answers_of(folder)
    assert FORMATS["onnx"].open(out, **HOW)(PROMPTS, 8) == whole
    third = whole[0][2]
    (answer,) = FORMATS["onnx"].open(out, **HOW | {"ends": frozenset([third])})(PROMPTS[:1], 8)
    assert answer == whole[0][: whole[0].index(third) + 1]


def test_int8_weights_are_rounded_by_the_largest_of_each_output(model_of, tmp_path):
    folder = save_family(model_of, "llama-untied", tmp_path / "model")
    export(str(folder), FORMATS["int8"], tmp_path / "out")
    kept, (model, _) = load_file(tmp_path / "out" / "model.safetensors"), load_model(str(folder))
    name = "model.layers.0.mlp.up_proj.weight"
    weight, rounded, scale = model.state_dict()[name], kept[name], kept[f"{name}_scale"]
    assert (rounded.dtype, rounded.shape, scale.shape) == (torch.int8, weight.shape, (weight.shape[0], 1))
    torch.testing.assert_close(scale.float(), weight.abs().amax(1, keepdim=True) / 127.5, rtol=0.01, atol=0)
    steps = ((rounded * scale.float() - weight) / scale.float()).abs()  # of a scale that half precision has rounded
    assert steps.max() <= 1.02 and steps.mean() <= 0.26
    assert {kept[other].dtype for other in ("lm_head.weight", "model.embed_tokens.weight", "model.norm.weight")} == {torch.bfloat16}
    assert json.loads((tmp_path / "out" / "config.json").read_text())["quantization_config"]["quant_method"] == "compressed-tensors"


@pytest.mark.parametrize("family", ["llama", "qwen3"])
def test_int8_is_near_the_model_in_transformers(model_of, family, tmp_path):
    folder = save_family(model_of, family, tmp_path / "model")
    export(str(folder), FORMATS["int8"], tmp_path / "out")
    model, _ = load_model(str(folder))
    rounded = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    with torch.no_grad():
        tokens = torch.tensor([PROMPTS[0]])
        ours, theirs = (each(tokens).logits.float().log_softmax(-1) for each in (model, rounded))
    divergence = (ours.exp() * (ours - theirs)).sum(-1).mean()
    assert 0 < divergence < 0.1 * (ours.exp() * (ours - ours.flip(0).roll(1, 1))).sum(-1).mean()


def test_int8_of_a_model_without_linear_layers_is_refused(model_of, tmp_path):
    folder = save_model(model_of("gpt2"), bpe_tokenizer(), tmp_path / "gpt2")
    with pytest.raises(UserError, match=r"gpt2 is a GPT2LMHeadModel without linear layers"):
        export(str(folder), FORMATS["int8"], tmp_path / "out")


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> Callable[[Path], str]:
    """What the lines of Python in a folder's README.md print there."""

    def run(folder: Path) -> str:
        monkeypatch.chdir(folder)
        (code,) = re.findall(r"```python\n(.*?)```", (folder / "README.md").read_text(), re.DOTALL)
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            exec(code, {})
        return printed.getvalue().strip("\n")

    return run


def test_the_lines_in_every_folder_answer_there(model_of, onnx, said, tmp_path):
    folder, built = onnx
    for name in ("openvino", "int8"):
        export(str(folder), FORMATS[name], tmp_path / name)
        assert said(tmp_path / name)
    tokenizer = bpe_tokenizer()
    prompt = tokenizer.apply_chat_template([{"role": "user", "content": "Hello"}], add_generation_prompt=True)["input_ids"]
    ends = frozenset([tokenizer.eos_token_id])
    (answer,) = FORMATS["int8"].open(folder, **HOW | {"ends": ends})([prompt], 64)
    begun = said(built).rstrip("\N{REPLACEMENT CHARACTER}")  # its tokenizer stops at a byte that begins no character
    assert begun and tokenizer.decode(answer, skip_special_tokens=True).startswith(begun)
