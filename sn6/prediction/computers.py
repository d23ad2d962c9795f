"""Where a prediction is computed: on the devices of this machine, or in the jobs of a cluster."""

from dataclasses import dataclass

from sn6.checkpoints.metadata import Precision
from sn6.errors import counted
from sn6.prediction.cluster import Requests, process_on_cluster, refuse_running_jobs
from sn6.prediction.estimate import megapixels
from sn6.prediction.networks import Network, default_precision
from sn6.prediction.plan import Plan
from sn6.prediction.slurm import SlurmOptions
from sn6.prediction.workers import check_device, list_devices, process_all
from sn6.progress import phase


@dataclass(frozen=True)
class Machine:
    """The devices of this machine, each as often as it has processes."""

    devices: tuple[str, ...]

    @property
    def device(self) -> str:
        """Return the first device."""
        return self.devices[0]

    def precision(self, network: Network) -> Precision:
        """Return the precision in which a network is computed here by default."""
        return default_precision(self.device, network)

    def process(self, plan: Plan) -> None:
        """Process all images and show the progress."""
        refuse_running_jobs(plan.folder)
        size = sum(map(megapixels, plan.images))
        with phase(f"predicting {counted(len(plan.images), 'image')}, {size:,.1f} megapixels") as shown:
            process_all(plan, list(self.devices), shown.update)


@dataclass(frozen=True)
class Cluster:
    """The jobs of a cluster, which may have devices that this machine has not."""

    requests: Requests

    @property
    def device(self) -> str:
        """Return the device of a job."""
        return self.requests.device

    def precision(self, network: Network) -> Precision:
        """Return the precision in which a network is computed there by default: that of its run on any GPU."""
        return default_precision("cpu", network) if self.device == "cpu" else network.precision

    def process(self, plan: Plan) -> None:
        """Process all images in jobs, wait for them and show the progress."""
        process_on_cluster(plan, self.requests)


def find_computer(
    jobs: int | None, options: SlurmOptions, device: str, devices: int, processes: int
) -> Machine | Cluster:
    """Return where to predict.

    Args:
        jobs: largest number of jobs of a cluster; None to predict on this machine
        options: what each job requests
        device: of this machine or of each job
        devices: number of them
        processes: per device

    Raises:
        UserError: the device is unknown, or this machine has fewer
    """
    if jobs is None:
        return Machine(tuple(list_devices(device, devices) * processes))
    check_device(device)
    gpus = options.gpus(device, devices)
    if device == "auto":
        device = "cuda" if gpus else "cpu"
    return Cluster(Requests(jobs, options.parameters(gpus), options.max_num_timeout, device, devices, processes))
