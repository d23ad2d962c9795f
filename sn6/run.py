"""The door to training: `python -m sn6.run model=ternausnet data=sar loss=bce data.root=DIR`."""

import os
import sys

import hydra
from omegaconf import DictConfig

from sn6.config import CONF, one_line_config_errors
from sn6.errors import one_line_errors
from sn6.stage import train


@hydra.main(version_base="1.3", config_path=str(CONF), config_name="config")
def job(config: DictConfig) -> float:
    """One job of Hydra: trains, and returns the objective for a sweep."""
    with one_line_errors(), one_line_config_errors(sys.argv[1:]):
        return train(config)[config.objective]


def main() -> None:
    """Runs the command line."""
    os.environ["HYDRA_FULL_ERROR"] = "1"  # what Hydra raises is told in one line here
    with one_line_errors(), one_line_config_errors(sys.argv[1:]):
        job()


if __name__ == "__main__":
    main()
