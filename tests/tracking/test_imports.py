"""What importing the trackers costs: nothing heavy."""

import subprocess
import sys

HEAVY = {"torch", "transformers", "wandb", "mlflow", "matplotlib", "tqdm", "numpy", "tensorboard", "optuna"}
MODULES = (
    "contract",
    "detached",
    "files",
    "mlflow",
    "names",
    "open",
    "plots",
    "reach",
    "sweep_end",
    "tensorboard",
    "wandb",
)


def test_importing_the_trackers_imports_no_heavy_package():
    imports = "; ".join(f"import llmf_hydra.tracking.{module}" for module in MODULES)
    code = f"import sys; {imports}; print(*{{name.partition('.')[0] for name in sys.modules}})"
    loaded = set(
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        ).stdout.split()
    )
    assert "llmf_hydra" in loaded
    assert not loaded & HEAVY
