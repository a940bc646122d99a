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


@pytest.fixture
def largest_tensor():
    """A context manager whose ``numel`` is that of the largest tensor that any operation in it gave."""
    import torch
    from torch.utils._python_dispatch import TorchDispatchMode

    class LargestTensor(TorchDispatchMode):
        def __init__(self):
            super().__init__()
            self.numel = 0

        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            result = function(*args, **(kwargs or {}))
            if isinstance(result, torch.Tensor):
                self.numel = max(self.numel, result.numel())
            return result

    return LargestTensor
