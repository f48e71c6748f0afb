"""The report page of one run or several side by side: one HTML file that needs no network, no server and no build.

In: run folders, finished or not. What is there is shown; what is missing or unreadable is named on the page. Out: one file of a few
megabytes at most, since attempts are sampled over the steps and long texts are clipped in the middle.

What a model wrote is untrusted. The template escapes it (autoescape). Attempts travel as JSON in which `<`, `>` and `&` are escaped, and
are rendered with `textContent` alone. The page's Content-Security-Policy allows nothing but its one script, by hash. The same folders give
the same bytes.
"""

from etude.evaluation.report.page import MAX_ATTEMPTS, MAX_RUNS, write_report

__all__ = ["MAX_ATTEMPTS", "MAX_RUNS", "write_report"]
