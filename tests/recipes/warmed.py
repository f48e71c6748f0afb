"""Imported where processes fork from, so that each has what takes long to import, and the options of a practice run, at once."""

import etude.cli
import etude.recipes.practice  # noqa: F401
from etude.configuration import parser_for
from etude.recipes.settings import PracticeSettings

parser_for(PracticeSettings)
