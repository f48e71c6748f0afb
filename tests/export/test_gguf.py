"""GGUF files: the same weights and tokens in transformers, the same answers in llama.cpp, the sizes and errors of rounding."""

import json
import math
from pathlib import Path
from urllib.request import ProxyHandler, Request, build_opener

import numpy as np
import pytest
import torch
import xllamacpp
from gguf import GGUFReader
from small_exports import FAMILIES, LLAMA_3, SIZES, SPLITS, TEXTS, bpe_tokenizer, save_family
from tokenizers import pre_tokenizers

from etude.errors import UserError
from etude.export.formats import FORMATS
from etude.export.gguf import export, interleaved
from etude.models.load import load_model
from etude.models.save import save_model

PROMPTS = [bpe_tokenizer()(text)["input_ids"] for text in TEXTS]


@pytest.mark.parametrize("family", [family for family in FAMILIES if family != "llama-3"])  # whose scaling transformers doesn't read
def test_a_float32_file_is_the_same_model_in_transformers(model_of, family, tmp_path):
    export(str(save_family(model_of, family, tmp_path / "model")), tmp_path / "model.gguf", "f32")
    (ours, own), (read, tokenizer) = load_model(str(tmp_path / "model")), load_model(str(tmp_path / "model.gguf"))
    with torch.no_grad():
        tokens = torch.tensor([PROMPTS[0]])
        torch.testing.assert_close(read(tokens).logits, ours(tokens).logits, atol=1e-5, rtol=0)
    assert [tokenizer(text)["input_ids"] for text in TEXTS] == [own(text)["input_ids"] for text in TEXTS]
    assert (tokenizer.chat_template, tokenizer.eos_token) == (own.chat_template, own.eos_token)


class Server:
    """llama.cpp with a float32 cache, asked as by HTTP."""

    def __init__(self, file: Path) -> None:
        settings = xllamacpp.CommonParams()
        settings.model.path, settings.n_ctx, settings.verbosity = str(file), 256, 0
        settings.cpuparams.n_threads = settings.cpuparams_batch.n_threads = 1
        settings.cache_type_k = settings.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
        self.server = xllamacpp.Server(settings)
        self.ask("/completion", prompt=[1], n_predict=1)  # a server that is left before its loop begins never ends

    def ask(self, route: str, **body: object) -> dict:
        request = Request(self.server.listening_address + route, json.dumps(body).encode(), {"Content-Type": "application/json"})
        with build_opener(ProxyHandler({})).open(request) as reply:
            return json.load(reply)


@pytest.mark.parametrize("family", FAMILIES)
def test_llama_cpp_computes_what_transformers_does(model_of, family, tmp_path):
    folder = save_family(model_of, family, tmp_path / "model")
    export(str(folder), tmp_path / "model.gguf", "f32")
    server, (model, _) = Server(tmp_path / "model.gguf"), load_model(str(folder))
    found = {prompt: server.ask("/completion", prompt=prompt, n_predict=1, n_probs=20, temperature=0) for prompt in map(tuple, PROMPTS)}
    told = {prompt: each["completion_probabilities"] for prompt, each in found.items() if "completion_probabilities" in each}
    assert len(told) > 2  # of a token that is half a character, the server tells nothing
    for prompt, (token,) in told.items():
        with torch.no_grad():
            logprobs_V = model(torch.tensor([prompt])).logits[0, -1].log_softmax(-1)
        theirs = {each["id"]: each["logprob"] for each in token["top_logprobs"]}
        assert len(theirs) == 20 and theirs == pytest.approx({token: logprobs_V[token].item() for token in theirs}, abs=0.02)
        assert logprobs_V.topk(20).values.exp().sum().item() == pytest.approx(sum(map(math.exp, theirs.values())), abs=0.02)


def test_the_runtime_answers_as_transformers_does(model_of, tmp_path):
    folder = save_family(model_of, "llama", tmp_path / "model")
    export(str(folder), tmp_path / "model.gguf", "f32")
    how = {"longest_tokens": 128, "ends": frozenset(), "threads": 1}
    theirs = FORMATS["gguf"].open(tmp_path / "model.gguf", **how)(PROMPTS, 4)
    assert theirs == FORMATS["int8"].open(folder, **how)(PROMPTS, 4)  # whose runtime is transformers
    assert len({tuple(answer) for answer in theirs}) == len(PROMPTS)


@pytest.mark.parametrize("split", SPLITS)
def test_llama_cpp_splits_texts_as_the_tokenizer_does(model_of, split, tmp_path):
    tokenizer = bpe_tokenizer(split)
    export(str(save_model(model_of("llama", **SIZES), tokenizer, tmp_path / "model")), tmp_path / "model.gguf", "q8_0")
    server = Server(tmp_path / "model.gguf")
    for text in TEXTS:
        assert server.ask("/tokenize", content=text, add_special=True, parse_special=True)["tokens"] == tokenizer(text)["input_ids"]


def test_llama_cpp_renders_messages_as_the_tokenizer_does(model_of, tmp_path):
    export(str(save_family(model_of, "llama", tmp_path / "model")), tmp_path / "model.gguf", "q8_0")
    messages = [{"role": "user", "content": TEXTS[0]}]
    rendered = bpe_tokenizer().apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
    assert Server(tmp_path / "model.gguf").ask("/apply-template", messages=messages)["prompt"] == rendered


def test_the_lines_of_python_that_are_printed_answer(model_of, tmp_path, capsys):
    export(str(save_family(model_of, "llama", tmp_path / "model")), tmp_path / "model.gguf", "q8_0")
    exec("\n".join(FORMATS["gguf"].lines_at(str(tmp_path / "model.gguf"))), {})
    assert capsys.readouterr().out.strip()


def test_rotary_pairs_of_a_head_stand_side_by_side():
    assert interleaved(np.arange(12).reshape(12, 1), heads=2)[:, 0].tolist() == [0, 3, 1, 4, 2, 5, 6, 9, 7, 10, 8, 11]


@pytest.mark.parametrize(("quantization", "bits", "most_of_a_block"), [("q8_0", 8.5, 1 / 127), ("q4_0", 4.5, 1 / 8), ("q4_1", 5, 2 / 15)])
def test_rounding_has_its_size_and_stays_within_a_step(model_of, quantization, bits, most_of_a_block, tmp_path):
    folder = save_family(model_of, "llama-untied", tmp_path / "model")
    export(str(folder), tmp_path / "model.gguf", quantization)
    kinds = {tensor.name: tensor for tensor in GGUFReader(tmp_path / "model.gguf").tensors}
    up = kinds["blk.0.ffn_up.weight"]
    assert up.n_bytes * 8 == bits * SIZES["hidden_size"] * SIZES["intermediate_size"]
    assert {kinds[name].tensor_type.name for name in ("token_embd.weight", "output.weight")} == {"Q8_0"}
    assert kinds["blk.0.attn_norm.weight"].tensor_type.name == "F32"
    (ours, _), (read, _) = load_model(str(folder)), load_model(str(tmp_path / "model.gguf"))
    before, after = (model.model.layers[0].mlp.up_proj.weight.detach().unflatten(1, (-1, 32)) for model in (ours, read))
    most = before.abs().amax(-1, keepdim=True)
    assert ((before - after).abs() <= most * most_of_a_block * 1.01).all() and not torch.equal(before, after)


def test_half_precision_is_the_rounded_weight(model_of, tmp_path):
    folder = save_family(model_of, "llama", tmp_path / "model")
    for quantization, dtype in (("bf16", torch.bfloat16), ("f16", torch.float16)):
        export(str(folder), tmp_path / f"{quantization}.gguf", quantization)
        (ours, _), (read, _) = load_model(str(folder)), load_model(str(tmp_path / f"{quantization}.gguf"))
        weight = "model.layers.1.self_attn.k_proj.weight"
        assert torch.equal(read.state_dict()[weight], ours.state_dict()[weight].to(dtype).float())


def test_what_gguf_can_not_hold_is_refused_and_nothing_is_written(model_of, tmp_path):
    split = bpe_tokenizer()
    bytes_alone = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    split.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Digits(), bytes_alone])
    yarn = LLAMA_3 | {"rope_type": "yarn"}
    refused = {
        save_model(model_of("gpt2"), bpe_tokenizer(), tmp_path / "gpt2"): "is a GPT2LMHeadModel, and GGUF files are written here of",
        save_family(model_of, "mistral", tmp_path / "window", sliding_window=6): "attends to a window of 6 tokens",
        save_family(model_of, "llama", tmp_path / "yarn", rope_parameters=yarn): "has positions of the kind yarn",
        save_model(model_of("llama", **SIZES), split, tmp_path / "split"): "is BPE with the steps Digits, bytes",
        "tiny-random": "the tokenizer of tiny-random is WordLevel, and GGUF files are written here with byte-level BPE",
    }
    before = sorted(tmp_path.iterdir())
    for name, sentence in refused.items():
        with pytest.raises(UserError, match=sentence):
            export(str(name), tmp_path / "model.gguf", "q8_0")
    assert sorted(tmp_path.iterdir()) == before
