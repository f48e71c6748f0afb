"""Table of the long-context task kinds."""

from collections.abc import Callable, Mapping
from random import Random

from etude.evaluation.long.haystack import Haystack
from etude.evaluation.long.instructions import instructions
from etude.evaluation.long.needles import multi_key, multi_value, single
from etude.evaluation.long.task import LongTask
from etude.evaluation.long.variables import variables
from etude.evaluation.long.words import common, frequent

Generator = Callable[[Random, Haystack, int], LongTask]
"""(random generator, haystack, length of the text in tokens) -> a task."""

KINDS: Mapping[str, Generator] = {
    "single": single,
    "multi_key": multi_key,
    "multi_value": multi_value,
    "variables": variables,
    "common": common,
    "frequent": frequent,
    "instructions": instructions,
}
"""The kinds that need no file. The others are `facts` (bAbI), `meetings` (QMSum) and `stories` (SQuALITY)."""
FROM_FILES = ("facts", "meetings", "stories")
