"""The suite of a domain."""

import json

import pytest

from etude.cli import main
from etude.errors import UserError
from etude.suites.domain import DOMAIN, DomainSuite, line, load_questions, said_row
from etude.suites.domain_changes import format_change, paired_changes

OWN = {
    "questions": ["questions.jsonl"],
    "glossary": ["terms.jsonl"],
    "near_domain": ["near.jsonl"],
    "far_domain": ["far.jsonl", "other.jsonl"],
    "text": ["tale.md"],
    "text_tokens": 300,
    "generated_n": 0,
    "machine.dtype": "float32",
}


def words_of(settings):
    """Settings as the command line has them."""
    return [word for name, value in settings.items() for word in (f"--{name}", *(value if isinstance(value, list) else [str(value)]))]


@pytest.fixture
def sets(tmp_path):
    """Files as the suite that ships wants them, in small."""

    def write(name, rows):
        (tmp_path / name).write_text("".join(json.dumps(row) + "\n" for row in rows))

    def choices(count, **more):
        return [{"q": f"Which of them is {i}?", "options": ["a wren", "flint"], "a": i % 2} | more for i in range(count)]

    questions = [row | {"section": f"s{number}", "type": "mcq"} for number, row in enumerate(choices(30))]
    questions += [{"q": f"Why {i}?", "a": "It is so.", "section": f"s{i}", "type": "open"} for i in range(30)]
    write("questions.jsonl", questions)
    write("terms.jsonl", [{"term": f"term {i}", "definition": f"what {i} is"} for i in range(9)])
    write("near.jsonl", choices(3))
    write("far.jsonl", choices(4))
    write("other.jsonl", choices(5))
    (tmp_path / "tale.md").write_text("Once upon a time there was a wren. " * 20)
    return tmp_path


def test_every_part_has_its_rows_and_only_the_split_is_measured(sets):
    test = DOMAIN.evaluate("tiny-random", "domain", OWN, data=sets)["rows"]
    parts = [(row["part"], row["name"]) for row in test]
    assert parts == [
        ("choices", "questions.jsonl"),
        ("open", "questions.jsonl"),
        ("cloze", "terms.jsonl"),
        ("near", "near.jsonl"),
        ("far", "far.jsonl"),
        ("far", "other.jsonl"),
        ("far", "all questions"),
        ("text", "tale.md"),
    ]
    assert all(row["low"] <= row["value"] <= row["high"] for row in test)
    assert test[0]["n"] == test[1]["n"]
    asked = [
        {each.origin for own in load_questions(DOMAIN.parse("domain", [*words_of(OWN), "--split", split]), sets).values() for each in own}
        for split in ("train", "dev", "test")
    ]
    of_domain = [{origin for origin in own if origin.startswith("questions")} for own in asked]
    assert sum(map(len, of_domain)) == len(set.union(*of_domain)) == 60 and min(map(len, of_domain)) > 0
    assert [row["n"] for row in test[2:7]] == [9, 3, 4, 5, 9] and test[6]["bits"] == test[4]["bits"] + test[5]["bits"]
    assert all(len(row["bits"]) == row["n"] and row["value"] == row["bits"].count("1") / row["n"] for row in test if "bits" in row)


def test_terms_and_open_questions_are_answered_in_words(sets):
    found = DOMAIN.evaluate("tiny-random", "domain", OWN | {"generated_n": 4}, data=sets)["rows"]
    said = [row for row in found if row["part"] == "said"]
    assert [(row["name"], row["n"]) for row in said] == [("questions.jsonl", 4), ("terms.jsonl", 4)]
    assert all(len(row["f1s"]) == 4 and row["low"] <= row["value"] <= row["high"] for row in said)
    assert "said" not in {row["part"] for row in DOMAIN.evaluate("tiny-random", "domain", OWN, data=sets)["rows"]}


def test_an_answer_in_words_counts_by_the_words_that_it_shares(sets):
    asked = load_questions(DOMAIN.parse("domain", words_of(OWN)), sets)["cloze", "terms.jsonl"][:3]
    row = said_row("terms.jsonl", asked, lambda prompts: ["Term 0.", "the term", "no idea"])
    assert row["f1s"] == [1.0, 0.6667, 0.0] and row["exact"] == 1 / 3 and row["value"] == pytest.approx(5 / 9)
    assert asked[0].prompt == "Definition: what 0 is\nTerm:" and line(row).endswith("F1, 33.3% exact  n = 3")
    (change,) = paired_changes([row], [row | {"f1s": [1.0, 1.0, 0.5], "value": 2.5 / 3}])
    assert change["difference"] == pytest.approx(0.8333 / 3, abs=1e-3) and "nats" not in change
    assert "points" in format_change(change) and format_change(change).endswith("of F1 (n = 3)")


def test_the_command_tells_a_suite_of_a_domain_by_name_and_by_file(sets, tmp_path, capsys):
    words = words_of(OWN)
    out = tmp_path / "out.json"
    assert main(["evaluate", "tiny-random", "--suite", "domain", "--data", str(sets), *words, "--json", str(out)]) == 0
    found = json.loads(out.read_text())
    said = capsys.readouterr().out
    assert found["model"] == "tiny-random" and len(found["rows"]) == 8
    assert said.startswith("choices  questions.jsonl") and "calibrated" in said and "tokens, perplexity" in said
    found = DOMAIN.evaluate("tiny-random", DomainSuite(glossary=[str(sets / "terms.jsonl")], glossary_n=3, text_tokens=300))
    assert (found["rows"][0]["part"], found["rows"][0]["n"]) == ("cloze", 3), "so many terms of all"
    mine = tmp_path / "mine.yaml"
    mine.write_text(f"command: domain\nfar_domain: [{sets}/far.jsonl]\ncolumns: {{question: q, choices: options, answer: a}}\n")
    assert main(["evaluate", "tiny-random", "--suite", str(mine)]) == 0
    assert capsys.readouterr().out.startswith("far ")


def test_terms_are_in_the_split_of_their_sections_questions(sets):
    rows = [{"section": f"s{number // 5}", "term": f"term {number}", "definition": f"what {number} is"} for number in range(150)]
    (sets / "terms.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    suite = {"questions": ["questions.jsonl"], "columns": {"question": "q", "choices": "options", "answer": "a"}}
    found = {}
    for split in ("train", "dev", "test"):
        how = DomainSuite(**suite, choices_where={"type": "mcq"}, split_by="section", split=split, glossary=["terms.jsonl"])
        asked = load_questions(how, sets)
        of_questions = {question.origin.rpartition(":")[2] for question in asked["choices", "questions.jsonl"]}
        found[split] = [int(question.origin.rpartition(":")[2]) for question in asked["cloze", "terms.jsonl"]]
        assert {str((line - 1) // 5 + 1) for line in found[split]} == of_questions
    assert sorted(line for lines in found.values() for line in lines) == list(range(1, 151))


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        (["--split", "tset"], "unknown split of section 'tset': did you mean 'test'"),
        (["--split_by", "chapter"], "unknown column in questions.jsonl:1 'chapter'"),
        (["--choices_where", '{"type": "mcp"}'], "questions.jsonl gave no tasks for split 'test' with type mcp"),
        (["--glossary", "far.jsonl"], "far.jsonl:1 has no term"),
        (["--near_domain", "nera.jsonl"], "'nera.jsonl' is not a file"),
        (["--n", "0"], "n must be at least 1, got 0"),
    ],
)
def test_wrong_settings_are_named(overrides, sentence, sets):
    words = words_of(OWN)
    with pytest.raises(UserError, match=sentence):
        DOMAIN.evaluate("tiny-random", DOMAIN.parse("domain", [*words, *overrides]), data=sets)


def test_without_files_the_shipped_questions_are_measured():
    rows = DOMAIN.evaluate("tiny-random", DomainSuite(window_tokens=64, text_tokens=300))["rows"]
    assert [(row["part"], row["name"], row["n"] > 60) for row in rows] == [
        ("far", "common knowledge", True),
        ("text", "common knowledge", True),
    ]
