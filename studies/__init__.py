"""Studies: experiments with a claim, run as `python -m studies.NAME`; `--help` lists the arguments (`experiments.study`)."""

import os

os.environ.setdefault("TQDM_DISABLE", "1")
