"""Calibration metrics: does the confidence of an answer match its accuracy, and are the most confident answers the correct ones?

ece     sum over ten bins of equal width of |mean confidence - share right| by the bin's share of answers (expected calibration error,
        Guo et al. 2017, arXiv 1706.04599)
aurc    the area under the risk-coverage curve: the mean over coverages 1/n, 2/n, ..., 1 of the share of wrong answers among the most
        confident ones; answers of the same confidence enter together, each with their mean error
"""

from collections.abc import Sequence

import numpy as np

_BINS = 10


def expected_calibration_error(confidences: Sequence[float], right: Sequence[bool]) -> float:
    """Return the expected calibration error in [0, 1]; 0 if every bin's accuracy equals its mean confidence.

    >>> expected_calibration_error([0.9, 0.9, 0.25, 0.25], [True, True, False, True])
    0.175
    """
    sure_N, right_N = np.array(confidences), np.array(right, dtype=float)
    bin_N = np.minimum((sure_N * _BINS).astype(int), _BINS - 1)
    parts = [np.flatnonzero(bin_N == number) for number in range(_BINS)]
    gaps = [abs(float(sure_N[part].mean() - right_N[part].mean())) * len(part) for part in parts if len(part)]
    return round(sum(gaps) / len(sure_N), 12)


def risk_coverage(confidences: Sequence[float], right: Sequence[bool]) -> list[float]:
    """Return the share of wrong answers among the most confident 1, 2, ..., n answers.

    >>> risk_coverage([0.9, 0.5, 0.5], [True, False, True])
    [0.0, 0.25, 0.3333333333333333]
    """
    sure_N, wrong_N = np.array(confidences), 1 - np.array(right, dtype=float)
    values = sorted(set(sure_N.tolist()), reverse=True)
    each_N = np.concatenate([np.full((sure_N == value).sum(), wrong_N[sure_N == value].mean()) for value in values])
    found: list[float] = (each_N.cumsum() / np.arange(1, len(each_N) + 1)).tolist()
    return found
