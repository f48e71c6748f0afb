"""What a person is told of a run that Ctrl-C or SIGTERM ended."""

from etude.training.interruption import Interrupted
from etude.training.run_folder import RunFolder

_ENDING = "; go on with --resume"


def add_resume_note(stop: Interrupted, folder: RunFolder) -> None:
    """Complete the note of an interruption: where the run stopped and how it goes on, or that there is nothing to go on with."""
    if folder.is_begun:
        stop.note = f"{(stop.note or 'between the training steps').removesuffix(_ENDING)}{_ENDING}"
    else:
        stop.note = "before it began: nothing is kept"
