"""What a checkpoint holds comes back, also where transformers writes weights under other names than it computes with."""

import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from etude.errors import UserError
from etude.learn.example import demonstration
from etude.learn.learner import Learner, OptimizerSettings, Stream
from etude.learn.losses import negative_log_likelihood
from etude.tasks.sources import TaskSource
from etude.training.checkpoints import load_checkpoint, save_checkpoint
from etude.training.run_folder import RunFolder
from etude.training.saving import save_asked
from etude.training.settings import PracticeSettings

SETTINGS = PracticeSettings(tasks=TaskSource(family="gcd"))


def save(folder, model, tokenizer, state):
    progress = {"order": 3, "step": 3}
    save_checkpoint(folder, "step-00003", model, state, progress, save=lambda path: save_asked(model, tokenizer, path, SETTINGS))


@pytest.mark.parametrize("family", ["llama", "qwen3", "lfm2", "qwen3-moe"])
def test_weights_and_progress_come_back(model_of, tokenizer, tmp_path, family):
    folder, model, other = RunFolder(tmp_path), model_of(family, seed=0), model_of(family, seed=1)
    learner = learner_of(model)
    learner.update([demonstration((5, 6), (7, 8))])
    save(folder, model, tokenizer, {"optimizer": learner})
    fresh = learner_of(other)
    assert load_checkpoint(folder.checkpoint("step-00003"), other, {"optimizer": fresh})["step"] == 3
    assert fresh.updates == 1
    for name, value in learner.state_dict().items():
        assert torch.equal(fresh.state_dict()[name], value), name
    for name, value in model.state_dict().items():
        assert torch.equal(other.state_dict()[name], value), name


def learner_of(model):
    return Learner(model, OptimizerSettings(), [Stream("imitate", negative_log_likelihood)])


@pytest.fixture
def kept(model_of, tokenizer, tmp_path):
    """A run folder with a checkpoint of a trained model, and the checkpoint."""
    folder, model = RunFolder(tmp_path / "kept"), model_of("llama", seed=0)
    learner = learner_of(model)
    learner.update([demonstration((5, 6), (7, 8))])
    save(folder, model, tokenizer, {"optimizer": learner})
    return folder.checkpoint("step-00003")


def flip(path):
    content = bytearray(path.read_bytes())
    content[-7] ^= 1
    path.write_bytes(bytes(content))


@pytest.mark.parametrize(
    ("file", "damage", "said"),
    [
        ("model.safetensors", flip, r"model\.safetensors is not what was written"),
        ("learner.safetensors", flip, r"learner\.safetensors is not what was written"),
        ("config.json", flip, r"config\.json is not what was written"),
        ("model.safetensors", lambda path: path.unlink(), r"model\.safetensors is missing"),
        ("model.safetensors", lambda path: shutil.copy(path, path.with_name("model-2.safetensors")), "model-2.* does not belong to it"),
    ],
)
def test_damage_is_one_sentence_with_the_way_out(kept, model_of, file, damage, said):
    damage(kept / file)
    model = model_of("llama", seed=1)
    with pytest.raises(UserError, match=rf"step-00003 is damaged \({said}\): remove this folder and resume again"):
        load_checkpoint(kept, model, {"optimizer": learner_of(model)})


@pytest.mark.parametrize("family", ["llama", "qwen3", "lfm2", "qwen3-moe"])
def test_a_weight_that_is_missing_is_seen_where_an_older_version_wrote_no_checksums(model_of, tokenizer, tmp_path, family):
    folder, model = RunFolder(tmp_path), model_of(family, seed=0)
    save(folder, model, tokenizer, {})
    checkpoint = folder.checkpoint("step-00003")
    (checkpoint / "progress.json").write_text('{"order": 3, "step": 3}')
    assert load_checkpoint(checkpoint, model_of(family, seed=1))["step"] == 3
    weights = load_file(checkpoint / "model.safetensors")
    lost = next(name for name in weights if "layers.0" in name and "norm" not in name and "expert" not in name)
    save_file({name: value for name, value in weights.items() if name != lost}, checkpoint / "model.safetensors", {"format": "pt"})
    with pytest.raises(UserError, match=r"step-00003 is damaged \(the weight .* is missing\)"):
        load_checkpoint(checkpoint, model_of(family, seed=1))


def test_a_checkpoint_of_an_older_version_has_letters_for_names(kept, model_of):
    tensors = load_file(kept / "learner.safetensors")
    assert all(name.startswith("optimizer.") for name in tensors)
    old = {f"o.{name.removeprefix('optimizer.')}": value for name, value in tensors.items()}
    save_file(old | {"g.falls": torch.tensor(2), "g.held": torch.tensor(3)}, kept / "learner.safetensors")
    (kept / "progress.json").write_text('{"order": 3, "step": 3}')
    state = {name: Keeps() for name in ("gate", "run")}
    model = model_of("llama", seed=1)
    learner = learner_of(model)
    load_checkpoint(kept, model, {"optimizer": learner, **state})
    assert learner.updates == 1
    assert state["gate"].tensors == {"falls": torch.tensor(2)} and state["run"].tensors == {"held": torch.tensor(3)}


class Keeps:
    """Keeps what it is given."""

    def load_state_dict(self, tensors):
        self.tensors = dict(tensors)
