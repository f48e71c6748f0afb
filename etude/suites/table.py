"""Table of the suites, by the `command` of their YAML files."""

from pathlib import Path

from etude.errors import unknown
from etude.settings.configuration import command_of, shipped_configurations
from etude.suites.domain import DOMAIN
from etude.suites.harness import SuiteDefinition
from etude.suites.latent_knowledge import LATENT_KNOWLEDGE
from etude.suites.long_context import LONG_CONTEXT
from etude.suites.retention import RETENTION

SUITES = {suite.command: suite for suite in (DOMAIN, LATENT_KNOWLEDGE, LONG_CONTEXT, RETENTION)}


def find_suite(name: str) -> SuiteDefinition:
    """Return the suite of a shipped configuration or a YAML file. Raises UserError for an unknown name."""
    names = {each: suite for suite in SUITES.values() for each in shipped_configurations(suite.command)}
    found = SUITES.get(command_of(Path(name)) or "") if Path(name).is_file() else names.get(name)
    if found is None and not name.endswith((".yaml", ".yml")):
        raise unknown("suite", name, names)
    return found or RETENTION
