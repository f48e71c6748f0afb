"""A child process that does not outlive its parent."""

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def die_with(parent: int, by: signal.Signals) -> None:
    """Have the kernel send a signal here when the parent dies, however that happens; elsewhere than on Linux the closed pipe must do."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, by)
    if os.getppid() != parent:  # it died before the call
        sys.exit(0)
