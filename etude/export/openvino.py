"""Writes a model of Llama's family as an OpenVINO graph with its tokenizer, by the GGUF reader of openvino-genai.

    etude models export MODEL --format openvino --out FOLDER [--quantization q8_0]

A GGUF file is written as by `--format gguf`, and openvino-genai converts its weights: blocks of 32 stay as they are rounded. The tokenizer
is converted from the model's own by openvino-tokenizers, since what the reader makes of GGUF's splits some texts at other places. (The
other way, optimum-intel, needs an older transformers than etude: docs/saved_models.md has its command.)
https://docs.openvino.ai/2026/openvino-workflow-generative/inference-with-genai.html
"""

from pathlib import Path
from tempfile import TemporaryDirectory

import openvino
import openvino_genai
from openvino_tokenizers import convert_tokenizer

from etude.errors import UserError
from etude.export.gguf import write_gguf
from etude.models.load import load_model
from etude.models.save import writable

_OTHER_WAY = "optimum-intel, in an environment of its own, knows them: optimum-cli export openvino --model FOLDER OUT"


def export(name: str, out: Path, quantization: str) -> None:
    """Write the model `name` to the folder `out`. Raises UserError for what GGUF files are not written of, and what OpenVINO can't read."""
    model, tokenizer = load_model(name)
    rope = getattr(model.config, "rope_parameters", None) or {}
    if (kind := rope.get("rope_type", "default")) != "default":
        raise UserError(f"{name} has positions of the kind {kind}, which OpenVINO's reader of GGUF takes for default: {_OTHER_WAY}")
    out.mkdir()
    with TemporaryDirectory(dir=out) as scratch:
        file = Path(scratch) / "model.gguf"
        write_gguf(name, model, tokenizer, file, quantization)
        try:
            openvino_genai.LLMPipeline(str(file), "CPU", enable_save_ov_model=True)
        except RuntimeError as error:
            raise UserError(f"openvino-genai can't read {name}: {str(error).strip().splitlines()[-1]}") from error
        for path in Path(scratch).glob("openvino_model.*"):
            path.rename(out / path.name)
    for graph, part in zip(convert_tokenizer(tokenizer, with_detokenizer=True), ("tokenizer", "detokenizer"), strict=True):
        openvino.save_model(graph, out / f"openvino_{part}.xml")
    writable(model.generation_config).save_pretrained(out)
