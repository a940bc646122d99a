"""What every test may rely on."""

import sys

import pytest


@pytest.fixture(autouse=True)
def fresh_accelerate():
    """accelerate keeps its state for the whole process; no test finds what another one left."""
    yield
    if "accelerate" in sys.modules:
        from accelerate.state import AcceleratorState, GradientState

        AcceleratorState._reset_state(reset_partial_state=True)
        GradientState._reset_state()
