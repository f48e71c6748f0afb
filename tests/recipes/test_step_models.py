"""Searches by what a step model says, and the file that it is saved in."""

import pytest
import torch
from safetensors.torch import load_file, save_file

from etude.decoding.search import search_answers
from etude.decoding.search_settings import AnswerSearch
from etude.device.machine import Device, Machine
from etude.engine.sampling import Sampling
from etude.engine.transformers import TransformersEngine
from etude.errors import UserError
from etude.learn.step_model import Prefixes, StepModel, StepModelSettings
from etude.models.load import load_model
from etude.models.save import save_model
from etude.recipes.evaluate import evaluate
from etude.recipes.generate import GenerateSettings, generate
from etude.rollouts.search.beam import beam
from etude.rollouts.search.growing import search
from etude.rollouts.search.mcts import mcts
from etude.rollouts.steps import Steps
from etude.rollouts.tree import Tree
from etude.tasks.answers import comparable_answer
from etude.tasks.task import Task
from etude.tasks.votes import majority
from etude.training.step_model_files import load_step_model, save_step_model, value_by

HOT = Sampling(temperature=1.0)
ANSWERS = [Prefixes((5, 6), (7, 8, 9), (0, 1, 3)), Prefixes((4,), (), (0,))]
HERE = Device("cpu", "float32")


class Prescribed:
    """Values of texts, written down; `asked` are those that it was asked for."""

    def __init__(self, values):
        self.given, self.asked = values, []

    def values(self, answers):
        texts = ["".join(map(chr, answer.tokens[:end])) for answer in answers for end in answer.ends]
        self.asked += texts
        return [(self.given.get(text, 0.0),) for text in texts]


def letters(wanted):
    """An `a`, a `b` and so on behind every prefix; answers have two letters."""
    found = [[tree.add(growth.node, [ord("ab"[n % 2])], [-0.1], key=0) for n in range(growth.width)] for tree, growth in wanted]
    for node in (node for nodes in found for node in nodes):
        node.finish = "stop" if len(node.own_tokens) == 2 else None
    return found


def grown(rule, values):
    tree, model = Tree(Task("?"), [1], lambda tokens: "".join(map(chr, tokens))), Prescribed(values)
    search([tree], rule, letters, value_by(model), most_tokens=lambda tree, growth: 1)
    return {tree.text_of(node) for node in tree.ends()}, model.asked


def test_a_beam_goes_on_from_the_beginning_that_the_step_model_prefers():
    found, asked = grown(lambda tree: beam(tree, beams=1, width=2), {"a": 0.2, "b": 0.7, "ba": 0.3, "bb": 0.9})
    assert found <= {"ba", "bb"} and found and set(asked) <= {"a", "b", "ba", "bb"}
    found, _ = grown(lambda tree: beam(tree, beams=1, width=2), {"a": 0.8, "b": 0.7})
    assert found <= {"aa", "ab"} and found


def test_a_tree_search_of_single_steps_descends_by_what_the_step_model_says():
    found, asked = grown(lambda tree: mcts(tree, simulations=2, width=2, exploration=0.1, to_end=False), {"b": 0.9, "a": 0.1})
    assert found and all(text.startswith("b") for text in found) and {"a", "b"} <= set(asked)


@pytest.fixture(scope="module")
def saved(small, tmp_path_factory):
    """The model folder of a run with a step model, and that step model as it was at the end."""
    folder = tmp_path_factory.mktemp("saved") / "run"
    small(folder, {"step_model": True, "step_model.hidden": 8, "rollout.search.steps.end": "tokens"})
    return folder / "model"


@pytest.mark.parametrize("kind", ["policy", "own"])
def test_a_saved_step_model_says_the_same(llama, tokenizer, tmp_path, kind):
    made = StepModel(llama, StepModelSettings(backbone=kind, hidden=4))
    with torch.no_grad():
        made.head.layers[-1].weight.normal_()
        if kind == "own":
            made.backbone.model.norm.weight.mul_(torch.linspace(0.5, 2, 32))
    save_step_model(made, tokenizer, save_model(llama, tokenizer, tmp_path / "model"))
    loaded, _ = load_model(str(tmp_path / "model"))
    assert load_step_model(str(tmp_path / "model"), loaded, HERE, Machine()).values(ANSWERS) == made.values(ANSWERS)
    assert not list((tmp_path / "model").rglob("*.bin")) and not list((tmp_path / "model").rglob("*.pt"))


def test_a_saved_step_model_that_is_damaged_or_of_another_model_is_told(saved, llama, tokenizer, tmp_path):
    save_model(llama, tokenizer, tmp_path / "model")
    with pytest.raises(
        UserError, match=r"has none \(no step_model.safetensors in its folder\): name one that practised with the callback step_model, or"
    ):
        load_step_model(str(tmp_path / "model"), llama, HERE, Machine())
    file = tmp_path / "model" / "step_model.safetensors"
    for content in (b"", b"\x00" * 40, (saved / file.name).read_bytes()):  # the last is of another width
        file.write_bytes(content)
        with pytest.raises(UserError, match="is damaged, or of another model"):
            load_step_model(str(tmp_path / "model"), llama, HERE, Machine())
    save_file(load_file(saved / file.name), file)  # without what it says of itself
    with pytest.raises(UserError, match="is damaged, or of another model"):
        load_step_model(str(tmp_path / "model"), llama, HERE, Machine())


def answers_of(folder, how, by_step_model):
    model, tokenizer = load_model(str(folder))
    options = {"num_samples": 9, "max_new_tokens": 3, "sampling": HOT, "names": (4,), "room_tokens": 99, "by_step_model": by_step_model}
    return search_answers(TransformersEngine(model, tokenizer), [(Task("a"), (9, 10, 11)), (Task("b"), (20, 21))], how, **options)


@pytest.mark.parametrize("choose", ["step_model", "weighted"])
def test_the_answer_is_that_of_which_the_step_model_expects_most(saved, choose):
    def worth(pairs):
        return [sum(node.own_tokens) % 11 / 10 for _, node in pairs]

    for answer in answers_of(saved, AnswerSearch("samples", choose=choose), worth):
        votes = [node for node in answer.tree.ends() for _ in node.keys]
        values = worth([(answer.tree, node) for node in votes])
        texts = [answer.tree.text_of(node) for node in votes]
        best = majority([comparable_answer(text) for text in texts], values) if choose == "weighted" else values.index(max(values))
        assert answer.text == texts[best]


def test_votes_that_all_weigh_the_same_are_plain_votes(saved):
    plain = answers_of(saved, AnswerSearch("samples"), None)
    weighted = answers_of(saved, AnswerSearch("samples", choose="weighted"), lambda pairs: [0.5 for _ in pairs])
    assert [answer.text for answer in weighted] == [answer.text for answer in plain]


@pytest.mark.parametrize(
    "search",
    [
        {"method": "beam", "value": "step_model"},
        {"method": "mcts", "value": "step_model", "to_end": False},
        {"method": "samples", "choose": "step_model"},
        {"method": "samples", "choose": "weighted"},
        {"method": "tree", "value": "step_model", "choose": "value"},
    ],
)
def test_evaluate_and_generate_search_by_the_step_model_of_the_folder(saved, search):
    how = AnswerSearch(**search, steps=Steps("tokens", max_tokens=1))
    settings = GenerateSettings(num_samples=4, max_new_tokens=4, sampling=HOT, search=how, machine=Machine(dtype="float32"))
    rows = generate(str(saved), ["repeat c after 1234: c"], settings)
    assert rows == generate(str(saved), ["repeat c after 1234: c"], settings) and rows[0]["search"]["answers"] >= 1
    given = {"recipe": "tiny", "evaluation.n": 10, "evaluation.pass_n": 0, "evaluation.num_samples": 3, "machine.dtype": "float32"}
    given |= {f"search.{name}": value for name, value in search.items()} | {"search.steps.end": "tokens", "search.steps.max_tokens": 1}
    assert 0 <= evaluate(str(saved), given)["evaluation"][0]["search_accuracy"] <= 1
