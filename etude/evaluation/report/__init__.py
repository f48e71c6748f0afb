"""The report page of one run or several side by side: one HTML file that needs no network, no server and no build.

Input: run folders, finished or not; the page names missing and unreadable files. Output: one file of a few megabytes at most, since
attempts are sampled over the steps and long texts are clipped in the middle.

Model texts are untrusted. The template escapes them (autoescape). Attempts are JSON in which `<`, `>` and `&` are escaped, and are rendered
only with `textContent`. The page's Content-Security-Policy allows only its one script, by hash. The same folders give the same bytes.

The same page follows a run that is being written (`etude.evaluation.report.live`): its policy lets the script ask the server that it came
from, and nobody else.
"""

from etude.evaluation.report.page import MAX_ATTEMPTS, MAX_RUNS, write_report

__all__ = ["MAX_ATTEMPTS", "MAX_RUNS", "write_report"]
