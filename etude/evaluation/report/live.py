"""The report page of a run while it is written: read anew when files change, with how far the run has come and its last attempts.

Watching only reads: it takes no lock and keeps no file open. It reads again at most a tenth of the time, so that a run with long logs keeps
its cores. Memory holds one page.
"""

import hashlib
import os
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from etude.evaluation.report.page import contents_of, names_of, render
from etude.evaluation.report.progress import progress_of
from etude.evaluation.report.run_folder import check_is_run, read_run, report_folders
from etude.evaluation.report.writing_process import is_written

MAX_LIVE_ATTEMPTS = 1000
"""Maximum number of attempts on the page, those of the last steps."""
_REST = 9
"""How many times as long as a reading took to wait before the next one."""
_FILES = (
    *("configuration.yaml", "environment.json", "panels.json", "metrics.jsonl", "timings.jsonl", "result.json", "report.html", "lock"),
    *("attempts", "trees", "evaluation"),  # folders: files are renamed into them
)


class LivePage:
    """The page of a run as it stands."""

    def __init__(self, run: Path) -> None:
        """Raises UserError if the folder is not that of a run."""
        check_is_run(run)
        self._run = run
        self._reading = threading.Lock()
        self._shown: tuple[str, str] | None = None
        self._rests_until = 0.0

    def look(self) -> tuple[str, str]:
        """Return the page's version and its text, written anew if the files of the run changed. Any thread may call it."""
        with self._reading:
            begin = time.monotonic()
            if self._shown is None or begin >= self._rests_until:
                version = self._version()
                if self._shown is None or self._shown[0] != version:
                    self._shown = version, self._read(version)
                    self._rests_until = time.monotonic() + _REST * (time.monotonic() - begin)
            return self._shown

    def _version(self) -> str:
        """Return a name of the state of the files, the same in every process that sees the same state."""
        found = [
            (folder.name, is_written(folder), [(state.st_mtime_ns, state.st_size) for state in _states_of(folder)])
            for folder in report_folders(self._run)
        ]
        return hashlib.sha256(repr(found).encode()).hexdigest()[:16]

    def _read(self, version: str) -> str:
        folders = report_folders(self._run)
        runs = [
            read_run(folder, name, MAX_LIVE_ATTEMPTS // len(folders), newest=True)
            for folder, name in zip(folders, names_of(folders), strict=True)
        ]
        progress = [progress_of(folder, run) for folder, run in zip(folders, runs, strict=True)]
        changed = max((state.st_mtime for folder in folders for state in _states_of(folder)), default=0.0)
        return render("report.html.j2", contents_of(runs, progress, version=version, changed=changed))


def _states_of(folder: Path) -> Iterator[os.stat_result]:
    """Yield size and time of change of those files that are there."""
    for name in _FILES:
        with suppress(OSError):
            yield (folder / name).stat()
