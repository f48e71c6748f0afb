"""Writes a model as an ONNX graph with its tokenizer, by the model builder of onnxruntime-genai, in a process of its own.

    etude models export MODEL --format onnx --out FOLDER [--quantization int8]

int8 and int4: matrices in blocks of 32 weights, rounded without calibration data; fp32: the same weights. The builder has a table of
architectures and says which it lacks.
https://onnxruntime.ai/docs/genai/howto/build-model.html
"""

import os
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from etude.errors import UserError
from etude.models.load import load_model
from etude.models.save import save_model


def export(name: str, out: Path, quantization: str) -> None:
    """Write the model `name` to the folder `out`. Raises UserError, with the builder's last words, for what it can't build."""
    with TemporaryDirectory() as scratch:
        model, tokenizer = load_model(name)
        folder = save_model(model, tokenizer, Path(scratch) / "model")
        del model
        options = ["-i", str(folder), "-o", str(out), "-p", quantization, "-e", "cpu", "-c", str(Path(scratch) / "cache")]
        command = [sys.executable, "-P", "-m", "onnxruntime_genai.models.builder", *options, "--extra_options", "hf_remote=false"]
        done = subprocess.run(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=os.environ | {"HF_HUB_OFFLINE": "1"}
        )
    if done.returncode:
        raise UserError(f"onnxruntime-genai can't build {name}: {(done.stdout.strip() or 'it says nothing').splitlines()[-1]}")
