"""What is said of every method that makes an answer of several, and what is said of each."""

import dataclasses
import inspect
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch

from etude.decoding.abstain import abstain
from etude.decoding.best_logprob import best_logprob
from etude.decoding.clusters import clusters
from etude.decoding.context_contrast import context_contrast
from etude.decoding.controls import WORDINGS, integrative_original, integrative_same_sample, integrative_unrelated
from etude.decoding.decode import decode
from etude.decoding.integrative import integrative, integrative_mean_prob
from etude.decoding.layer_candidates import layer_candidates
from etude.decoding.layer_contrast import layer_contrast_dynamic, layer_contrast_static
from etude.decoding.majority import majority
from etude.decoding.methods import METHODS
from etude.decoding.sample_pool import SamplePool
from etude.decoding.self_reflection import WORDS, self_reflection
from etude.decoding.settings import ReliableDecoding
from etude.decoding.universal_self_consistency import universal_self_consistency
from etude.engine.completion import Completion
from etude.engine.joint import JOINS
from etude.engine.sampling import GREEDY, Sampling
from etude.engine.transformers import TransformersEngine
from etude.errors import UserError
from etude.rollouts.prompts import render_prompt
from etude.tasks.task import Task

TASKS = [
    Task("2 + 2?", "4"),
    Task("Who wrote Emma?", "Jane Austen", instruction="One line."),
    Task("Is it?", "yes", metadata={"evidence": "It is, we think."}),
    Task("Where?", "here"),
]
SIZES = {"max_new_tokens": 8, "room_tokens": 900}


@pytest.fixture
def engine(model_of, chat_tokenizer):
    return TransformersEngine(model_of("qwen3", max_position_embeddings=1024, num_hidden_layers=5), chat_tokenizer)


def items_of(engine, tasks=TASKS):
    return [(task, render_prompt(engine.tokenizer, task)) for task in tasks]


def asking(engine):
    return SIZES | {"names": (3,), "logprobs": partial(own_logprobs, engine)}


@torch.no_grad()
def own_logprobs(engine, pairs):
    """Of completions, each in a pass of its own."""
    found = []
    for prompt, completion in pairs:
        logprobs = engine._model(torch.tensor([[*prompt, *completion]])).logits[0].log_softmax(-1)
        places = range(len(prompt) - 1, len(prompt) + len(completion) - 1)
        found.append(tuple(float(logprobs[place, token]) for place, token in zip(places, completion, strict=True)))
    return found


def pool_of(engine, tasks=TASKS, temperature=1.0, **changes):
    prompts = [prompt for _, prompt in items_of(engine, tasks)]
    return SamplePool(engine, tasks, prompts, samples=Sampling(temperature=temperature), **(asking(engine) | changes))


def texts_of(found):
    return [sample.text for sample in found.samples]


def says(pool, monkeypatch, texts):
    """The samples of every question read as these texts."""
    order = {}

    def sample(prefix):
        text = texts[order.setdefault(id(prefix), len(order)) % len(texts)]
        return Completion(prefix.own_tokens, prefix.own_logprobs, text, prefix.finish or "length", 0, 0)

    monkeypatch.setattr(pool, "sample", sample)
    return pool


def joint_of(engine, inputs, name="product"):
    prefixes = iter(engine.open([tokens for group in inputs for tokens in group]))
    groups = [[next(prefixes) for _ in group] for group in inputs]
    found = engine.extend_joint(groups, 8, sampling=GREEDY, keys=[0] * len(groups), join=JOINS[name])
    return [joint.completion.text for joint in found]


# ---------------------------------------------------------------------- every method


@pytest.mark.parametrize("method", METHODS)
def test_every_method_answers_each_question_and_twice_the_same(engine, method):
    how = ReliableDecoding(method, k=3)
    found = decode(engine, items_of(engine), how, **asking(engine))
    assert len(found) == len(TASKS)
    assert found == decode(engine, items_of(engine), how, **asking(engine))
    for each in found:
        if method == "abstain" and each.answer.text is None:
            continue
        assert isinstance(each.answer.text, str) and each.answer.finish in ("stop", "length")
        assert len(each.samples) == (1 if method == "integrative_same_sample" else 3 if "sampling" in METHODS[method].reads else 0)
        assert each.sampled_tokens >= len(each.answer.tokens) > 0


@pytest.mark.parametrize("method", METHODS)
def test_parts_of_questions_and_each_alone_get_the_answers_that_all_get_at_once(engine, method):
    how, items = ReliableDecoding(method, k=2), items_of(engine)
    at_once = decode(engine, items, how, **asking(engine))
    engine.batch_tokens = 1
    in_parts = decode(engine, items, how, **asking(engine))
    assert [texts_of(each) for each in in_parts] == [texts_of(each) for each in at_once]
    if method != "integrative_unrelated":  # whose questions stand beside others
        alone = [decode(engine, [item], how, **asking(engine))[0] for item in items]
        for found in (in_parts, alone):
            assert [(each.answer.text, texts_of(each)) for each in found] == [(each.answer.text, texts_of(each)) for each in at_once]


@pytest.mark.parametrize("method", METHODS)
def test_a_method_reads_the_settings_that_it_names_and_no_others(method):
    reads = METHODS[method].reads
    taken = [name for name in inspect.signature(METHODS[method].answer).parameters if name != "pool"]
    assert sorted(taken) == sorted(set(reads) - {"sampling", "embedder"})  # which the pool has
    every = {each.name for each in dataclasses.fields(ReliableDecoding)} - {"method"}
    assert {name.strip(".") for name in ReliableDecoding(method, confidence="clusters").unread} == every - set(reads)


@pytest.mark.parametrize("method", ["majority", "best_logprob", "universal_self_consistency"])
def test_of_one_sample_that_is_what_is_chosen(engine, method):
    for found in decode(engine, items_of(engine), ReliableDecoding(method, k=1), **asking(engine)):
        assert [found.answer.text] == texts_of(found)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"method": "integrativ"}, "unknown decoding.method 'integrativ': did you mean 'integrative'"),
        ({"method": "majority", "k": 0}, "decoding.k must be at least 1, got 0"),
        ({"method": "random_layer", "strength": -1.0}, "decoding.strength must be 0 .plain decoding. or more, got -1.0"),
        ({"method": "random_layer", "plausible": 2.0}, "decoding.plausible must be in .0, 1., got 2.0"),
        ({"method": "majority", "sampling": GREEDY}, "makes an answer of 4 samples, but at temperature 0 all are equal"),
    ],
)
def test_what_makes_no_sense_is_one_sentence(settings, message):
    with pytest.raises(UserError, match=message):
        ReliableDecoding(**settings)
    assert ReliableDecoding("integrative", k=1, sampling=GREEDY).is_on, "one sample may be the greedy one"
    assert ReliableDecoding("integrative_same_sample", sampling=GREEDY).is_on


# ---------------------------------------------------------------------- the pool


def test_the_first_samples_do_not_depend_on_k(engine):
    few, many = pool_of(engine), pool_of(engine)
    two, then, five = few.samples(2), few.samples(5), many.samples(5)
    texts = [[[few.sample(each).text for each in own] for own in samples] for samples in (two, then, five)]
    assert texts[1] == texts[2] and texts[0] == [own[:2] for own in texts[1]]
    assert few.sampled_tokens == many.sampled_tokens == [sum(len(each.own_tokens) for each in own) for own in five]


# ---------------------------------------------------------------------- integrative


def inputs_by_hand(engine, pool, again):
    """<user>question<assistant>sample<end><user>again, question<assistant>, as ids."""
    inputs = []
    for task, samples in zip(pool.tasks, pool.taken, strict=True):
        question = task.question + (f"\n\n{task.instruction}" if task.instruction else "")
        words = engine.tokenizer(f"<user>{again}\n\n{question}<assistant>", add_special_tokens=False)["input_ids"]
        head = engine.tokenizer(f"<user>{question}<assistant>", add_special_tokens=False)["input_ids"]
        ended = [(*head, *each.own_tokens) if each.finish == "stop" else (*head, *each.own_tokens, 1) for each in samples]
        inputs.append([(*tokens, *words) for tokens in ended])
    return inputs


@pytest.mark.parametrize(("method", "join"), [(integrative, "product"), (integrative_mean_prob, "mean")])
def test_every_input_shows_the_model_a_sample_as_its_own_answer_and_asks_again(engine, method, join):
    pool = pool_of(engine)
    found = method(pool, 3, again="Once more.")
    assert [each.text for each in found] == joint_of(engine, inputs_by_hand(engine, pool, "Once more."), join)
    assert all(len(each.agreement) == len(each.tokens) for each in found)
    assert found[0].text != engine.generate(pool.prompts, max_new_tokens=8, sampling=GREEDY)[0][0].text


def test_only_tokens_after_a_sample_are_prefilled(engine):
    pool = pool_of(engine)
    drawn = pool.samples(3)
    behind = [[len(tokens) - len(sample.tokens) for tokens, sample in zip(own, samples, strict=True)]
              for own, samples in zip(inputs_by_hand(engine, pool, "Once more."), drawn, strict=True)]  # fmt: skip
    before = engine.computed_tokens
    found = integrative(pool, 3, again="Once more.")
    last_of_samples, decoded = sum(map(len, behind)), sum(3 * (len(each.tokens) - 1) for each in found)
    assert engine.computed_tokens - before == sum(map(sum, behind)) + last_of_samples + decoded


def test_in_one_message_the_sample_is_between_the_question_and_its_repetition(engine, monkeypatch):
    pool = says(pool_of(engine, TASKS[:2]), monkeypatch, ["<user>so", "four"])
    found = integrative(pool, 2, again="Again:", layout="one_message")
    text = "<user>{0}\n\n{1}\n\nAgain:\n\n{0}{2}<assistant>"
    ends = ("", "\n\nOne line.")
    inputs = [[text.format(task.question, said, end) for said in ("< user>so", "four")] for task, end in zip(TASKS, ends, strict=False)]
    ids = [[engine.tokenizer(each, add_special_tokens=False)["input_ids"] for each in own] for own in inputs]
    assert [each.text for each in found] == joint_of(engine, ids)


def test_a_question_is_answered_as_soon_as_its_samples_agree(engine, monkeypatch):
    tasks = [Task("2 + 2?", "4", verifier="numeric"), Task("3 + 3?", "6", verifier="numeric"), Task("1 + 1?", "2", verifier="numeric")]
    said = {0: ["4", "it is 4", "5", "5", "5"], 1: ["6", "7", "6", "6", "6"], 2: ["no", "none", "2", "2", "2"]}
    pool, order = pool_of(engine, tasks), {}

    def sample(prefix):
        place = next(place for place, own in enumerate(pool.taken) if any(each is prefix for each in own))
        text = said[place][order.setdefault(id(prefix), [each is prefix for each in pool.taken[place]].index(True))]
        return Completion(prefix.own_tokens, prefix.own_logprobs, text, "stop", 0, 0)

    monkeypatch.setattr(pool, "sample", sample)
    found = integrative(pool, 5, stop_agreed=True)
    assert [len(own) for own in pool.taken] == [2, 5, 5]
    assert found[0].text == "4" and found[0].notes == ("its first 2 samples agree",) and not found[0].agreement
    plain = integrative(pool, 5)
    assert [each.text for each in found[1:]] == [each.text for each in plain[1:]] and len(pool.taken[0]) == 5
    monkeypatch.setitem(said, 1, ["6"] * 5)
    again = integrative(pool, 5, stop_agreed=True)
    assert [bool(each.notes) for each in again] == [True, True, False]


def test_samples_that_are_the_same_weigh_more_and_cost_once(engine):
    pool = pool_of(engine, temperature=0.0)
    found = integrative(pool, 4)
    assert [each.text for each in found] == [each.text for each in integrative_same_sample(pool_of(engine, temperature=0.0))]
    assert all(set(each.agreement) == {1.0} for each in found)


def test_without_samples_one_wording_is_plain_decoding_and_more_are_an_ensemble(engine):
    plain = [each[0].text for each in engine.generate(pool_of(engine).prompts, max_new_tokens=8, sampling=GREEDY)]
    assert [each.text for each in integrative_original(pool_of(engine), 1)] == plain
    wordings = [[render_prompt(engine.tokenizer, dataclasses.replace(task, prompt=wording.format(question=task.question)))
                 for wording in WORDINGS[:3]] for task in TASKS]  # fmt: skip
    assert [each.text for each in integrative_original(pool_of(engine), 3)] == joint_of(engine, wordings)
    assert integrative_original(pool_of(engine, [Task("What is {x} in {}?")]), 3)[0].text is not None
    assert len(WORDINGS) == len(set(WORDINGS)) == 16 and all(wording.count("{question}") == 1 for wording in WORDINGS)


def test_unrelated_samples_are_those_of_the_next_question(engine):
    pool = pool_of(engine, TASKS[:2])
    found = integrative_unrelated(pool, 2, again="Once more.")
    own = inputs_by_hand(engine, pool, "Once more.")
    crossed = []
    for place, inputs in enumerate(own):
        head, other = pool.prompts[place], 1 - place
        ends = [tokens[len(sample.tokens) + (sample.finish != "stop") :] for tokens, sample in zip(inputs, pool.taken[place], strict=True)]
        crossed.append([(*head, *said.own_tokens, *(() if said.finish == "stop" else (1,)), *ends[0]) for said in pool.taken[other]])
    assert [each.text for each in found] == joint_of(engine, crossed)
    with pytest.raises(UserError, match="ask two"):
        integrative_unrelated(pool_of(engine, TASKS[:1] * 2), 2)
    twice = integrative_unrelated(pool_of(engine, [TASKS[0], TASKS[0], TASKS[1]]), 2, again="Once more.")
    assert [each.text for each in twice] == [found[0].text, found[0].text, found[1].text]  # the next one that is another


def test_an_empty_sample_makes_no_input_and_without_inputs_there_is_no_answer(engine, monkeypatch):
    pool = pool_of(engine, TASKS[:1])
    pool.samples(2)
    expected = joint_of(engine, [inputs_by_hand(engine, pool, "Once more.")[0][:1]])
    (some,) = integrative(says(pool, monkeypatch, ["something", "  \n"]), 2, again="Once more.")
    assert [some.text] == expected and some.notes == ("1 of 2 samples say nothing or leave no room",)
    (none,) = integrative(says(pool_of(engine, TASKS[:1]), monkeypatch, [" "]), 3)
    assert none.text is None and none.notes == ("no sample says anything that leaves room for an answer",)


def test_an_input_that_leaves_no_room_is_left_out(engine):
    pool = pool_of(engine, TASKS[:2], room_tokens=len(TASKS[0].question) * 2 + 8 + 95)
    words = "x" * 74
    short, long = integrative(pool, 2, again=words)
    assert short.text is not None and long.text is None
    assert integrative(pool_of(engine, TASKS[:2]), 2, again=words)[0].text == short.text


# ---------------------------------------------------------------------- choosing and asking


def test_the_majority_counts_answers_by_what_they_say(engine, monkeypatch):
    tasks = [Task("2 + 2?", "4", verifier="numeric")]
    (found,) = majority(says(pool_of(engine, tasks), monkeypatch, ["It is 5.", "", "4.0", "So, 4"]), 4)
    assert (found.text, found.confidence) == ("4.0", 0.5)
    (none,) = majority(says(pool_of(engine, tasks), monkeypatch, ["none", "who knows"]), 2)
    assert (none.text, none.confidence) == (None, 0.0) and none.notes


def test_the_likeliest_sample_is_that_of_the_best_mean_at_temperature_1(engine):
    pool = pool_of(engine, temperature=2.0)
    for found, samples, prompt in zip(best_logprob(pool, 5), pool.samples(5), pool.prompts, strict=True):
        means = [np.mean(own) for own in own_logprobs(engine, [(prompt, each.own_tokens) for each in samples])]
        assert found.text == pool.sample(samples[int(np.argmax(means))]).text


# ---------------------------------------------------------------------- layers


def test_one_set_of_layers_is_the_dynamic_contrast_over_every_other(engine):
    (one,) = {each.text for each in layer_candidates(pool_of(engine, TASKS[:1]), 1, "agreement", 1.0, 0.1, True)}
    (others,) = layer_contrast_dynamic(pool_of(engine, TASKS[:1]), [2, 4], "low", 1.0, 0.1, True)
    assert one == others.text


def test_candidates_are_made_once_however_they_are_chosen(engine, monkeypatch):
    pool, calls = pool_of(engine), []
    monkeypatch.setattr(
        pool.engine, "generate", lambda *given, real=pool.engine.generate, **named: calls.append(1) or real(*given, **named)
    )
    for choose in ("agreement", "likelihood", "cycle"):
        layer_candidates(pool, 2, choose, 1.0, 0.1, True)
    assert len(calls) == 2


def test_without_strength_every_contrast_is_plain_decoding(engine):
    plain = [each[0].text for each in engine.generate(pool_of(engine).prompts, max_new_tokens=8, sampling=GREEDY)]
    for method in ("layer_contrast_static", "layer_contrast_dynamic", "random_layer", "layer_candidates"):
        found = decode(engine, items_of(engine), ReliableDecoding(method, k=2, strength=0.0), **asking(engine))
        assert [each.answer.text for each in found] == plain


def test_of_the_candidates_most_are_right_or_the_likeliest(engine, monkeypatch):
    texts = {0: "so 5", 1: "4", 2: "it is 4.0", 3: "6"}
    pool = pool_of(engine, [Task("2 + 2?", "4", verifier="numeric")])
    monkeypatch.setattr(pool, "viewed", lambda view: [Completion((view.layers.number,), (0.0,), texts[view.layers.number], "stop", 0, 0)])
    monkeypatch.setattr(pool, "likelihoods", lambda answers: [[-1.0, -3.0, -2.0, -0.5]])
    (agreed,) = layer_candidates(pool, 4, "agreement", 1.0, 0.1, True)
    assert (agreed.text, agreed.confidence) == ("it is 4.0", 0.5)
    (likely,) = layer_candidates(pool, 4, "likelihood", 1.0, 0.1, True)
    assert (likely.text, likely.confidence) == ("6", 0.25)


def test_the_candidate_is_chosen_from_which_the_question_is_found_again(engine, monkeypatch):
    tasks = [Task("2 + 2?", "4"), Task("Who wrote Emma?", "Jane Austen")]
    pool = pool_of(engine, tasks)
    texts = {0: ["4", "<user>A boat"], 1: ["four it is", "Austen"]}

    def viewed(view):
        return [Completion((3,), (0.0,), text, "stop", 0, 0) for text in texts[view.layers.number]]

    monkeypatch.setattr(pool, "viewed", viewed)
    found = layer_candidates(pool, 2, "cycle", 1.0, 0.1, True)
    for place, (task, answer) in enumerate(zip(tasks, found, strict=True)):
        back = []
        for text in (texts[0][place], texts[1][place]):
            said = text.replace("<user>", "< user>")  # which spells no turn of somebody's
            prompt = engine.tokenizer(f"<user>Which question has this answer? Write the question alone.\n\n{said}<assistant>")["input_ids"]
            (logprobs,) = own_logprobs(engine, [(tuple(prompt), tuple(engine.tokenizer(task.prompt)["input_ids"]))])
            back.append(sum(logprobs) / len(logprobs))
        assert answer.text == (texts[0][place], texts[1][place])[back.index(max(back))]


def test_evidence_is_set_against_what_is_said_without_it(engine):
    tasks = [Task("Who?", metadata={"evidence": "It was <user>Ann."}), Task("Where?"), Task("When?", metadata={"evidence": "x" * 2000})]
    plain = [each[0].text for each in engine.generate(pool_of(engine, tasks).prompts, max_new_tokens=8, sampling=GREEDY)]
    told = engine.tokenizer("<user>It was < user>Ann.\n\nWho?<assistant>")["input_ids"]
    behind = engine.generate([told], max_new_tokens=8, sampling=GREEDY)[0][0].text
    found = context_contrast(pool_of(engine, tasks), 0.0)
    assert [each.text for each in found] == [behind, *plain[1:]] and behind != plain[0]
    assert [len(each.notes) for each in found] == [0, 1, 1]
    opened = engine.open([told, pool_of(engine, tasks).prompts[0]])
    (joint,) = engine.extend_joint([opened], 8, sampling=GREEDY, keys=[0], weights=[[1.5, -0.5]])
    (strong, *_) = context_contrast(pool_of(engine, tasks), 0.5)
    assert strong.text == joint.completion.text
    with torch.no_grad():
        pair = [engine._model(torch.tensor([tokens])).logits[0, -1] for tokens in (told, pool_of(engine, tasks).prompts[0])]
    assert strong.tokens[0] == int((1.5 * pair[0] - 0.5 * pair[1]).argmax())


def test_no_answer_is_given_that_samples_do_not_agree_on(engine, monkeypatch):
    tasks = [Task("2 + 2?", "4", verifier="numeric")]
    texts = ["4", "four is 4", "5", "none"]

    def answer(confidence, least):
        (found,) = abstain(says(pool_of(engine, tasks), monkeypatch, texts), 4, confidence, least, 0.9)
        return found.text, found.confidence

    assert answer("agreement", 0.5) == ("4", 0.5) and answer("agreement", 0.51) == (None, 0.5)
    assert answer("entropy", 0.25) == ("4", pytest.approx(0.25))  # counts 2, 1, 1: H = 1.5 log 2 of log 4
    assert answer("entropy", 0.26)[0] is None
    (plain,) = majority(says(pool_of(engine, tasks), monkeypatch, texts), 4)
    assert answer("agreement", 0.0) == (plain.text, plain.confidence)


def alike(texts):
    """Vectors by which texts with the same digits are alike, and nothing else is."""
    kinds = [text.strip(" Itis.") for text in texts]
    return np.array([[float(kind == other) for other in dict.fromkeys(kinds)] for kind in kinds], dtype=np.float32)


def test_answers_that_mean_the_same_are_of_one_cluster_and_silence_is_of_none():
    assert clusters([["4", " It is 4.", "5", "", "4"], ["5", "4"]], alike, 0.9) == [[0, 0, 1, None, 0], [0, 1]]
    assert clusters([["", " "]], alike, 0.9) == [[None, None]]

    def chain(texts):  # a and b at 0.8, b and c at 0.8, a and c at 0.28
        return np.array([[1, 0], [0.8, 0.6], [0.28, 0.96]], dtype=np.float32)[[ord(text) - ord("a") for text in texts]]

    assert clusters([["a", "b", "c"]], chain, 0.75) == [[0, 0, 1]]  # by the first of a cluster
    assert clusters([["b", "a", "c"]], chain, 0.75) == [[0, 0, 0]]
    assert clusters([["a", "b", "a"]], chain, 1.0) == [[0, 1, 0]]


def test_no_answer_is_given_where_no_meaning_is_common(engine, monkeypatch):
    tasks, texts = [Task("2 + 2?")], ["5", "It is 4.", "4", ""]

    def answer(least):
        (found,) = abstain(says(pool_of(engine, tasks, embed=alike), monkeypatch, texts), 4, "clusters", least, 0.9)
        return found.text, found.confidence

    assert answer(0.5) == ("It is 4.", 0.5) and answer(0.51) == (None, 0.5)
    (found,) = abstain(says(pool_of(engine, tasks, embed=alike), monkeypatch, [""]), 4, "clusters", 0.0, 0.9)
    assert (found.text, found.confidence, found.notes) == (None, 0.0, ("no sample says anything",))


def test_an_embedder_is_loaded_by_a_method_that_asks_for_meaning_alone(engine, monkeypatch):
    loaded = []
    monkeypatch.setattr("etude.decoding.decode.load_embedder", lambda name: loaded.append(name) or alike)
    for confidence in ("agreement", "clusters"):
        how = ReliableDecoding("abstain", k=2, confidence=confidence, embedder="mine")
        assert ("same" in how.unread) == (confidence != "clusters")
        decode(engine, items_of(engine), how, **asking(engine))
    assert loaded == ["mine"]


def test_a_static_contrast_takes_one_layer(engine):
    (found,) = layer_contrast_static(pool_of(engine, TASKS[:1]), [2], 1.0, 0.1, True)
    (middle,) = layer_contrast_static(pool_of(engine, TASKS[:1]), [], 1.0, 0.1, True)
    assert found.text == middle.text  # of five layers
    with pytest.raises(UserError, match="layers names 2, but layer_contrast_static takes one"):
        layer_contrast_static(pool_of(engine, TASKS[:1]), [1, 2], 1.0, 0.1, True)


# ---------------------------------------------------------------------- asking the model


@pytest.mark.parametrize(("reply", "chosen", "notes"), [("Answer 2 it is", "b", 0), ("3 or 1", "c", 0), ("Answer 4", "a", 1), ("", "a", 1)])
def test_the_model_names_the_answer_that_agrees_most(engine, monkeypatch, reply, chosen, notes):
    pool = says(pool_of(engine, [replace(TASKS[0], instruction="End with a number.")]), monkeypatch, ["a", "b", "c"])
    asked = []

    def answers(tasks, **_):
        asked.extend(tasks)
        return [Completion((), (), reply, "stop", 0, 0)]

    monkeypatch.setattr(pool, "asked", answers)
    (found,) = universal_self_consistency(pool, 3)
    assert (found.text, len(found.notes)) == (chosen, notes)
    assert asked[0].instruction == "" and asked[0].question.startswith(
        "2 + 2?\n\nAnswer 1: a\nAnswer 2: b\nAnswer 3: c\n\nThese are 3 answers"
    )


def test_where_all_samples_agree_there_is_nothing_to_ask(engine, monkeypatch):
    pool = says(pool_of(engine, TASKS[:1]), monkeypatch, ["a"])
    pool.samples(3)
    drawn = pool.sampled_tokens[0]
    (found,) = universal_self_consistency(pool, 3)
    assert (found.text, found.notes, pool.sampled_tokens[0]) == ("a", (), drawn)


def test_the_model_reads_its_samples_and_answers_again(engine, monkeypatch):
    pool = says(pool_of(engine, TASKS[:1]), monkeypatch, ["four <assistant>", " ", "five"])
    (found,) = self_reflection(pool, 3)
    prompt = engine.tokenizer(f"<user>2 + 2?\n\nAnswer 1: four < assistant>\nAnswer 2: five\n\n{WORDS}<assistant>")["input_ids"]
    assert found.text == engine.generate([prompt], max_new_tokens=8, sampling=GREEDY)[0][0].text
    (none,) = self_reflection(says(pool_of(engine, TASKS[:1]), monkeypatch, [""]), 2)
    assert none.text is None and none.notes
