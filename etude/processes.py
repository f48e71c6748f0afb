"""Child processes that do not outlive their parent."""

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def kill_with_parent(parent: int, by: signal.Signals) -> None:
    """Have Linux send this process a signal when its parent dies, however it dies. On other systems the closed pipe has to do."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, by)
    if os.getppid() != parent:  # it died before the call
        sys.exit(0)
