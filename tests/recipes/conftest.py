"""What tests of the recipes share."""

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def model(finished: Path) -> str:
    """The folder of a model that practised."""
    return str(finished / "model")
