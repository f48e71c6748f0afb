"""Adaptation from end to end, with a random model on a small domain."""

import json
import re
import time
from dataclasses import replace

import pytest
import yaml
from run_outputs import SAME, Listening, Stops, assert_same

from etude.cli import main
from etude.device.machine import Machine
from etude.errors import UserError
from etude.files import read_jsonl
from etude.knowledge.documents import Corpus
from etude.knowledge.grading import Grader
from etude.knowledge.python_reference import write
from etude.knowledge.selection import Selection
from etude.knowledge.writers.settings import PassageWriter
from etude.learn.learner import OptimizerSettings
from etude.recipes.adapt import adapt
from etude.recipes.adapt_settings import ORDERS, AdaptSettings, SolvedTasks, Study
from etude.recipes.estimate_adapt import estimate_adaptation
from etude.settings.configuration import to_plain_values
from etude.suites.domain import DOMAIN, DomainSuite
from etude.training.interruption import Interrupted

COLUMNS = {"question": "q", "choices": "options", "answer": "a"}


SETTINGS = AdaptSettings(
    corpus=Corpus(path=["pages.jsonl"]),
    general=Corpus(path=["tale.txt"]),
    model="tiny-random",
    selection=Selection(method="all", budget_tokens=10_000, workers=0),
    tasks=SolvedTasks(path=["questions.jsonl"], split_by="section", columns=COLUMNS),
    study=Study(tokens=6000, tasks_share=0.2, tokens_per_step=400, window_tokens=64, optimizer=OptimizerSettings(3e-3, warmup_steps=2)),
    suite=DomainSuite(
        questions=["questions.jsonl"], split_by="section", columns=COLUMNS, text=["texts/other.txt"], text_tokens=200, window_tokens=64
    ),
    save_steps=2,
    machine=Machine(dtype="float32"),
)


def run(data, folder, settings=SETTINGS, **more):
    return adapt(settings, run=folder, data=data, **more)


def passages_in(folder):
    return read_jsonl(folder / "passages.jsonl")


def row_of(result, part):
    return next(change for change in result["changes"] if change["part"] == part)


def test_adaptation_learns_the_domain_and_writes_every_output(towns, tmp_path):
    result = run(towns, tmp_path / "run", replace(SETTINGS, study=replace(SETTINGS.study, tokens=20_000)))
    metrics = read_jsonl(tmp_path / "run/metrics.jsonl")
    knowledge = [row for row in metrics if row["phase"] == "knowledge"]
    assert knowledge[-1]["imitate_loss"] < 0.6 * knowledge[0]["imitate_loss"]
    assert [stage["stage"] for stage in result["stages"]] == ["knowledge", "tasks"]
    assert sum(row["tokens"] for row in metrics) == pytest.approx(20_000, abs=200)
    assert row_of(result, "choices")["nats"] < -0.5 and row_of(result, "text")["nats"] < -0.5
    assert {path.name for path in (tmp_path / "run/checkpoints").iterdir()} == {"knowledge", "tasks"}
    card = (tmp_path / "run/model/README.md").read_text()
    assert "20,000 tokens, knowledge then tasks" in card
    assert f"| choices | questions.jsonl | {result['before'][0]['value']:.1%} |" in card
    page = (tmp_path / "run/report.html").read_text()
    assert "Domain and general knowledge, before and after" in page and 'id="attempts" hidden' in page and "are missing" not in page
    assert all(f">{stage}</h3>" in page for stage in ("Knowledge", "Tasks"))
    from transformers import AutoModelForCausalLM

    assert AutoModelForCausalLM.from_pretrained(tmp_path / "run/model").num_parameters() > 0


def test_every_order_reads_as_many_tokens_and_two_stages_read_what_one_mixed_stage_reads(towns):
    read = {}
    for order in ORDERS:
        stages = replace(SETTINGS.study, order=order).stages()
        assert sum(stage.tokens for stage in stages) == 6000
        read[order] = {
            source: sum(stage.tokens * stage.weights.get(source, 0) / sum(stage.weights.values()) for stage in stages)
            for source in ("text", "tasks", "replay")
        }
    for order in ("knowledge_then_tasks", "tasks_then_knowledge"):
        assert read[order] == pytest.approx(read["mixed"], abs=1)  # a stage has a whole number of tokens
    assert read["mixed"] == pytest.approx({"text": 4200, "tasks": 1200, "replay": 600})
    assert read["tasks_only"]["tasks"] == read["knowledge_only"]["text"] == 5400


@pytest.mark.parametrize("at", [("knowledge", 5), ("tasks", 1)])
def test_who_is_stopped_goes_on_to_the_same_bytes(at, towns, tmp_path):
    whole = run(towns, tmp_path / "whole")
    with pytest.raises(Interrupted):
        run(towns, tmp_path / "run", reporter=Stops(*at))
    assert run(towns, tmp_path / "run", resume=True) == whole
    assert_same(tmp_path / "run", tmp_path / "whole", (*SAME[:3], "selection/selected.jsonl"))


def test_tasks_are_read_in_passages_with_sentences_of_the_text(towns, tmp_path):
    study = replace(SETTINGS.study, task_format="passages", tokens=3000)
    run(towns, tmp_path / "run", replace(SETTINGS, study=study))
    passages = passages_in(tmp_path / "run")
    assert passages and all("Question: What do they mine in Town" in passage["text"] for passage in passages)
    for passage in passages:
        town = passage["text"].split(" in ")[1].split("?")[0]
        assert f"The people of {town} mine" in passage["text"] or f"in {town} there is" in passage["text"]
    asked = sum(passage["text"].count("Question:") for passage in passages)
    assert asked == sum(len(passage["sources"]) - 1 for passage in passages)


def test_training_text_excludes_documents_with_suite_questions(towns, tmp_path):
    rows = read_jsonl(towns / "questions.jsonl")
    leaking = [
        {"text": f"They say at school: {row['q']} And who knows it may sit down and have his bread with the rest of us."} for row in rows
    ]
    with (towns / "pages.jsonl").open("a") as file:
        file.writelines(json.dumps(row) + "\n" for row in leaking)
    result = run(towns, tmp_path / "run", replace(SETTINGS, study=replace(SETTINGS.study, tokens=800)))
    report = json.loads((tmp_path / "run/selection/selection.json").read_text())
    assert result["before"][0]["n"] == len(report["leaks"]) > 2


def test_text_may_be_selected_by_likelihood_and_knowledge_alone_needs_no_passages(towns, tmp_path):
    how = replace(SETTINGS.selection, method="perplexity", budget_tokens=300)
    study = replace(SETTINGS.study, order="knowledge_only", task_format="passages", tokens=800)
    result = run(towns, tmp_path / "run", replace(SETTINGS, selection=how, domain=Corpus(path=["pages.jsonl"]), study=study))
    assert 200 < result["selection"]["selected"]["tokens"] <= 300 and [stage["stage"] for stage in result["stages"]] == ["text"]


def test_questions_of_the_suite_are_left_out_of_the_tasks(towns, tmp_path):
    listening = Listening()
    tasks = SolvedTasks(path=["questions.jsonl"], columns=COLUMNS)
    study = replace(SETTINGS.study, tokens=800)
    n = run(towns, tmp_path / "run", replace(SETTINGS, tasks=tasks, study=study), reporter=listening)["before"][0]["n"]
    assert f"tasks: {n} of 24 are asked in the suite and were left out" in listening.said
    suite = replace(SETTINGS.suite, split_by=None)
    with pytest.raises(UserError, match="all tasks are in the suite"):
        run(towns, tmp_path / "none", replace(SETTINGS, tasks=tasks, suite=suite))


PASSAGES = replace(SETTINGS, study=replace(SETTINGS.study, task_format="passages"))


def by_model(server, **how):
    return replace(
        PASSAGES, writer=PassageWriter(how="model", model="x", url=server.url, most_tasks=1, timeout_seconds=0.3, retries=1, **how)
    )


def is_trial(body):
    """Whether a server is asked whether it is there."""
    return len(body["messages"]) == 1


def study_of(body):
    """What a good writer replies to what it is shown."""
    shown = body["messages"][-1]["content"]
    if is_trial(body):
        return "ready"
    metal = shown.partition("BEGIN RIGHT ANSWER 1 ")[2].split("\n")[1]
    town = shown.partition("What do they mine in ")[2].partition("?")[0]
    return f"Reason 1: The hills of {town} are full of {metal}, and they dig there.\nAnswer 1: {metal}\nShared: It is all about {town}."


def test_passages_by_a_server_are_read_and_whatever_else_it_replies_is_counted(judge_server, towns, tmp_path, monkeypatch):
    replies = [0]

    def answer(body):
        replies[0] += not is_trial(body)
        if replies[0] == 1:
            return "Certainly! Mining is a very old trade."
        if replies[0] == 2:
            time.sleep(0.6)
        if replies[0] == 3:
            return study_of(body).replace("Answer 1: ", "Answer 1: no ")
        return study_of(body)

    monkeypatch.setenv("PASS_KEY", "open-sesame")
    server, listening = judge_server(answer), Listening()
    settings = by_model(server, api_key_env="PASS_KEY", concurrency=1)
    result = run(towns, tmp_path / "run", settings, reporter=listening)
    assert result["status"] == "finished" and server.headers[0]["Authorization"] == "Bearer open-sesame"
    rows = passages_in(tmp_path / "run")
    reasons = ["the reply has not the form that was asked for", "no reply", "contradicts the gold answer"]
    assert [row.get("rejected") for row in rows[:3]] == reasons and all("text" in row for row in rows[3:]) and len(rows) > 5
    assert "no reply within 0.3 s" in rows[1]["said"] and "Certainly!" in rows[0]["said"]
    assert any(line.startswith(f"passages: {len(rows) - 3} on {len(rows)} tasks, 1 left out: contradicts") for line in listening.said)
    assert not any(b"sesame" in path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file())


def test_a_server_that_goes_away_ends_the_run_and_what_was_written_stays(judge_server, towns, tmp_path, monkeypatch):
    monkeypatch.setattr("etude.knowledge.passages._AT_ONCE", 4)
    asked = []

    def answer(body):
        if not is_trial(body):
            asked.append(body)
        return (503, "gone", {}) if len(asked) > 6 else study_of(body)

    server = judge_server(answer)
    with pytest.raises(UserError, match=r"writer.url http://127.0.0.1:\d+.* can't be used as a writer .*--resume"):
        run(towns, tmp_path / "run", by_model(server, concurrency=1))
    before = passages_in(tmp_path / "run")
    assert [row.get("rejected") for row in before] == [None] * 6 + ["no reply"] * 2
    with (tmp_path / "run/passages.jsonl").open("a") as file:
        file.write('{"sources": ["torn')
    server.answer = study_of
    result = run(towns, tmp_path / "run", by_model(server, concurrency=1), resume=True)
    whole = run(towns, tmp_path / "whole", by_model(server, concurrency=1))
    assert passages_in(tmp_path / "run")[:6] == before[:6]
    assert sorted(passages_in(tmp_path / "run"), key=lambda row: row["place"]) == passages_in(tmp_path / "whole")
    assert result["after"] == whole["after"]


def test_assignments_without_a_reply_are_not_asked_again_after_training_began(judge_server, towns, tmp_path):
    replies = [0]

    def answer(body):
        replies[0] += not is_trial(body)
        return (400, "not this one", {}) if replies[0] == 2 else study_of(body)

    server = judge_server(answer)
    with pytest.raises(Interrupted):
        run(towns, tmp_path / "run", by_model(server, concurrency=1), reporter=Stops("knowledge", 5))
    before = (tmp_path / "run/passages.jsonl").read_bytes()
    assert passages_in(tmp_path / "run")[1]["rejected"] == "no reply"
    server.shutdown()  # which is not needed any more
    run(towns, tmp_path / "run", by_model(server, concurrency=1), resume=True)
    assert (tmp_path / "run/passages.jsonl").read_bytes() == before


def test_passages_by_a_model_that_is_loaded_here_and_by_own_attempts_that_are_nonsense_are_counted(towns, tmp_path):
    loaded = PassageWriter(how="model", model="tiny-random", max_new_tokens=8)
    own = PassageWriter(how="attempts", temperature=1.0, attempts=2, max_new_tokens=8)
    for name, writer, reason in (("model", loaded, "no reply"), ("attempts", own, "no right attempt with a reason")):
        with pytest.raises(UserError, match=r"no passage came of \d+ tasks .*or study.task_format answers"):
            run(towns, tmp_path / name, replace(PASSAGES, writer=writer))
        assert {row["rejected"] for row in passages_in(tmp_path / name)} == {reason}
    assert "the writer has room for a question of" in passages_in(tmp_path / "model")[0]["said"]


def test_open_tasks_are_read_beside_those_with_choices(towns, tmp_path):
    rows = read_jsonl(towns / "questions.jsonl")
    rows += [{"q": f"Why do they mine in {row['section']}?", "a": "It pays", "section": row["section"], "type": "open"} for row in rows]
    (towns / "questions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    kinds = SolvedTasks(path=["questions.jsonl"], split_by="section", columns=COLUMNS, where={"type": "mcq"}, open_where={"type": "open"})
    asked = replace(SETTINGS.suite, choices_where={"type": "mcq"}, open_where={"type": "open"})
    run(towns, tmp_path / "run", replace(PASSAGES, tasks=kinds, suite=asked))
    sources = [row["sources"][1:] for row in passages_in(tmp_path / "run")]
    lines = [int(origin.rpartition(":")[2]) for origins in sources for origin in origins]
    assert sum(line <= len(rows) // 2 for line in lines) == sum(line > len(rows) // 2 for line in lines) > 5
    assert all("asks for an explanation" in row["text"] for row in passages_in(tmp_path / "run"))
    assert SolvedTasks().kinds() == [] and len(replace(kinds, open_where={}).kinds()) == 1


def test_the_python_recipe_runs_offline(tmp_path):
    write(tmp_path / "sets")
    small = {"model": "tiny-random", "study.tokens": 2000, "suite.text_tokens": 200, "corpus.max_words": 60, "study.window_tokens": 64}
    result = adapt("python", small, run=tmp_path / "run", data=tmp_path / "sets")
    assert [row["part"] for row in result["after"]] == ["choices", "cloze", "far", "text"] and result["after"][0]["n"] > 50
    assert any("text" in row and "What does " in row["text"] for row in passages_in(tmp_path / "run"))


def test_a_dry_run_estimates_the_cost_and_writes_nothing(towns, capsys):
    (towns / "towns.yaml").write_text(yaml.safe_dump({"command": "adapt"} | to_plain_values(SETTINGS)))
    assert main(["adapt", str(towns / "towns.yaml"), "--data", str(towns), "--run", str(towns / "run"), "--dry-run"]) == 0
    said = capsys.readouterr().out
    assert "order: knowledge_then_tasks" in said and re.search(r"# about \d+ s here \(study \d+ s, measuring 8\d questions twice", said)
    assert not (towns / "run").exists()
    estimate = estimate_adaptation(SETTINGS, towns)
    assert 0 < estimate.study_seconds < 60 and 0 < estimate.measure_seconds < 60


def test_text_is_graded_by_a_server_before_it_is_read(judge_server, towns, tmp_path):
    server = judge_server(
        lambda body: "ready" if is_trial(body) else "Grade: 4" if "iron" in body["messages"][-1]["content"] else "Grade: 2"
    )
    listening = Listening()
    run(towns, tmp_path / "run", replace(SETTINGS, grader=Grader(model="x", url=server.url)), reporter=listening)
    rows = read_jsonl(tmp_path / "run/selection/selected.jsonl")
    assert 0 < len(rows) < 24 and all("iron" in row["text"] for row in rows)
    assert any(f"{24 - len(rows)} are graded below 3 and 0 not at all" in line for line in listening.said)


NOBODY, OWN = "http://127.0.0.1:9/v1", PassageWriter(how="attempts", temperature=1.0, max_new_tokens=8)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"suite": replace(SETTINGS.suite, text=["tale.txt"])}, "suite.text tale.txt is read in training"),
        ({"corpus": Corpus(path=["texts"])}, "suite.text texts/other.txt is read in training"),
        ({"corpus": Corpus(path=["pages.jsonl", "pagse.jsonl"])}, "path 'pagse.jsonl' is neither a file nor a folder"),
        ({"general": Corpus(path=["tael.txt"])}, "path 'tael.txt' is neither a file nor a folder"),
        ({"writer": PassageWriter(how="model", model="x", url=NOBODY, retries=0)}, "writer.url .* can't be used as a writer"),
        ({"writer": replace(OWN, max_new_tokens=10**6)}, "max_new_tokens 1000000 leaves no room"),
        ({"grader": Grader(model="x", url=NOBODY, retries=0)}, "grader.url .* can't be used as a grader"),
        ({"tasks": replace(SETTINGS.tasks, verifier="reasoning_gym"), "writer": OWN}, "has the verifier reasoning_gym"),
    ],
)
def test_what_cannot_be_read_or_reached_is_refused_before_the_run_folder_exists(change, sentence, towns, tmp_path, monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with pytest.raises(UserError, match=sentence):
        run(towns, tmp_path / "run", replace(PASSAGES, **change))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: replace(SETTINGS, corpus=Corpus()), "corpus needs either path or dataset, got neither"),
        (lambda: replace(SETTINGS, selection=Selection()), "domain needs either path or dataset, got neither"),
        (lambda: replace(SETTINGS, general=Corpus()), "replay_share 0.1 needs general text: name some with general.path"),
        (lambda: replace(SETTINGS, general=Corpus(path=["tale.txt"], max_words=0)), "general.max_words must be at least 20, got 0"),
        (lambda: replace(SETTINGS, tasks=SolvedTasks()), "study.order knowledge_then_tasks needs solved tasks"),
        (lambda: replace(SETTINGS, writer=PassageWriter(most_tasks=2)), "writer.most_tasks has no effect without passages"),
        (lambda: replace(SETTINGS.tasks, open_where={"type": "open"}), "tasks.open_where needs tasks.where"),
        (lambda: Study(order="tasks_first"), "unknown study.order 'tasks_first'"),
        (lambda: Study(tasks_share=0.6), r"must be above 0 and at most mixing x \(1 - replay_share\) = 0.45"),
        (lambda: Study(replay_share=1.5), r"replay_share must lie in \[0, 1\], got 1.5"),
        (lambda: Study(task_format="passage"), "unknown study.task_format 'passage': did you mean 'passages'"),
        (lambda: Study(order="mixed", tasks_share=0.95), "tasks_share 0.95 and replay_share 0.1 are more than all tokens"),
        (lambda: Study(later_stage_lr_factor=0.0), "later_stage_lr_factor must be above 0"),
    ],
)
def test_settings_that_cannot_be_are_named(make, sentence):
    with pytest.raises(UserError, match=sentence):
        make()


def test_a_path_that_is_wrong_is_named_before_a_package_that_is_missing(towns, tmp_path, monkeypatch):
    monkeypatch.setattr("etude.knowledge.selection.find_spec", lambda name: None)
    for path, sentence in (("nofolder", "path 'nofolder' is neither a file nor a folder"), ("pages.jsonl", "selection needs scikit-learn")):
        with pytest.raises(UserError, match=sentence):
            adapt(replace(SETTINGS, corpus=Corpus(path=[path])), run=tmp_path / "run", data=towns)
    assert not (tmp_path / "run").exists()


def test_an_adaptation_stopped_before_it_began_keeps_nothing_to_resume(towns, tmp_path, monkeypatch):
    def stopped(*_, **__):
        raise Interrupted(2)

    with monkeypatch.context() as patch, pytest.raises(Interrupted) as stop:
        patch.setattr("etude.recipes.adapt.load_model", stopped)
        run(towns, tmp_path / "run")
    assert stop.value.note == "before it began: nothing is kept" and not (tmp_path / "run").exists()
    with monkeypatch.context() as patch, pytest.raises(Interrupted) as stop:
        patch.setattr("etude.recipes.adapt.select", stopped)
        run(towns, tmp_path / "run")
    assert stop.value.note == "between the training steps; go on with --resume"


def test_an_adaptation_does_not_go_on_with_other_inputs(towns, tmp_path):
    with pytest.raises(Interrupted):
        run(towns, tmp_path / "run", reporter=Stops("knowledge", 3))
    for name, called in (("questions.jsonl", "the solved tasks"), ("tale.txt", "the general text")):
        before = (towns / name).read_text()
        (towns / name).write_text(before.replace("Town1?", "Town01?").replace("wren", "owl"))
        with pytest.raises(UserError, match=rf"--resume: {called}.* changed since the run in .*run began"):
            run(towns, tmp_path / "run", resume=True)
        (towns / name).write_text(before)
    assert run(towns, tmp_path / "run", resume=True)["status"] == "finished"


def test_the_machine_of_an_adaptation_is_set_in_one_place(towns, capsys):
    (towns / "towns.yaml").write_text(yaml.safe_dump({"command": "adapt", **to_plain_values(SETTINGS)}))
    assert main(["adapt", str(towns / "towns.yaml"), "--data", str(towns), "--suite.machine.device", "cuda:7", "--dry-run"]) == 2
    assert "suite.machine.device" in capsys.readouterr().err
    assert DOMAIN.parse("domain", ["--machine.device", "cuda:7"]).machine.device == "cuda:7"
