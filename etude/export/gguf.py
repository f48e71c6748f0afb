"""Writes a model of Llama's family as a GGUF file, for llama.cpp and programs that are built on it.

    etude models export MODEL --format gguf --out model.gguf [--quantization q8_0]

The package `gguf`, of llama.cpp, has the format, the names of weights, and the rounding to blocks of 32 weights; llama.cpp's script that
reads Hugging Face folders is in no package, so what it does for this family is here. GGUF stores a head's rotary pairs of Llama and Mistral
side by side (0, 1), (2, 3), ..., and transformers in two halves (0, d/2), (1, d/2 + 1), ...: rows of their query and key weights are put in
the other order. Vectors, such as norms, stay float32. With q4_0 and q4_1, embeddings and the head are q8_0, as they suffer most. Rounding
is plain, without calibration data. Identity: f32, which transformers reads as the same weights.

Specification: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md; llama.cpp, conversion of LlamaForCausalLM.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gguf import GGML_QUANT_VERSION, MODEL_ARCH, GGMLQuantizationType, GGUFWriter, LlamaFileType, get_tensor_name_map, quants
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from etude.errors import UserError
from etude.export.gguf_tokenizer import add_tokenizer
from etude.models.load import end_tokens, load_model

ARCHITECTURES = {
    "LlamaForCausalLM": MODEL_ARCH.LLAMA,
    "MistralForCausalLM": MODEL_ARCH.LLAMA,
    "Qwen2ForCausalLM": MODEL_ARCH.QWEN2,
    "Qwen3ForCausalLM": MODEL_ARCH.QWEN3,
}
QUANTIZATIONS = {
    "f32": LlamaFileType.ALL_F32,
    "bf16": LlamaFileType.MOSTLY_BF16,
    "f16": LlamaFileType.MOSTLY_F16,
    "q8_0": LlamaFileType.MOSTLY_Q8_0,
    "q4_1": LlamaFileType.MOSTLY_Q4_1,
    "q4_0": LlamaFileType.MOSTLY_Q4_0,
}
_OTHERS = "llama.cpp's own convert_hf_to_gguf.py has more families"
_ENDS = ("token_embd.weight", "output.weight")


def export(name: str, out: Path, quantization: str) -> None:
    """Write the model `name` to the file `out`. Raises UserError for models of other families, and for settings that GGUF's Llama lacks."""
    write_gguf(name, *load_model(name), out, quantization)


def write_gguf(name: str, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, out: Path, quantization: str) -> None:
    """Write a loaded model; `name` is what errors call it. Raises UserError as `export`."""
    architecture = ARCHITECTURES.get(type(model).__name__)
    if architecture is None:
        known = ", ".join(kind.removesuffix("ForCausalLM") for kind in ARCHITECTURES)
        raise UserError(f"{name} is a {type(model).__name__}, and GGUF files are written here of {known} only: {_OTHERS}")
    writer = GGUFWriter(out, architecture.name.lower())
    writer.add_name(Path(name).name)
    writer.add_description(f"written by `etude models export` from {Path(name).name}")
    writer.add_file_type(QUANTIZATIONS[quantization])
    writer.add_quantization_version(GGML_QUANT_VERSION)
    _add_sizes(writer, name, model.config)
    add_tokenizer(writer, name, tokenizer, model.config.vocab_size, sorted(end_tokens(model, tokenizer)))
    for place, weight in _weights(model, architecture):
        kind = _kind_of(place, weight, quantization)
        writer.add_tensor(place, quants.quantize(weight, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _add_sizes(writer: GGUFWriter, name: str, config: Any) -> None:
    rope, window = config.rope_parameters, getattr(config, "sliding_window", None)
    if rope["rope_type"] not in ("default", "llama3") or rope.get("partial_rotary_factor", 1.0) != 1.0:
        raise UserError(f"{name} has positions of the kind {rope['rope_type']}, and GGUF is written here with default or llama3: {_OTHERS}")
    if window is not None and getattr(config, "use_sliding_window", True):
        raise UserError(f"{name} attends to a window of {window} tokens, which GGUF's Llama does not have: {_OTHERS}")
    head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    writer.add_vocab_size(config.vocab_size)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(head)
    writer.add_value_length(head)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_dimension_count(head)
    writer.add_rope_freq_base(rope["rope_theta"])


def _weights(model: PreTrainedModel, architecture: MODEL_ARCH) -> Iterator[tuple[str, np.ndarray]]:
    """Yield the weights by their names in GGUF, in float32; a head that is tied to the embeddings is left out."""
    config: Any = model.config
    names = get_tensor_name_map(architecture, config.num_hidden_layers)
    heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}
    if config.rope_parameters["rope_type"] == "llama3":
        yield "rope_freqs.weight", _frequency_divisors(config)
    for name, weight in model.state_dict().items():
        if name == "lm_head.weight" and config.tie_word_embeddings:
            continue
        values = weight.float().numpy()
        projection = name.split(".")[-2]
        if architecture == MODEL_ARCH.LLAMA and projection in heads:
            values = interleaved(values, heads[projection])
        place = names.get_name(name, try_suffixes=(".weight", ".bias"))
        assert place is not None, name
        yield place, values


def interleaved(weight: np.ndarray, heads: int) -> np.ndarray:
    """Put rows of each head from transformers' order of rotary pairs into GGUF's: 0, d/2, 1, d/2 + 1, ...

    >>> interleaved(np.arange(8), heads=2).tolist()
    [0, 2, 1, 3, 4, 6, 5, 7]
    """
    halves = weight.reshape(heads, 2, -1, *weight.shape[1:])
    return np.ascontiguousarray(halves.swapaxes(1, 2).reshape(weight.shape))


def _frequency_divisors(config: Any) -> np.ndarray:
    """Return by what the scaling of Llama 3 divides each rotary frequency, [d/2]."""
    scaled, _ = ROPE_INIT_FUNCTIONS["llama3"](config, torch.device("cpu"))
    plain = config.rope_parameters["rope_theta"] ** -(torch.arange(len(scaled)) / len(scaled))
    return (plain / scaled).numpy()


def _kind_of(place: str, weight: np.ndarray, quantization: str) -> GGMLQuantizationType:
    """Return how a weight is stored: vectors in float32, rows that are no whole blocks in half precision."""
    if weight.ndim == 1:
        return GGMLQuantizationType.F32
    kind = GGMLQuantizationType[quantization.upper()]
    if quantization.startswith("q4") and place in _ENDS:
        kind = GGMLQuantizationType.Q8_0
    if quantization.startswith("q") and weight.shape[-1] % 32:
        return GGMLQuantizationType.F16
    return kind
