"""Writes a model as a Hugging Face folder of 8-bit integers, by compressed-tensors, which vLLM and transformers read.

    etude models export MODEL --format int8 --out FOLDER

w8a8: the weights of a linear layer are rounded to int8 with one scale for each output, w ≈ s q, s = max |w| / 127.5, and the activations
with one scale for each token as the model runs (vLLM's int8 kernels, Dettmers et al. 2022, arXiv 2208.07339, section 2.1, vector-wise).
Embeddings, norms and the head are bfloat16. No calibration data.
"""

from pathlib import Path
from typing import Any

import torch
from compressed_tensors.compressors import ModelCompressor
from compressed_tensors.quantization import QuantizationConfig, apply_quantization_config, preset_name_to_scheme
from compressed_tensors.quantization.utils import calculate_qparams, is_module_quantized

from etude.errors import UserError
from etude.models.load import load_model
from etude.models.save import save_model


def export(name: str, out: Path, quantization: str) -> None:
    """Write the model `name` to the folder `out`. Raises UserError for a model without linear layers."""
    model, tokenizer = load_model(name)
    head = [place for place, module in model.named_modules() if module is model.get_output_embeddings()]
    scheme = preset_name_to_scheme(quantization.upper(), ["Linear"])
    apply_quantization_config(model, QuantizationConfig(config_groups={"linear": scheme}, ignore=head), show_progress=False)
    quantized: list[Any] = [module for module in model.modules() if is_module_quantized(module)]
    if not quantized:
        raise UserError(f"{name} is a {type(model).__name__} without linear layers (torch.nn.Linear), so nothing of it becomes int8")
    for layer in quantized:
        _set_scale(layer)
    compressor = ModelCompressor.from_pretrained_model(model)
    compressor.compress_model(model)
    for parameter in model.parameters():
        if parameter.is_floating_point():
            parameter.data = parameter.data.bfloat16()
    model.config.dtype = torch.bfloat16
    save_model(model, tokenizer, out)
    compressor.update_config(str(out))


@torch.no_grad()
def _set_scale(layer: Any) -> None:
    """Set the scale of each output to fit its largest weight; weights are rounded by the scale that is saved, in half precision."""
    least, most = layer.weight.aminmax(dim=-1, keepdim=True)
    scale, _ = calculate_qparams(least, most, layer.quantization_scheme.weights)
    layer.weight_scale.copy_(scale.bfloat16())
