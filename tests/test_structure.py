"""Promises about the shape of the code that a document would let drift."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

from etude.callbacks import CALLBACKS
from etude.decoding.methods import METHODS as DECODING
from etude.decoding.settings import READS
from etude.knowledge.quality import RULES
from etude.knowledge.scorers import METHODS
from etude.kv_cache.policies import ALL, EVICTION, RETRIEVAL
from etude.kv_cache.settings import EVICTION_NAMES, RETRIEVAL_NAMES, VIEWS
from etude.learn.advantages import ADVANTAGES
from etude.learn.loss_settings import POLICY_LOSS_NAMES, PREFERENCE_LOSS_NAMES
from etude.learn.losses import POLICY_LOSSES, PREFERENCE_LOSSES
from etude.learn.pairs import PAIRS
from etude.learn.shaping import SHAPING
from etude.learn.step_advantages import STEP_ADVANTAGES
from etude.learn.training_examples import METHODS as LEARNING
from etude.recipes.adapt_settings import ORDERS
from etude.rollouts.search.settings import REFINE, SEARCHES
from etude.tasks.verifiers import VERIFIERS
from etude.training.settings import OTHER_REWARDS, REWARDS

NAMED_WITHOUT_TORCH = {
    "policy losses": (POLICY_LOSS_NAMES, POLICY_LOSSES),
    "preference losses": (PREFERENCE_LOSS_NAMES, PREFERENCE_LOSSES),
    "methods of decoding": (READS, DECODING),
    "eviction policies": (EVICTION_NAMES, EVICTION),
    "retrieval policies": (RETRIEVAL_NAMES, RETRIEVAL),
    "cache policies": (VIEWS, ALL),
}

ROOT = Path(__file__).parents[1]
ROOMS = {
    "settings": "",
    "models": "",
    "kernels": "models",
    "device": "kernels models",
    "llm_client": "",
    "tasks": "models",
    "rewards": "llm_client tasks",
    "engine": "device kernels models",
    "kv_cache": "engine kernels models",
    "rollouts": "engine tasks",
    "decoding": "device engine models rollouts tasks",
    "learn": "kernels models rollouts tasks",
    "evaluation": "engine kv_cache learn models rewards rollouts tasks",
    "console": "evaluation settings tasks",
    "export": "evaluation models",
    "knowledge": "evaluation llm_client tasks",
    "suites": "console decoding device engine evaluation knowledge kv_cache learn models rewards rollouts settings tasks",
    "callbacks": "device engine evaluation learn models rewards rollouts settings suites tasks training",
    "training": "callbacks console decoding device engine evaluation kv_cache learn llm_client models rewards rollouts settings suites "
    "tasks",
    "cards": "evaluation models tasks training",
    "serve": "decoding device engine kv_cache rollouts settings suites tasks",
    "lm_eval": "console decoding device engine kv_cache learn models rollouts settings suites tasks training",
    "recipes": "cards console decoding device engine evaluation export knowledge kv_cache learn llm_client models rewards rollouts "
    "serve settings suites tasks training",
}
"""Each room with the rooms that it knows; rooms stand behind those that they know."""
BOTH_WAYS = [{"callbacks", "training"}]
"""Rooms that know each other, though none of their modules do: settings of training hold the table of callbacks, which extend a class of
training."""
KNOW_CALLBACKS = ("parse", "settings")
"""Files of training that read the table of callbacks."""
CONTENTS = ("configs",)
"""Folders that hold no code."""
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


def sources(package: str) -> list[Path]:
    """The files of a package, without those of other programs in hidden folders."""
    paths = (ROOT / package).rglob("*.py")
    return [path for path in paths if not any(part.startswith(".") for part in path.relative_to(ROOT).parts)]


def begins_with(module: str, package: str) -> bool:
    return module == package or module.startswith(package + ".")


@pytest.mark.parametrize(("names", "table"), NAMED_WITHOUT_TORCH.values(), ids=NAMED_WITHOUT_TORCH)
def test_settings_know_every_name_of_a_table_that_needs_torch(names, table):
    assert sorted(names) == sorted(table)


def rooms_known() -> dict[str, set[str]]:
    """The rooms whose modules each room imports, by what its files say."""
    files = {path: imports_of(path) for room in ROOMS for path in (ROOT / "etude" / room).rglob("*.py")}
    known = {room: set() for room in ROOMS}
    for path, modules in files.items():
        room = path.relative_to(ROOT / "etude").parts[0]
        known[room] |= {other for module in modules for other in ROOMS if other != room and begins_with(module, f"etude.{other}")}
    return known


def test_every_folder_is_a_room():
    folders = {path.parent.name for path in (ROOT / "etude").glob("*/__init__.py")}
    assert folders == {*ROOMS, *CONTENTS}


def test_rooms_know_the_rooms_that_the_table_says():
    assert rooms_known() == {room: set(others.split()) for room, others in ROOMS.items()}


def test_no_room_knows_one_that_knows_it():
    order = list(ROOMS)
    wrong = [{room, other} for room in ROOMS for other in ROOMS[room].split() if order.index(other) > order.index(room)]
    assert [pair for pair in wrong if pair not in BOTH_WAYS] == []
    assert sorted(map(sorted, wrong)) == sorted(map(sorted, BOTH_WAYS))


@pytest.mark.parametrize("room", [room for room in ROOMS if room != "recipes"])
def test_rooms_know_neither_recipes_nor_the_command(room):
    for path in (ROOT / "etude" / room).rglob("*.py"):
        wrong = [module for module in imports_of(path) if any(begins_with(module, top) for top in TOP)]
        assert not wrong, f"{path.relative_to(ROOT)} imports {wrong}"


@pytest.mark.parametrize(
    ("room", "later"),
    [
        ("llm_client", ("tasks", "engine", "rollouts", "rewards", "learn")),
        ("tasks", ("engine", "rollouts", "rewards", "learn")),
        ("knowledge", ("engine", "rollouts", "rewards", "learn")),
        ("rewards", ("engine", "rollouts", "learn")),
        ("engine", ("rollouts", "learn", "decoding", "kv_cache")),
        ("rollouts", ("learn", "decoding", "kv_cache", "evaluation", "training", "callbacks")),
        ("decoding", ("rewards", "learn", "knowledge")),
        ("kv_cache", ("tasks", "rollouts", "rewards", "learn", "knowledge", "decoding")),
        ("learn", ("evaluation", "training", "callbacks")),
        ("evaluation", ("suites", "training", "callbacks")),
    ],
)
def test_earlier_stages_do_not_know_later_ones(room, later):
    for path in (ROOT / "etude" / room).rglob("*.py"):
        wrong = [module for module in imports_of(path) if any(begins_with(module, f"etude.{other}") for other in later)]
        assert not wrong, f"{path.relative_to(ROOT)} imports {wrong}"


def test_the_loop_and_what_it_is_made_of_know_no_callback_by_name():
    paths = [
        ROOT / "etude/recipes/practice.py",
        *(path for path in (ROOT / "etude/training").glob("*.py") if path.stem not in KNOW_CALLBACKS),
    ]
    for path in paths:
        wrong = [module for module in imports_of(path) if begins_with(module, "etude.callbacks")]
        assert not wrong, f"{path.relative_to(ROOT)} imports {wrong}"


def test_callbacks_do_not_know_each_other():
    for path in (path for path in (ROOT / "etude/callbacks").glob("*.py") if path.stem != "__init__"):
        wrong = [module for module in imports_of(path) if begins_with(module, "etude.callbacks")]
        assert not wrong, f"{path.relative_to(ROOT)} imports {wrong}"


def test_no_modules_import_each_other_in_a_circle():
    assert circles_of(graph_of_imports()) == []


def graph_of_imports() -> dict[str, set[str]]:
    """The modules of etude that each of them imports, also those that only annotations need."""
    files = {path.relative_to(ROOT / "etude").with_suffix("").as_posix(): path for path in (ROOT / "etude").rglob("*.py")}
    paths = {name.replace("/", ".").removesuffix(".__init__"): path for name, path in files.items()}
    found = {name: {module for module in imports_of(path) if module.startswith("etude.")} for name, path in paths.items()}
    return {name: {module.removeprefix("etude.") for module in modules} & paths.keys() for name, modules in found.items()}


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


@pytest.mark.parametrize("room", ["settings", "callbacks", "llm_client", "tasks", "rewards", "knowledge"])
def test_these_rooms_need_no_torch(room):
    modules = [f"etude.{room}.{path.stem}" for path in sorted((ROOT / "etude" / room).glob("*.py")) if path.stem != "__init__"]
    code = f"import sys, importlib; [importlib.import_module(m) for m in {modules}]; sys.exit('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr or "torch was imported"


@pytest.mark.parametrize(("package", "others"), [("experiments", ("studies", "bench")), ("studies", ("bench",)), ("bench", ("studies",))])
def test_studies_and_benchmarks_know_what_they_share_and_not_each_other(package, others):
    for path in sources(package):
        wrong = [module for module in imports_of(path) if any(begins_with(module, other) for other in others)]
        assert not wrong, f"{path.relative_to(ROOT)} imports {wrong}"


def test_a_study_and_a_benchmark_is_what_its_folder_holds():
    for path in (path for path in (ROOT / "studies").glob("*.py") if not path.stem.startswith("__")):
        assert path.read_text(encoding="utf8").endswith('if __name__ == "__main__":\n    STUDY.main()\n'), path.name
    commands = [*(ROOT / "bench").glob("*.py"), *(ROOT / "bench").glob("*/__main__.py")]
    for path in (path for path in commands if path.name != "__init__.py"):
        assert path.read_text(encoding="utf8").endswith('if __name__ == "__main__":\n    BENCHMARK.main()\n'), path.name


PARTS_OF_A_RUN = {
    "etude.recipes.practice.Loop",
    "etude.training.callback_list.CallbackList",
    "etude.training.practice_run.PracticeRun",
}


def test_one_file_of_studies_and_benchmarks_knows_what_a_practice_run_is_made_of():
    for path in (path for package in ("experiments", "studies", "bench") for path in sources(package)):
        knows = bool(imports_of(path) & PARTS_OF_A_RUN)
        assert knows == (path.name == "prepared_run.py"), path.name


TABLES = {
    "verifiers": VERIFIERS,
    "advantages": ADVANTAGES,
    "advantages of steps": STEP_ADVANTAGES,
    "shapings": SHAPING,
    "losses": POLICY_LOSSES,
    "preferences": PREFERENCE_LOSSES,
    "pairs": PAIRS,
    "learning methods": LEARNING,
    "searches": (*SEARCHES, REFINE),
    "decoding": DECODING,
    "rewards": (*REWARDS, *OTHER_REWARDS),
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


def test_every_callback_has_a_place_on_its_page():
    text = (ROOT / "docs" / "callbacks.md").read_text(encoding="utf8")
    missing = [name for name in CALLBACKS if f"`{name}`" not in text]
    assert not missing


def test_modules_that_texts_name_are_there():
    texts = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md"), *(ROOT / "docs").rglob("*.ipynb")]
    texts += [path for package in ("etude", "experiments", "studies", "bench", "tests") for path in sources(package)]
    named = {
        (path.relative_to(ROOT), name) for path in texts for name in re.findall(r"`(etude(?:\.\w+)+)`", path.read_text(encoding="utf8"))
    }
    named |= {(path, name.removesuffix(".py").replace("/", ".")) for path, name in files_named(texts)}
    assert [(str(path), name) for path, name in sorted(named) if name != "etude.yaml" and not is_there(name)] == []


def files_named(texts: list[Path]) -> set[tuple[Path, str]]:
    return {
        (path.relative_to(ROOT), name) for path in texts for name in re.findall(r"`(etude/[\w/]+\.py)`", path.read_text(encoding="utf8"))
    }


def is_there(name: str) -> bool:
    """Tell whether a dotted name is a module of etude, or something that one of its modules has."""
    parts, place, path = name.split("."), 0, ROOT
    while place < len(parts) and ((path / parts[place]).is_dir() or (path / f"{parts[place]}.py").is_file()):
        path, place = path / parts[place], place + 1
    own = parts[place:]
    file = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    return file.is_file() and all(re.search(rf"\b{part}\b", file.read_text(encoding="utf8")) for part in own)


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
