import json
from typing import Any, Literal

import pytest

from etude.settings.values import WrongValue, expected, from_text, to_type


@pytest.mark.parametrize(
    ("hint", "text", "value"),
    [
        (str, "1", "1"),
        (str, "null", "null"),
        (str, " a ", " a "),
        (int, "-1", -1),
        (int, "1_000", 1000),
        (bool | Literal["required"], "required", "required"),
        (bool | Literal["required"], "false", False),
        (int | float | None, "0.5", 0.5),
        (int | list[int], "[1]", [1]),
        (float, "1e-5", 1e-5),
        (float, "1", 1.0),
        (float, "inf", float("inf")),
        (float, ".inf", float("inf")),
        (bool, "true", True),
        (bool, "No", False),
        (int | None, "none", None),
        (int | None, "null", None),
        (str | None, "none", "none"),
        (str | None, "null", None),
        (str | None, "", ""),
        (Literal["none", "all"], "none", "none"),
        (list[str], '["[END]", "\\ud83d\\ude00"]', ["[END]", "😀"]),
        (list[int], "[1, 2]", [1, 2]),
        (dict[str, Any], "{a: null, b: [1]}", {"a": None, "b": [1]}),
        (dict[str, float], "{outcome: 1, judge: 0.5}", {"outcome": 1.0, "judge": 0.5}),
        (dict[str, list[int]], '{"plan": [3]}', {"plan": [3]}),
        (tuple[float, float], "[1, 0.95]", (1.0, 0.95)),
    ],
)
def test_text_becomes_a_value_of_the_settings_type(hint, text, value):
    found = from_text(hint, text)
    assert found == value and type(found) is type(value)


@pytest.mark.parametrize(
    ("hint", "text"),
    [
        *((int, text) for text in ("1.0", "1e3", "0x10", "010", "1:30", "true", "", "one", "1_", "1__0")),
        *((float, text) for text in ("nan", ".nan", "fast", "", "010", "1:30", "true")),
        *((bool, text) for text in ("1", "maybe", "")),
        *((Literal["a"], text) for text in ("A", "")),
        *((list[int], text) for text in ("[a]", "1", "{a: 1}", "[1", "[" * 100_000)),
        *((dict[str, float], text) for text in ("a:1", "[1]", "{a: b}", "{a")),
        *((tuple[float, float], text) for text in ("[1]", "1", "[1, 2, 3]")),
    ],
)
def test_a_wrong_type_is_refused_with_the_expected_one(hint, text):
    with pytest.raises(WrongValue) as caught:
        from_text(hint, text)
    assert "\n" not in str(caught.value) and str(caught.value)


def test_values_of_yaml_are_typed_too():
    assert to_type(float, "1e-5") == 1e-5  # which YAML takes for text
    assert to_type(str, 5) == "5" and to_type(str, True) == "true"
    assert to_type(list[str], [1, "a"]) == ["1", "a"]
    for hint, value in ((int, True), (int, 1.5), (float, float("nan")), (str, ["a"]), (str, None), (dict[str, str], [])):
        with pytest.raises(WrongValue):
            to_type(hint, value)


def test_a_value_is_read_again_as_it_was_written():
    for hint, value in ((list[str], ["a b", '"', "\ud800"]), (dict[str, Any], {"x": [1, None]}), (tuple[float, float], [0.9, 0.95])):
        assert json.loads(json.dumps(from_text(hint, json.dumps(value)))) == value


def test_expected_types_are_described_in_words():
    assert expected(bool | Literal["required"]) == "true or false or one of 'required'"
    assert expected(int | None) == "a whole number" and expected(list[int]) == "whole numbers"
