"""What `--help` says of settings."""

import re
from dataclasses import dataclass, field
from typing import Literal

import pytest

from etude.callbacks import CALLBACKS
from etude.errors import UserError
from etude.recipes.adapt_settings import COMMON as adapt
from etude.recipes.adapt_settings import AdaptSettings
from etude.recipes.evaluate_settings import COMMON as evaluate
from etude.recipes.evaluate_settings import EvaluateSettings
from etude.recipes.generate_settings import COMMON as generate
from etude.recipes.generate_settings import GenerateSettings
from etude.settings.configuration import settings_of
from etude.settings.help import help_of, short_help, topic_help
from etude.training.parse import COMMON as practice
from etude.training.settings import PracticeSettings


@dataclass(frozen=True)
class Part:
    """A part.

    More of it.
    """

    rate: float = 0.5
    """How fast, in a text that
    has two lines."""
    kind: Literal["round", "flat"] = "round"


@dataclass(frozen=True)
class LargerPart(Part):
    """A larger part."""

    rate: float = 0.25
    """How fast it is."""


@dataclass(frozen=True)
class Whole:
    """A whole."""

    needed: int
    names: list[str] = field(default_factory=list)
    part: LargerPart = field(default_factory=lambda: LargerPart(kind="flat"))


def test_every_setting_has_its_type_its_default_and_its_text():
    assert help_of(Whole) == (
        "A whole:\n"
        "  --needed NEEDED       (type: int, required)\n"
        "  --names ITEM [ITEM ...]\n"
        "                        (type: list[str], default: [])\n"
        "\n"
        "A larger part:\n"
        "  --part.rate RATE      How fast it is. (type: float, default: 0.25)\n"
        "  --part.kind {round,flat}\n"
        "                        (default: flat)\n"
    )
    assert "How fast, in a text that has two lines." in help_of(Part)


@pytest.mark.parametrize("kind", [PracticeSettings, AdaptSettings, EvaluateSettings, GenerateSettings])
def test_help_has_every_setting_of_a_command_once_and_in_80_columns(kind):
    text = help_of(kind)
    assert sorted(re.findall(r"^  --(\S+)", text, re.MULTILINE)) == sorted(name.removeprefix("callbacks.") for name in settings_of(kind))
    assert max(map(len, text.splitlines())) < 150 and "Literal" not in text and "<class" not in text and "MISSING" not in text


def test_short_help_shows_what_is_asked_for_with_short_names_and_a_recipes_values():
    text = short_help(Whole, ["needed", "part.rate"], {"rate": "part.rate"}, {"needed": 3, "part.rate": 0.25})
    assert text == (
        "common settings:\n"
        "  --needed NEEDED       (type: int, required; here: 3)\n"
        "  --part.rate RATE, --rate\n"
        "                        How fast it is. (type: float, default: 0.25)\n"
        "\n"
        "sections (--help SECTION lists one, --help all everything):\n"
        "  part                  A larger part (2)\n"
    )


def test_help_on_a_section_or_a_setting():
    assert topic_help(PracticeSettings, "learn.optimizer", {}, {}).count("\n  --learn.optimizer.") == 7
    assert topic_help(PracticeSettings, "gate", {}, {}).startswith("Gate against forgetting:\n  --gate.every EVERY")
    assert topic_help(PracticeSettings, "callbacks", {}, {}).count("\n  --") == len(CALLBACKS)
    for topic in ("temperature", "rollout.sampling.temperature", "--rollout.sampling.temperature"):
        text = topic_help(PracticeSettings, topic, {"temperature": "rollout.sampling.temperature"}, {})
        assert text.count("\n  --") == 1 and "--rollout.sampling.temperature TEMPERATURE, --temperature" in text
    with pytest.raises(UserError, match="unknown section of settings 'lern': did you mean 'learn'"):
        topic_help(PracticeSettings, "lern", {}, {})


@pytest.mark.parametrize(
    ("kind", "common"), [(PracticeSettings, practice), (AdaptSettings, adapt), (EvaluateSettings, evaluate), (GenerateSettings, generate)]
)
def test_the_common_settings_of_a_command_are_settings(kind, common):
    assert set(common) <= set(settings_of(kind)) and 15 <= len(common) <= 30


def test_help_lists_optional_features_with_a_switch_and_their_settings():
    text = help_of(PracticeSettings)
    assert re.search(r"--collapse \{true,false\}\n[^-]*\(default: true\)", text) and re.search(
        r"--gate \{true,false\}\s[^-]*\(default: false\)", text
    )
    assert "\nGate against forgetting:\n  --gate.every EVERY" in text


def test_the_short_name_of_an_optional_feature_is_no_other_settings():
    assert not CALLBACKS.keys() & {name.partition(".")[0] for name in settings_of(PracticeSettings)}
