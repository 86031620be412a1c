"""What code that isn't ours may change, and the training needs as it was."""

import os
import random
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch


@contextmanager
def undisturbed() -> Iterator[None]:
    """Within, random numbers may be drawn and seeded, and the folder, the threads and the gradients be switched;
    afterwards all is as before: a reward that seeds its own numbers would have each prompt answered alike."""
    here, threads, gradients = Path.cwd(), torch.get_num_threads(), torch.is_grad_enabled()
    python, numpy = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(range(torch.cuda.device_count())):
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)
            os.chdir(here)
            torch.set_grad_enabled(gradients)
            if torch.get_num_threads() != threads:
                torch.set_num_threads(threads)
