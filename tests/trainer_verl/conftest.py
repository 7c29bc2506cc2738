"""A verl run on a CPU, and a server for it. `make test-verl` has the environment that this needs."""

import os
from importlib.util import find_spec
from pathlib import Path

ENVIRONMENT = {
    "VERL_PLATFORM": "cpu",
    "VERL_USE_EXTERNAL_MODULES": "fixtures.verl_on_cpu",
    "VERL_ENGINE_DEVICE": "cuda",  # the engine that verl registers for CUDA; nothing in it needs CUDA
    "HF_HUB_OFFLINE": "1",
    "OMP_NUM_THREADS": "1",
    "PYTHONPATH": str(Path(__file__).parents[1]),
}
"""Of this process and of Ray's workers, which are started from it."""

if find_spec("verl"):
    os.environ.update(ENVIRONMENT)
    pytest_plugins = ["fixtures.verl_run"]
else:
    # verl's transformers and the rest of the project's do not go together: elsewhere these are left out.
    collect_ignore_glob = ["test_*.py"]
