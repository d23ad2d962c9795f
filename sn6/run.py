"""Train: `python -m sn6.run model=ternausnet data=sar loss=bce data.root=DIR`."""

import os
import sys

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from sn6 import __version__
from sn6.config.composition import CONF, TRUST, VERSION_BASE
from sn6.config.composition_errors import one_line_config_errors
from sn6.config.overrides import absolute_config_folders, check_flags, quote_texts
from sn6.errors import one_line_errors
from sn6.processes import end_with_first_rank
from sn6.signals import Stopped, exit_on_closed_pipe, is_first_rank, stop_on_signals
from sn6.sweeps.failure import record_reason
from sn6.training.external_launcher import external_launcher


@hydra.main(**VERSION_BASE, **TRUST, config_path=str(CONF), config_name="config")
def job(config: DictConfig) -> float | None:
    """Run one training, or one job of a sweep and return its objective."""
    context = HydraConfig.get()
    overrides = list(context.overrides.task)
    if context.mode == RunMode.MULTIRUN:
        from sn6.sweeps.job import run_job

        return run_job(config, overrides)
    with one_line_errors(), record_reason(), one_line_config_errors(overrides):
        from sn6.training.experiment import start_run  # torch and Lightning, which --help does without

        start_run(config, overrides)
        return None


@exit_on_closed_pipe()
def main() -> None:
    """Run the command line."""
    if not is_first_rank() and external_launcher() is None:
        end_with_first_rank()
    os.environ["HYDRA_FULL_ERROR"] = "1"  # errors of Hydra are reported in one line here
    if "--version" in sys.argv:
        print(f"sn6 {__version__}")
        return
    with stop_on_signals():
        run_command_line()


def run_command_line() -> None:
    """Run the command line, or print its help or the encoders."""
    typed = sys.argv[1:]
    with one_line_errors():
        check_flags(typed)
        sys.argv[1:] = quote_texts(absolute_config_folders(sys.argv[1:]))
    with one_line_errors(), record_reason(), one_line_config_errors(sys.argv[1:]):
        if {"-h", "--help"} & set(sys.argv):
            from sn6.config.help import help_text

            print(help_text([argument for argument in sys.argv[1:] if not argument.startswith("-")]))
            return
        if any(argument.startswith("model.encoder=") for argument in typed):
            from sn6.training.encoder_list import print_encoders

            if print_encoders(typed):
                return
        try:
            job()
        except Stopped as stopped:
            from sn6.sweeps.sweep import Sweep

            Sweep.record_stop(stopped.status)
            raise


if __name__ == "__main__":
    main()
