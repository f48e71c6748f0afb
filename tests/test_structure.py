"""Promises about the shape of the code that a document would let drift."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

from etude.decoding.methods import METHODS as DECODING
from etude.decoding.settings import READS
from etude.knowledge.quality import RULES
from etude.knowledge.scorers import METHODS
from etude.kv_cache.policies import ALL, EVICTION, RETRIEVAL
from etude.kv_cache.settings import EVICTION_NAMES, RETRIEVAL_NAMES, VIEWS
from etude.learn.credit import CREDIT
from etude.learn.loss_settings import POLICY_LOSS_NAMES, PREFERENCE_LOSS_NAMES
from etude.learn.losses import POLICY_LOSSES, PREFERENCE_LOSSES
from etude.learn.pairs import PAIRS
from etude.learn.shaping import SHAPING
from etude.learn.step_credit import STEP_CREDIT
from etude.recipes.adapt_settings import ORDERS
from etude.rollouts.search.settings import REFINE, SEARCHES
from etude.tasks.verifiers import VERIFIERS
from etude.training.settings import FEEDBACK

NAMED_WITHOUT_TORCH = {
    "policy losses": (POLICY_LOSS_NAMES, POLICY_LOSSES),
    "preference losses": (PREFERENCE_LOSS_NAMES, PREFERENCE_LOSSES),
    "methods of decoding": (READS, DECODING),
    "eviction policies": (EVICTION_NAMES, EVICTION),
    "retrieval policies": (RETRIEVAL_NAMES, RETRIEVAL),
    "cache policies": (VIEWS, ALL),
}

ROOT = Path(__file__).parents[1]
ROOMS = ("kernels", "llm_client", "tasks", "engine", "rollouts", "rewards", "learn", "knowledge", "decoding", "kv_cache", "evaluation")
TOP = ("etude.recipes", "etude.cli")


def imports_of(path: Path) -> set[str]:
    """Modules that a file imports, wherever in the file."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            found |= {node.module or "", *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


def begins_with(module: str, package: str) -> bool:
    return module == package or module.startswith(package + ".")


@pytest.mark.parametrize(("names", "table"), NAMED_WITHOUT_TORCH.values(), ids=NAMED_WITHOUT_TORCH)
def test_settings_know_every_name_of_a_table_that_needs_torch(names, table):
    assert sorted(names) == sorted(table)


@pytest.mark.parametrize("room", ROOMS)
def test_rooms_know_neither_recipes_nor_the_command(room):
    for path in (ROOT / "etude" / room).rglob("*.py"):
        wrong = [module for module in imports_of(path) if any(begins_with(module, top) for top in TOP)]
        assert not wrong, f"{path.relative_to(ROOT)} imports {wrong}"


@pytest.mark.parametrize(
    ("room", "later"),
    [
        ("llm_client", ("tasks", "engine", "rollouts", "rewards", "learn")),
        ("tasks", ("engine", "rollouts", "learn")),
        ("knowledge", ("engine", "rollouts", "rewards", "learn")),
        ("rewards", ("engine", "rollouts", "learn")),
        ("engine", ("rollouts", "learn", "decoding", "kv_cache")),
        ("rollouts", ("learn", "decoding", "kv_cache")),
        ("decoding", ("rewards", "learn", "knowledge")),
        ("kv_cache", ("tasks", "rollouts", "rewards", "learn", "knowledge", "decoding")),
    ],
)
def test_earlier_stages_do_not_know_later_ones(room, later):
    for path in (ROOT / "etude" / room).rglob("*.py"):
        wrong = [module for module in imports_of(path) if any(begins_with(module, f"etude.{other}") for other in later)]
        assert not wrong, f"{path.relative_to(ROOT)} imports {wrong}"


CIRCLES: list[set[str]] = [
    {f"kv_cache.{name}" for name in ("attach", "lazy", "page_layer", "policies", "recall", "settings", "view")},
    {"learn.loss_settings", "learn.losses.preference"},
    {f"recipes.{name}" for name in ("alarm", "before_practice", "divergence", "keeping", "measuring", "practice")},
    {"recipes.combinations", "recipes.settings"},
]
"""Modules that may know each other, annotations included."""


def test_no_modules_import_each_other_in_a_circle():
    found = [circle for circle in circles_of(graph_of_imports()) if not any(circle <= known for known in CIRCLES)]
    assert found == []


def graph_of_imports() -> dict[str, set[str]]:
    """The modules of etude that each of them imports, also those that only annotations need."""
    paths = {path.relative_to(ROOT / "etude").with_suffix("").as_posix().replace("/", "."): path for path in (ROOT / "etude").rglob("*.py")}
    return {name: {module.removeprefix("etude.") for module in imports_of(path)} & paths.keys() for name, path in paths.items()}


def circles_of(graph: dict[str, set[str]]) -> list[set[str]]:
    """Strongly connected components of more than one module: those that reach each other."""
    reached = {name: set(others) for name, others in graph.items()}
    for through in graph:
        for others in reached.values():
            if through in others:
                others |= reached[through]
    circles = {frozenset(other for other in reached[name] if name in reached[other]) for name in graph if name in reached[name]}
    return sorted(map(set, circles), key=sorted)


def test_only_the_engine_room_knows_the_class_of_the_default_engine():
    knowing = [path for path in (ROOT / "etude").rglob("*.py") if "TransformersEngine" in path.read_text(encoding="utf8")]
    assert {path.relative_to(ROOT / "etude").parts[0] for path in knowing} == {"engine"}


@pytest.mark.parametrize("room", ["llm_client", "tasks", "rewards", "knowledge"])
def test_these_rooms_need_no_torch(room):
    modules = [f"etude.{room}.{path.stem}" for path in sorted((ROOT / "etude" / room).glob("*.py")) if path.stem != "__init__"]
    code = f"import sys, importlib; [importlib.import_module(m) for m in {modules}]; sys.exit('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr or "torch was imported"


@pytest.mark.parametrize(("package", "others"), [("experiments", ("studies", "bench")), ("studies", ("bench",)), ("bench", ("studies",))])
def test_studies_and_benchmarks_know_what_they_share_and_not_each_other(package, others):
    for path in (ROOT / package).rglob("*.py"):
        wrong = [module for module in imports_of(path) if any(begins_with(module, other) for other in others)]
        assert not wrong, f"{path.relative_to(ROOT)} imports {wrong}"


def test_a_study_and_a_benchmark_is_what_its_folder_holds():
    for path in (path for path in (ROOT / "studies").glob("*.py") if path.stem != "__init__"):
        assert path.read_text(encoding="utf8").endswith('if __name__ == "__main__":\n    STUDY.main()\n'), path.name
    commands = [*(ROOT / "bench").glob("*.py"), *(ROOT / "bench").glob("*/__main__.py")]
    for path in (path for path in commands if path.name != "__init__.py"):
        assert path.read_text(encoding="utf8").endswith('if __name__ == "__main__":\n    BENCHMARK.main()\n'), path.name


def test_one_file_of_studies_and_benchmarks_knows_what_a_practice_run_is_made_of():
    for path in (path for package in ("experiments", "studies", "bench") for path in (ROOT / package).rglob("*.py")):
        knows = "etude.recipes.practice.Practice" in imports_of(path)
        assert knows == (path.name == "prepared_run.py"), path.name


TABLES = {
    "verifiers": VERIFIERS,
    "credit": CREDIT,
    "steps": STEP_CREDIT,
    "shapings": SHAPING,
    "losses": POLICY_LOSSES,
    "preferences": PREFERENCE_LOSSES,
    "pairs": PAIRS,
    "lessons": LESSONS,
    "searches": (*SEARCHES, REFINE),
    "decoding": DECODING,
    "feedback": FEEDBACK,
    "selection": METHODS,
    "quality": RULES,
    "orders": ORDERS,
    "context": ALL,
}


@pytest.mark.parametrize("table", TABLES.values(), ids=TABLES)
def test_every_name_in_a_table_is_among_the_methods(table):
    text = (ROOT / "docs" / "methods.md").read_text(encoding="utf8")
    missing = [name for name in table if f"`{name}`" not in text]
    assert not missing


def test_no_file_holds_a_path_of_one_machine():
    listed = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    done = subprocess.run(listed, cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        pytest.skip("not a git checkout")
    forbidden = re.compile("|".join((r"/home/" + r"\w", "/" + "root/", "/Users/" + r"\w")))
    wrong = []
    for name in filter(None, done.stdout.split("\0")):
        path = ROOT / name
        if path.is_file() and b"\0" not in (content := path.read_bytes())[:8000]:
            lines = content.decode("utf8", errors="replace").splitlines()
            wrong += [f"{name}:{number}" for number, line in enumerate(lines, 1) if forbidden.search(line)]
    assert not wrong
