"""What a run may use of the machine."""

import pytest
import torch

from etude.device.limits import within_limits
from etude.device.machine import Machine
from etude.errors import UserError


@pytest.mark.parametrize(
    ("machine", "before", "threads"),
    [(Machine(threads=3), None, 3), (Machine(), {"threads": 5}, 5), (Machine(threads=3), {"threads": 5}, 3), (Machine(), {}, None)],
)
def test_numbers_are_computed_by_the_threads_that_are_set_or_that_the_run_began_with(machine, before, threads):
    usual = torch.get_num_threads()
    with within_limits(machine, before=before):
        assert torch.get_num_threads() == (threads or usual)
    assert torch.get_num_threads() == usual


def test_threads_are_given_back_where_something_goes_wrong():
    usual = torch.get_num_threads()
    with pytest.raises(ZeroDivisionError), within_limits(Machine(threads=usual + 1)):
        raise ZeroDivisionError
    assert torch.get_num_threads() == usual


def test_no_threads_are_refused():
    with pytest.raises(UserError, match=r"machine\.threads must be at least 1, got 0"):
        Machine(threads=0)
