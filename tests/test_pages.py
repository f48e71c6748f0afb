"""README.md and docs/ do what they say: ```console commands and ```python blocks run, in order, in one folder.

Commands in ```sh fences (make, pip, what needs a network or minutes) are for people; the `etude` lines among them are run up to where the
minutes begin: practice as a dry run without its trial step, evaluate up to its settings.
"""

import json
import re
import shlex
from pathlib import Path

import pytest

import etude
from etude.cli import main
from etude.tiny import letters
from experiments.pages import PAGES, ROOT

TEXT = "\n".join(page.read_text(encoding="utf8") for page in PAGES)
IN_ORDER = [page for page in PAGES if page != ROOT / "docs/callbacks.md"]
"""Pages whose blocks are run here; tests/callbacks/test_docs_examples.py runs those of the other one, and checks what comes of them."""
FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def commands_of(block: str) -> list[str]:
    """The lines behind `$ `, joined where one ends with a backslash."""
    return [found.replace("\\\n", " ") for found in re.findall(r"^\$ ((?:.*\\\n)*.*)$", block, re.MULTILINE)]


def steps_of(text: str) -> list[tuple[str, str]]:
    """(kind, code) of everything that is run, in the order of the page."""
    steps = []
    for kind, block in FENCE.findall(text):
        if kind == "console":
            steps += [("console", command) for command in commands_of(block)]
        elif kind == "python":
            steps.append(("python", block))
    return steps


def printed_of(text: str) -> dict[str, str]:
    """What the page says that each command prints."""
    found = {}
    for kind, block in FENCE.findall(text):
        for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:] if kind == "console" else ():
            command, _, printed = part.replace("\\\n", " ").partition("\n")
            found[command] = printed
    return found


GAIN = re.compile(r"practice against warm start ([+-][\d.]+) points")
STEPS = [step for page in IN_ORDER for step in steps_of(page.read_text(encoding="utf8"))]


PRINTED = printed_of(TEXT)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("pages")


def test_fences_are_read_as_described():
    text = "```console\n$ etude a \\\n    --b\nprinted\n$ etude c\n```\n```sh\nmake practice\n```\n```python\nprint(1)\n```\n"
    assert printed_of(text) == {"etude a      --b": "printed\n", "etude c": ""}
    assert steps_of(text) == [("console", "etude a      --b"), ("console", "etude c"), ("python", "print(1)\n")]


def test_the_pages_show_the_commands():
    assert sum(bool(GAIN.search(printed)) for printed in PRINTED.values()) >= 3
    shown = {code.split()[1] for kind, code in STEPS if kind == "console" and code.startswith("etude ")}
    assert {"practice", "evaluate", "generate", "report"} <= shown
    assert any(kind == "python" for kind, _ in STEPS)


@pytest.mark.parametrize(("kind", "code"), STEPS, ids=[f"{i}-{code.splitlines()[0][:50]}" for i, (_, code) in enumerate(STEPS)])
def test_what_the_pages_say_runs(folder, kind, code, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    if kind == "python":
        return exec(code, {})
    assert main(words_of(code)) == 0, capsys.readouterr().err
    shown = [float(gain) for gain in GAIN.findall(PRINTED[code])]
    found = [float(gain) for gain in GAIN.findall(" ".join(capsys.readouterr().out.split()))]
    if shown:
        assert found == pytest.approx(shown, abs=5.0), "the page prints another gain than there is"
        assert min(found) > 10, "practice does not raise the accuracy"


def words_of(command: str) -> list[str]:
    """The arguments of an `etude` command, which needs no shell: it would take seconds to begin in a process of its own."""
    first, *rest = shlex.split(command, comments=True)
    assert first == "etude" and not set(command) & set("|<>;&$`"), f"a shell is needed for {command}"
    return rest


LONG = [
    line.split("#")[0].replace("...", "").strip()
    for kind, block in FENCE.findall(TEXT)
    for line in block.splitlines()
    if kind == "sh" and line.startswith(("etude adapt", "etude practice", "etude evaluate")) and "--resume" not in line
]


def test_what_a_page_links_to_is_there_and_every_page_is_reached_from_the_readme():
    links = {page: re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text(encoding="utf8")) for page in PAGES}
    assert [link for page in PAGES for link in links[page] if not (page.parent / link).exists()] == []
    reached = {PAGES[0]}
    for _ in PAGES:
        reached |= {(page.parent / link).resolve() for page in reached & links.keys() for link in links[page]}
    assert reached.issuperset(PAGES)


def test_files_and_modules_that_a_page_names_are_there():
    text = TEXT + (ROOT / "CONTRIBUTING.md").read_text(encoding="utf8")
    files = re.findall(r"`((?:etude|studies|bench|experiments|tests|docs)/[\w/.-]*)`", text)
    modules = re.findall(r"\b((?:etude|studies|bench)\.[a-z_]+(?:\.[a-z_]+)*)\b", text.replace("etude.yaml", ""))
    named = {*files, *(name.replace(".", "/") for name in modules if name.removeprefix("etude.") not in etude.__all__)}
    assert [name for name in named if not any((ROOT / f"{name}{end}").exists() for end in ("", ".py"))] == []


def test_the_map_has_every_room_and_nothing_that_is_not_there():
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf8")
    (tree,) = re.findall(r"## Where things are\n\n```\netude/\n(.*?)```", text, re.DOTALL)
    named = {name.strip("/") for row in re.findall(r"^  ((?:[\w./]+, )*[\w./]+)  ", tree, re.MULTILINE) for name in row.split(", ")}
    assert [name for name in named if not (ROOT / "etude" / name).exists()] == []
    assert {path.parent.name for path in (ROOT / "etude").glob("*/__init__.py")} <= named


class Begun(Exception):
    """What would take minutes begins here."""


@pytest.mark.parametrize("line", LONG)
def test_what_the_pages_leave_to_people_is_understood(line, tmp_path, monkeypatch):
    def begin(*_: object, **__: object) -> None:
        raise Begun

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("etude.cli.check_available", lambda *_: None)
    monkeypatch.setattr("etude.recipes.estimate.estimate", begin)
    monkeypatch.setattr("etude.recipes.evaluate.load_model", begin)
    monkeypatch.setattr("etude.suites.harness.load_model", begin)
    monkeypatch.setattr("etude.suites.domain.load_questions", begin)
    monkeypatch.setattr("etude.recipes.adapt.list_files", begin)
    monkeypatch.setattr("etude.suites.latent_knowledge.questions", begin)
    rows = [{key: row[key] for key in ("question", "answer", "worked")} for row in letters("train", 300, seed=0)]
    parts = {"my_train": rows[:200], "my_test": rows[200:250], "a": rows[250:], "DIR/word_problems/train": rows[:200]}
    sums = [{"question": f"What is {i} + 1?", "answer": f"It is <<{i}+1={i + 1}>>{i + 1}.\n#### {i + 1}"} for i in range(250)]
    parts |= {"DIR/word_problems/test": rows[200:250], "DIR/gsm8k/train": sums[:200], "DIR/gsm8k/test": sums[200:]}
    for name, part in parts.items():
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in part))
    compared = [{"prompt": row["question"], "chosen": row["answer"], "rejected": "?"} for row in rows[:50]]
    Path("compared.jsonl").write_text("".join(json.dumps(row) + "\n" for row in compared))
    ruled = {"prompt": "Name a river.", "instruction_id_list": ["punctuation:no_comma"], "kwargs": [{}]}
    Path("ifeval.jsonl").write_text(json.dumps(ruled) + "\n")
    Path("DIR/svamp").mkdir()
    Path("DIR/svamp/SVAMP_dev.json").write_text(json.dumps(rows[250:]))
    Path("b.csv").write_text("question,answer\n" + "".join(f"{row['question']},{row['answer']}\n" for row in rows[250:]))
    asked = [{"q": f"{i}?", "options": ["a", "b"], "a": i % 2, "section": str(i), "type": "mcq"} for i in range(300)]
    Path("runs/python_reference").mkdir(parents=True)
    Path("DIR/openstax_anatomy").mkdir()
    Path("DIR/openstax_anatomy/questions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in asked))
    terms = [{"term": f"bone {i}", "definition": f"the {i}. of all bones", "section": str(i)} for i in range(2500)]
    Path("DIR/openstax_anatomy/glossary.jsonl").write_text("".join(json.dumps(row) + "\n" for row in terms))
    arguments = shlex.split(line)[1:]
    with pytest.raises(Begun):
        main([*arguments, "--dry-run"] if arguments[0] == "practice" else arguments)
