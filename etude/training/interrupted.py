"""The note on a run that Ctrl-C or SIGTERM ended."""

from etude.training.interruption import Interrupted
from etude.training.run_folder import RunFolder

_ENDING = "; go on with --resume"


def add_resume_note(stop: Interrupted, folder: RunFolder) -> None:
    """Add to the note where the run stopped and how to resume it, or that nothing is kept."""
    if folder.is_begun:
        stop.note = f"{(stop.note or 'between the training steps').removesuffix(_ENDING)}{_ENDING}"
    else:
        stop.note = "before it began: nothing is kept"
