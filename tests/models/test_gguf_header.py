import json
import struct
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from gguf import GGUFWriter

from etude.errors import UserError
from etude.models.gguf_header import Unreadable, check_gguf, isolated_file
from etude.models.load import load_model

WIDTH, INNER, HEADS, WORDS = 32, 48, 4, 21


def write_gguf(path: Path, *, num_layers: int = 2, block_count: int | None = None, without: str = "") -> Path:
    """A random llama with a tokenizer of `WORDS` letters."""
    draw = np.random.default_rng(0)
    writer = GGUFWriter(path, "llama")
    writer.add_context_length(64)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(num_layers if block_count is None else block_count)
    writer.add_feed_forward_length(INNER)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(WIDTH // HEADS)
    writer.add_vocab_size(WORDS)
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(["<pad>", "<eos>", *"abcdefghijklmnopqr", "ab"])
    writer.add_token_types([3, 3, *[1] * 19])
    writer.add_token_merges(["a b"])
    writer.add_eos_token_id(1)
    writer.add_pad_token_id(0)
    shapes = {"token_embd": (WORDS, WIDTH), "output": (WORDS, WIDTH), "output_norm": (WIDTH,)}
    for layer in range(num_layers):
        for name in ("attn_q", "attn_k", "attn_v", "attn_output"):
            shapes[f"blk.{layer}.{name}"] = (WIDTH, WIDTH)
        shapes |= {f"blk.{layer}.ffn_{name}": (INNER, WIDTH) for name in ("gate", "up")}
        shapes |= {f"blk.{layer}.ffn_down": (WIDTH, INNER), f"blk.{layer}.attn_norm": (WIDTH,), f"blk.{layer}.ffn_norm": (WIDTH,)}
    shapes.pop(without, None)
    for name, shape in shapes.items():
        writer.add_tensor(f"{name}.weight", draw.standard_normal(shape).astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def test_a_file_is_loaded_as_it_says(tmp_path):
    path = write_gguf(tmp_path / "m.gguf")
    check_gguf(path)
    model, tokenizer = load_model(str(path))
    assert model.config.num_hidden_layers == 2 and tokenizer("c")["input_ids"] == [4]
    assert torch.isfinite(model(input_ids=torch.tensor([[4, 5]])).logits).all()


def test_a_file_that_lacks_weights_is_refused_instead_of_filled_at_random(tmp_path):
    with pytest.raises(UserError, match=r"can't be loaded: its files lack model\.layers\.1\.mlp\.up_proj\.weight$"):
        load_model(str(write_gguf(tmp_path / "m.gguf", without="blk.1.ffn_up")))


def test_files_beside_a_gguf_file_are_not_read(tmp_path, monkeypatch):
    path, trace = write_gguf(tmp_path / "m.gguf"), tmp_path / "trace"
    (tmp_path / "evil.py").write_text(f"open({str(trace)!r}, 'w').close()\nclass Evil: ...\n")
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"auto_map": {"AutoTokenizer": ["evil.Evil", None]}}))
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "evil", "auto_map": {"AutoConfig": "evil.Evil"}}))
    (tmp_path / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": "attacker/repo", "peft_type": "LORA"}))
    (tmp_path / "chat_template.jinja").write_text("{{ 'evil' }}")
    monkeypatch.setattr("builtins.input", lambda *_: "y")  # whether the code is to be run
    model, tokenizer = load_model(str(path))
    assert model.config.model_type == "llama" and tokenizer.chat_template is None and not trace.exists()
    with isolated_file(path) as folder:
        assert [each.name for each in folder.iterdir()] == ["m.gguf"]
    assert not folder.exists()


def test_a_truncated_file_says_so(tmp_path):
    path = write_gguf(tmp_path / "m.gguf")
    whole = path.read_bytes()
    path.write_bytes(whole[:-100])
    with pytest.raises(UserError, match=rf"m.gguf is truncated: it has {len(whole) - 100:,} bytes, its weights end at .*: fetch it again$"):
        load_model(str(path))
    for kept in (40, 300):
        path.write_bytes(whole[:kept])
        with pytest.raises(Unreadable, match="is truncated: its header goes on beyond the end"):
            check_gguf(path)
    path.write_bytes(b"")
    with pytest.raises(Unreadable, match="has 0 bytes"):
        check_gguf(path)


def test_more_layers_than_there_are_weights_of_are_refused_at_once(tmp_path):
    begun = time.perf_counter()
    with pytest.raises(Unreadable, match=r"names 1000000 layers \(llama.block_count\), but has the weights of 2$"):
        check_gguf(write_gguf(tmp_path / "m.gguf", block_count=1_000_000))
    assert time.perf_counter() - begun < 2


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"GGUF" + struct.pack("<IQQ", 3, 10**18, 0), "header goes on beyond the end"),
        (b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + struct.pack("<Q1sIIQ", 1, b"a", 9, 0, 10**18), "header goes on beyond the end"),
        (b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + struct.pack("<Q1sIIQ", 1, b"a", 9, 8, 10**18), "header goes on beyond the end"),
        (b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + struct.pack("<Q1sI", 1, b"a", 99), "is damaged: its header can't be read"),
        (b"GGUF" + struct.pack(">IQQ", 3, 0, 0), "of version 50331648, expected 2 or 3, little-endian"),
        (b"nothing of the kind at all", "is not a GGUF file: it does not begin with GGUF"),
    ],
)
def test_a_header_that_no_reader_should_follow_is_refused_at_once(tmp_path, content, message):
    (tmp_path / "m.gguf").write_bytes(content)
    begun = time.perf_counter()
    with pytest.raises(Unreadable, match=message):
        check_gguf(tmp_path / "m.gguf")
    assert time.perf_counter() - begun < 2
