import pytest
import torch
import torch.nn.functional as F

from etude.engine.packed import PackedLinear, can_pack, fill, pack_linears

pytestmark = pytest.mark.skipif(not can_pack(torch.device("cpu"), torch.bfloat16), reason="this build of torch packs no weights")


def layer_of(bias, seed=0, shape=(48, 32), rows=5):
    """The second shape and few rows are computed by the engine's own kernel, where there are kernels."""
    generator = torch.Generator().manual_seed(seed)
    weight, x = (torch.randn(*each, generator=generator).bfloat16() for each in (shape, (rows, shape[1])))
    offset = torch.randn(shape[0], generator=generator).bfloat16() if bias else None
    packed = PackedLinear(*shape[::-1])
    packed.pack(weight, offset)
    return packed, weight, offset, x


@pytest.mark.parametrize("rows", [1, 3, 31, 50, 64, 65, 200, 300])
@pytest.mark.parametrize("width", [160, 672])  # in one stretch, and in three that are not of one length
@pytest.mark.parametrize("bias", [False, True])
def test_a_product_of_few_rows_equals_that_of_many(bias, width, rows):
    packed, weight, offset, x = layer_of(bias, shape=(96, width), rows=rows)
    other = torch.randn(rows, 96, generator=torch.Generator().manual_seed(3)).bfloat16()
    exact = F.linear(x.double(), weight.double(), None if offset is None else offset.double())
    torch.testing.assert_close(packed(x).double(), exact, atol=2e-4, rtol=2**-8)
    torch.testing.assert_close(packed(x[None]).double(), exact[None], atol=2e-4, rtol=2**-8)
    torch.testing.assert_close(packed.activated(x, "swish").double(), F.silu(exact), atol=2e-4, rtol=2**-7)
    torch.testing.assert_close(packed.then("add", x, other).double(), exact + other.double(), atol=2e-3, rtol=2**-8)
    torch.testing.assert_close(packed.then("mul", x, other).double(), exact * other.double(), atol=2e-3, rtol=2**-8)


@pytest.mark.parametrize("bias", [False, True])
def test_what_follows_a_product_is_computed_before_it_is_rounded(bias):
    packed, weight, offset, x = layer_of(bias)
    other = torch.randn(5, 48, generator=torch.Generator().manual_seed(3)).bfloat16()
    exact = F.linear(x.double(), weight.double(), None if offset is None else offset.double())
    torch.testing.assert_close(packed(x), F.linear(x, weight, offset), atol=0, rtol=2**-8)  # at most the last bit
    torch.testing.assert_close(packed(x[None, :2]), F.linear(x[None, :2], weight, offset), atol=0, rtol=2**-8)
    assert torch.equal(packed.weight, weight), "the plain weight can be read back"
    found = {"swish": packed.activated(x, "swish"), "add": packed.then("add", x, other), "mul": packed.then("mul", x, other)}
    expected = {"swish": F.silu(exact), "add": exact + other.double(), "mul": exact * other.double()}
    for name in found:
        torch.testing.assert_close(found[name].double(), expected[name], atol=2e-4, rtol=2**-8)


def test_a_models_linear_layers_are_filled_by_name(llama):
    weights = {name: weight.clone() for name, weight in llama.state_dict().items()}
    tokens = torch.tensor([[5, 6, 7, 8]])
    with torch.inference_mode():
        expected = llama.bfloat16()(tokens).logits
        packed = pack_linears(llama)
        fill(packed, weights)
        found = llama(tokens).logits
    assert {type(module) for name, module in llama.named_modules() if name.endswith("_proj")} == {PackedLinear}
    assert len(packed) == 2 * 7 + 1
    torch.testing.assert_close(found, expected, atol=0.05, rtol=0.02)
