"""A network that kills its process, or halts until there is a file `go`, in jobs that an environment variable names."""

import json
import os
import signal
import time
from pathlib import Path

from torch import Tensor

from helpers.bright import FirstBand

ACTIONS = "SN6_TEST_JOBS"  # {"1": ["kill", 3]}: job 1 of an array is killed before its window 3, counted from 0


class Mortal(FirstBand):
    """Return the first band as logits, as long as the process lives.

    Attributes:
        windows: how many this process has predicted
    """

    windows = 0

    def forward(self, image: Tensor) -> Tensor:
        job = os.environ.get("SLURM_ARRAY_TASK_ID", "0") if "SLURM_JOB_ID" in os.environ else None
        action, at = json.loads(os.environ.get(ACTIONS, "{}")).get(job, (None, None))
        if action and self.windows == at:
            while action == "halt" and not Path("go").exists():
                time.sleep(0.1)
            if action != "halt":
                os.kill(os.getpid(), getattr(signal, action))
        Mortal.windows += 1
        return super().forward(image)
