"""The door to training: `python -m sn6.run model=ternausnet data=sar loss=bce data.root=DIR`."""

import os
import sys

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from sn6.config import CONF, TRUST, VERSION_BASE, one_line_config_errors
from sn6.errors import one_line_errors
from sn6.sweeps.job import run_job


@hydra.main(**VERSION_BASE, **TRUST, config_path=str(CONF), config_name="config")
def job(config: DictConfig) -> float:
    """One run, or one job of a sweep, whose objective goes back to it."""
    context = HydraConfig.get()
    words = list(context.overrides.task)
    if context.mode == RunMode.MULTIRUN:
        return run_job(config, words)
    with one_line_errors():
        from sn6.training.experiment import (
            explained_run,  # torch and Lightning, which --help and a refused word do without
        )

        return explained_run(config, words)[config.objective]


def main() -> None:
    """Runs the command line."""
    os.environ["HYDRA_FULL_ERROR"] = "1"  # what Hydra raises is told in one line here
    with one_line_errors(), one_line_config_errors(sys.argv[1:]):
        job()


if __name__ == "__main__":
    main()
