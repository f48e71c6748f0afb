"""Models between two models."""

import pytest
import torch

from etude.cli import main
from etude.errors import UserError
from etude.models.interpolation import GROUPS, best_factor, group_of, interpolate, interpolate_weights
from etude.models.load import load_model
from etude.models.save import save_model
from etude.tiny import tiny_model, tiny_tokenizer


@pytest.fixture
def ends(tmp_path):
    for name, seed in (("start", 0), ("end", 1)):
        save_model(tiny_model(seed), tiny_tokenizer(), tmp_path / name)
    (tmp_path / "end/etude.yaml").write_text("system: S\n")
    return str(tmp_path / "start"), str(tmp_path / "end")


def test_factors_0_and_1_give_the_ends_to_the_byte_and_the_way_of_asking_is_the_ends(ends, tmp_path):
    for factor, end in zip((0.0, 1.0), ends, strict=True):
        out = interpolate(*ends, tmp_path / f"at-{factor}", factor=factor)
        assert (out / "model.safetensors").read_bytes() == (tmp_path / end / "model.safetensors").read_bytes()
        assert (out / "etude.yaml").read_text() == "system: S\n"
    with pytest.raises(UserError, match=r"at-0\.0 exists already: name a new folder"):
        interpolate(*ends, tmp_path / "at-0.0", factor=0.5)


def test_groups_have_factors_of_their_own(ends, tmp_path, capsys):
    command = ["models", "interpolate", *ends, "--factor", "0.25", "--groups", "late=1", "head=0", "--out", str(tmp_path / "between")]
    assert main(command) == 0
    start, end, found = (load_model(name)[0].state_dict() for name in (*ends, str(tmp_path / "between")))
    for name, value in found.items():
        factor = {"late": 1.0, "head": 0.0}.get(group_of(name, 2, is_tied=False), 0.25)
        assert torch.allclose(value, (1 - factor) * start[name] + factor * end[name], atol=1e-6), name


def test_every_weight_belongs_to_a_group_and_both_models_have_the_same():
    groups = {name: group_of(name, 2, is_tied=False) for name in tiny_model().state_dict()}
    assert groups["model.embed_tokens.weight"] == "embeddings"
    assert groups["model.norm.weight"] == groups["lm_head.weight"] == "head"
    assert [group_of(f"model.layers.{layer}.mlp.up_proj.weight", 6, is_tied=True) for layer in range(6)] == [
        group for group in ("early", "middle", "late") for _ in range(2)
    ]
    assert group_of("lm_head.weight", 6, is_tied=True) == "embeddings" and set(groups.values()) <= set(GROUPS)
    with pytest.raises(UserError, match=r"the two models have other weights \(b and 0 more\)"):
        interpolate_weights({"a": torch.ones(1)}, {"a": torch.ones(1), "b": torch.ones(1)}, lambda _: 0.5)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ([], "interpolate needs --factor"),
        (["--factor", "2"], "--factor must be in [0, 1], got 2.0"),
        (["--factor", "half"], "--factor must be a number in [0, 1], got 'half'"),
        (["--groups", "laet=1"], "did you mean 'late'?"),
    ],
)
def test_wrong_factors_are_told_in_one_sentence(ends, tmp_path, capsys, options, said):
    assert main(["models", "interpolate", *ends, *options, "--out", str(tmp_path / "out")]) == 2
    assert said in capsys.readouterr().err and not (tmp_path / "out").exists()


def test_the_factor_of_most_skill_that_keeps_the_knowledge_is_chosen():
    knowledge = {0.0: 0.50, 0.25: 0.495, 0.5: 0.49, 0.75: 0.48, 1.0: 0.40}
    skill = {0.0: 0.1, 0.25: 0.3, 0.5: 0.3, 0.75: 0.5, 1.0: 0.6}
    assert best_factor(lambda a: (skill[a], knowledge[a]), [0.25, 0.5, 0.75, 1.0]).factor == 0.25  # of equal ones the lowest
    assert best_factor(lambda a: (skill[a], knowledge[a]), [0.75, 1.0], keeps=0.96).factor == 0.75
    assert best_factor(lambda a: (skill[a], knowledge[a]), [1.0]).factor == 0.0
