"""Optional sections of a configuration: listed, left out, set by long and short names, merged over a file."""

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from etude.errors import UserError
from etude.settings.arguments import arguments_from
from etude.settings.configuration import find_configuration, parse, settings_of, to_plain_values
from etude.settings.sections import Sections, mapping_in, own_classes, sections_of
from etude.training.parse import parse_practice
from etude.training.settings import PracticeSettings


@dataclass(frozen=True)
class Inner:
    rate: float = 0.5


@dataclass(frozen=True)
class Door:
    """A door."""

    width: int = 80
    names: list[str] = field(default_factory=list)
    inner: Inner = field(default_factory=Inner)


@dataclass(frozen=True)
class Window:
    """A window."""

    panes: int

    def __post_init__(self) -> None:
        if self.panes < 1:
            raise UserError(f"window.panes must be at least 1, got {self.panes}")


@dataclass(frozen=True)
class Own:
    """A user's own."""

    size: int = 1
    text: str = "a"


TABLE = {"door": Door, "window": Window}


def settings_class(name: str, own: str | None = None) -> type[Any]:
    return Own if own else TABLE[name]


@dataclass(frozen=True)
class House:
    """A house with parts."""

    rooms: int = 2
    parts: dict[str, Any] = field(
        default_factory=lambda: {"door": Door(names=["front"])}, metadata={"sections": Sections(TABLE, settings_class, "classes", "part")}
    )
    """Parts."""
    classes: dict[str, str] = field(default_factory=dict)


DEFAULT = {"door": Door(names=["front"])}


def house(words: list[str], text: str | None = None, folder: Path | None = None) -> House:
    path = None
    if text is not None and folder is not None:
        path = folder / "house.yaml"
        path.write_text(text)
    return parse(House, path, words)


def practice_with(overrides: dict[str, Any]) -> dict[str, Any]:
    return parse_practice(find_configuration("practice", "tiny"), arguments_from(overrides, PracticeSettings)).callbacks


def test_settings_of_all_parts_are_known_by_dotted_name_with_their_types():
    known = settings_of(House)
    assert list(known) == [
        *("rooms", "parts.door", "parts.door.width", "parts.door.names", "parts.door.inner.rate"),
        *("parts.window", "parts.window.panes", "classes"),
    ]
    assert known["parts.door.width"] is int and known["parts.door"] == bool | str | None
    more = settings_of(House, {"mine": "a.py:B"})
    assert more.keys() - known.keys() == {"parts.mine", "parts.mine.size", "parts.mine.text"}
    assert sections_of(House)["parts"].noun == "part" and sections_of(Door) == {}


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        ([], DEFAULT),
        (["--parts.window.panes", "4"], {**DEFAULT, "window": Window(4)}),
        (["--window.panes", "4"], {**DEFAULT, "window": Window(4)}),
        (["--window.panes=4", "--door.width=90"], {"door": Door(90, ["front"]), "window": Window(4)}),
        (["--door.names", "a", "b"], {"door": Door(names=["a", "b"])}),
        (["--door.inner.rate", "2"], {"door": Door(names=["front"], inner=Inner(2.0))}),
        (["--parts.door", "false"], {}),
        (["--door", "false"], {}),
        (["--door=false", "--window.panes=1"], {"window": Window(1)}),
        (["--parts.door", "true"], DEFAULT),
        (["--parts.door", "null"], {}),
        (["--window", "{panes: 4}"], {**DEFAULT, "window": Window(4)}),
        (
            ["--parts.window={panes: 4}", "--door={width: 90, inner: {rate: 3}}"],
            {"door": Door(90, ["front"], Inner(3.0)), "window": Window(4)},
        ),
        (["--door", "{}"], DEFAULT),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_long_and_short_names_list_set_and_take_out(words, parts):
    found = house(words)
    assert found.parts == parts
    assert list(found.parts) == [name for name in TABLE if name in parts], "in the order of the table"


FILE = "rooms: 3\nparts: {window: {panes: 4}, door: {width: 90}}\n"


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        ([], {"door": Door(90, ["front"]), "window": Window(4)}),
        (["--window.panes", "6"], {"door": Door(90, ["front"]), "window": Window(6)}),
        (["--door.names", "back"], {"door": Door(90, ["back"]), "window": Window(4)}),
        (["--parts.window", "false"], {"door": Door(90, ["front"])}),
        (["--window={panes: 6}"], {"door": Door(90, ["front"]), "window": Window(6)}),
        (["--window=true"], {"door": Door(90, ["front"]), "window": Window(4)}),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_overrides_are_merged_over_a_file(words, parts, tmp_path):
    assert house(words, FILE, tmp_path) == House(3, parts)


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("parts: {door: }", DEFAULT),
        ("parts: {door: {}}", DEFAULT),
        ("parts: {door: true}", DEFAULT),
        ("parts: {door: false}", {}),
        ("parts: {window: false}", DEFAULT),
        ("parts:", DEFAULT),
        ("parts:\n  window:\n    panes: 2\n", {**DEFAULT, "window": Window(2)}),
    ],
)
def test_a_file_lists_parts_and_takes_them_out(text, parts, tmp_path):
    assert house([], text, tmp_path).parts == parts


def test_a_part_that_a_file_takes_out_comes_back_with_a_setting(tmp_path):
    text = "parts: {door: false}\n"
    assert house(["--door=true"], text, tmp_path).parts == DEFAULT
    assert house(["--door.width=70", "--door=true"], text, tmp_path).parts == {"door": Door(70, ["front"])}


def test_users_own_parts_are_last_and_their_classes_are_kept(tmp_path):
    found = house(["--parts.mine", "own.py:Mine", "--mine.size", "3", "--window.panes", "1"])
    assert list(found.parts) == ["door", "window", "mine"] and found.parts["mine"] == Own(3)
    assert found.classes == {"mine": "own.py:Mine"}
    again = house([], f"parts: {{mine: {{size: 3}}}}\nclasses: {found.classes}".replace("'", '"'), tmp_path)
    assert again.parts["mine"] == Own(3) and again.classes == found.classes


def test_a_written_configuration_is_read_as_what_it_was(tmp_path):
    found = house(["--parts.mine={class: own.py:Mine, text: b}", "--window.panes=2", "--door=false"])
    assert to_plain_values(found) == {
        "rooms": 2,
        "parts": {"window": {"panes": 2}, "mine": {"size": 1, "text": "b"}},
        "classes": {"mine": "own.py:Mine"},
    }


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--window.panes", "0"], r"^parts\.window\.panes must be at least 1, got 0$"),
        (["--window", "true"], r"^parts\.window\.panes must be set: it has no default$"),
        (["--window.pane", "3"], r"^unknown setting --window\.pane: did you mean --(parts\.)?window\.panes\?$"),
        (["--parts.window.pane=3"], r"^unknown setting --parts\.window\.pane: did you mean --parts\.window\.panes\?$"),
        (
            ["--parts.windw.panes=3"],
            r"^unknown part 'windw': did you mean 'window'\? Choices: door, window\. One of your own names its class, ",
        ),
        (["--parts", "true"], r"^--parts is a section: set --parts\.door and the like$"),
        (["--door", "wide"], r"^parts\.door: expected true or false, or its settings, got wide$"),
        (["--parts.door", "own.py:Mine"], r"^parts\.door is a part that ships: give own\.py:Mine another name$"),
        (["--parts.window.panes=3", "--window.panes=4"], r"^--window\.panes is given twice: 3 and 4; give it once$"),
        (["--door=false", "--parts.door=true"], r"^--parts\.door is given twice: false and true; give it once$"),
        (["--door={widht: 3}"], r"^unknown setting --parts\.door\.widht: did you mean --(parts\.)?door\.width\?$"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_mistake_on_the_command_line_is_one_sentence(words, message):
    with pytest.raises(UserError, match=message):
        house(words)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("parts: {window: {panes: 0}}", "parts.window.panes must be at least 1, got 0"),
        ("parts: {window: {pane: 3}}", "house.yaml: unknown setting parts.window.pane: did you mean parts.window.panes?"),
        ("parts: {windw: {panes: 3}}", "One of your own names its class, parts: {windw: {class: FILE.py:CLASS}}"),
        ("parts: [door]", "house.yaml: parts: expected settings as `key: value` lines, got ['door']"),
        ("parts: {door: wide}", "parts.door: expected true or false, or its settings, got wide"),
        ("window: {panes: 3}", "house.yaml: unknown setting window: did you mean parts.window"),
    ],
)
def test_a_mistake_in_a_file_is_one_sentence(text, message, tmp_path):
    with pytest.raises(UserError, match=re.escape(message)):
        house([], text, tmp_path)


def test_a_short_name_that_is_another_settings_own_is_that_one():
    @dataclass(frozen=True)
    class Crowded:
        door: Door = field(default_factory=Door)
        parts: dict[str, Any] = field(default_factory=dict, metadata={"sections": Sections(TABLE, settings_class, "classes")})
        classes: dict[str, str] = field(default_factory=dict)

    Crowded.__annotations__ |= {"door": Door, "parts": dict[str, Any], "classes": dict[str, str]}
    found = parse(Crowded, None, ["--door.width", "70", "--parts.door.width", "60"])
    assert found.door.width == 70 and found.parts == {"door": Door(60)}


def test_classes_of_users_are_found_in_nested_and_dotted_values():
    assert own_classes(House, {"parts": {"a": "f.py:A", "b": {"class": "f.py:B"}, "door": {"width": 3}}}) == {"a": "f.py:A", "b": "f.py:B"}
    assert own_classes(House, {"parts.a": "f.py:A", "parts.b.class": "f.py:B", "parts.c": "{class: f.py:C, size: 2}"}) == {
        "a": "f.py:A",
        "b": "f.py:B",
        "c": "f.py:C",
    }
    assert own_classes(House, {"classes": {"a": "f.py:A"}, "parts": None, "rooms": 3}) == {"a": "f.py:A"}
    assert own_classes(Door, {"width": 3}) == {}


def test_one_text_may_hold_the_settings_of_a_part():
    assert mapping_in("{every: 10}") == mapping_in('{"every": 10}') == {"every": 10}
    assert mapping_in("f.py:A") is None and mapping_in("{every") is None and mapping_in("[a]") is None


GATE = {"every": 3, "max_divergence": 1}


@pytest.mark.parametrize(
    "overrides",
    [
        {"callbacks.gate.every": 3, "callbacks.gate.max_divergence": 1},
        {"gate.every": 3, "gate.max_divergence": 1},
        {"callbacks.gate": GATE},
        {"gate": GATE},
        {"callbacks": {"gate": GATE}},
        {"callbacks.gate.every": 3, "gate": {"max_divergence": 1}},
    ],
    ids=str,
)
def test_python_values_list_callbacks_in_every_spelling(overrides):
    found = practice_with(overrides)
    assert list(found) == ["collapse", "gate"] and (found["gate"].every, found["gate"].max_divergence) == (3, 1.0)


@pytest.mark.parametrize("overrides", [{"collapse": False}, {"callbacks.collapse": False}, {"callbacks": {"collapse": False}}], ids=str)
def test_python_values_take_callbacks_out(overrides):
    assert practice_with(overrides) == {}
    assert list(practice_with(overrides | {"token_budget.tokens": 9})) == ["token_budget"]


def test_python_values_in_two_spellings_at_once_are_refused():
    with pytest.raises(UserError, match=r"--(callbacks\.)?gate\.every is given twice: 3 and 4; give it once"):
        practice_with({"gate.every": 3, "callbacks.gate.every": 4, "gate.max_divergence": 1})


def test_a_short_choice_lists_its_callback_too():
    path = find_configuration("practice", "tiny")
    assert parse_practice(path, ["--curriculum", "weakness"]).callbacks["curriculum"].method == "weakness"
    assert parse_practice(path, ["--curriculum.method", "weakness"]) == parse_practice(path, ["--curriculum", "weakness"])


@pytest.mark.parametrize(
    ("word", "message"),
    [("--callbacks.gates.every", "unknown callback 'gates': did you mean 'gate'?"), ("--gates.every", "did you mean --gate.every?")],
)
def test_an_unknown_callback_comes_with_a_suggestion(word, message):
    with pytest.raises(UserError, match=re.escape(message)):
        parse_practice(find_configuration("practice", "tiny"), [word, "3"])
