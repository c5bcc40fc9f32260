"""A GPU does what the CPU does, to stated tolerances. Skipped where there is none."""

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest
import torch

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")


@pytest.fixture(scope="module")
def measure() -> ModuleType:
    place = Path(__file__).with_name("measure.py")
    found = importlib.util.spec_from_file_location("measure", place)
    assert found is not None and found.loader is not None
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return module


def test_a_gpu_is_as_near_to_the_cpu_as_is_stated(measure: ModuleType) -> None:
    found = measure.differences("cuda")
    assert found.keys() == measure.TOLERANCES.keys()
    far = {name: value for name, value in found.items() if not value <= measure.TOLERANCES[name]}
    assert not far
