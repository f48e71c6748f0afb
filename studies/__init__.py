"""Studies: one claim each, run as `python -m studies.NAME [--data DIR] [--hours H] [--only ID ...] [--seeds S ...] [--tiny] [--out DIR]`.

A study is a table of cells (arm x seed), one file each, skipped when present; `result.json` is a pure reduction of the cells.
"""

import os

os.environ.setdefault("TQDM_DISABLE", "1")
