"""The work: windows through the networks, images to footprints, on one device or dealt out to several."""

import os
import shutil
import signal
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor, wait
from dataclasses import dataclass
from itertools import groupby, islice
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch

from sn6.errors import UserError
from sn6.footprints import Footprints, rotate_polygons
from sn6.footprints.blocks import PolygonOptions, footprints_by_blocks
from sn6.prediction.images import Image
from sn6.prediction.mosaic import Mosaic
from sn6.prediction.networks import Averaging, Ensemble, load_all
from sn6.prediction.partial_results import write_part
from sn6.prediction.rasters import write_probability
from sn6.processes import keep_freed_memory

Place = tuple[slice, slice]  # rows and columns of a window
Batch = tuple[tuple[int, Place], ...]  # windows of one size: number of the image, place in it


@dataclass(frozen=True)
class Plan:
    """What a worker has to know.

    Attributes:
        checkpoints: whose logits are averaged
        images: all of them; a number stands for its place here
        window: side of a window in pixels
        overlap: pixels that windows share at least
        averaging: flips, scales, precision
        rule: from logits to footprints
        batch: windows at a time
        folder: of what is not done yet
        rasters: folder of the probability rasters, None for none
    """

    checkpoints: tuple[Path, ...]
    images: tuple[Image, ...]
    window: int
    overlap: int
    averaging: Averaging
    rule: PolygonOptions
    batch: int
    folder: Path
    rasters: Path | None

    def mosaic(self, number: int) -> Mosaic:
        """Of the logits of an image."""
        image = self.images[number]
        return Mosaic(self.folder / f"logits{number}", image.height, image.width, self.window, self.overlap)

    def part(self, number: int) -> Path:
        """The footprints of an image; there when the image is done."""
        return self.folder / f"footprints{number}.parquet"

    def missing(self, number: int) -> list[Place]:
        """The windows of an image that are still to be predicted."""
        mosaic = self.mosaic(number)
        return [place for place in mosaic.places() if not mosaic.path(place).exists()]

    def batches(self, numbers: list[int]) -> Iterator[Batch]:
        """The missing windows of the images in their order, neighbours of one size together."""
        windows = ((number, place) for number in numbers for place in self.missing(number))
        for _, same in groupby(windows, lambda window: [side.stop - side.start for side in window[1]]):
            while batch := tuple(islice(same, self.batch)):
                yield batch


class Worker:
    """Does the work on one device.

    Args:
        plan: what there is to do
        device: where the networks compute
    """

    def __init__(self, plan: Plan, device: str) -> None:
        self.plan = plan
        self.ensemble = Ensemble(load_all(plan.checkpoints), device, plan.averaging)

    def predict(self, batch: Batch) -> list[int]:
        """Keeps the logits of windows; returns the numbers of their images."""
        read = [self.plan.images[number].read(*place, self.ensemble.bands) for number, place in batch]
        logits = self.ensemble.logits([pixels for pixels, _ in read], [valid for _, valid in read])
        for (number, place), found in zip(batch, logits, strict=True):
            self.plan.mosaic(number).write(place, found)
        return [number for number, _ in batch]

    def finish(self, number: int) -> list[int]:
        """Makes an image whose windows are all there into footprints, and drops the logits."""
        image, mosaic, rule = self.plan.images[number], self.plan.mosaic(number), self.plan.rule
        if self.plan.rasters is not None:
            write_probability(self.plan.rasters / f"{image.image_id}.tif", image, mosaic)
        found = footprints_by_blocks(mosaic.read, image.height, image.width, rule, image.metres)
        write_part(self.plan.part(number), (in_own_frame(piece, image) for piece in found))
        shutil.rmtree(mosaic.folder)
        return []


def in_own_frame(footprints: Footprints, image: Image) -> Footprints:
    """Turned back, where the network saw the image turned."""
    if not image.turned:
        return footprints
    return Footprints(rotate_polygons(footprints.polygons, image.height, image.width), footprints.confidences)


worker: Worker  # of this process


def start_worker(plan: Plan, device: str, devices: Any = None) -> None:
    """Makes the worker of this process, on `device` or on the next one of a queue."""
    global worker
    keep_freed_memory()
    if devices is not None:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent hears it and stops the others
        device, threads = devices.get()
        torch.set_num_threads(threads)
    worker = Worker(plan, device)


def predict(batch: Batch) -> list[int]:
    """See `Worker.predict`."""
    return worker.predict(batch)


def finish(number: int) -> list[int]:
    """See `Worker.finish`."""
    return worker.finish(number)


def executor(plan: Plan, devices: list[str]) -> Executor:
    """A thread of this process for one device, a process for each of several."""
    if len(devices) == 1:
        return ThreadPoolExecutor(1, initializer=start_worker, initargs=(plan, devices[0]))
    # forked from a server that has imported all and has touched no device
    context = get_context("forkserver")
    context.set_forkserver_preload([__name__])
    queue = context.Queue()
    threads = max(1, torch.get_num_threads() // len(devices))
    for device in devices:
        queue.put((device, threads))
    return ProcessPoolExecutor(len(devices), context, start_worker, (plan, "", queue))


def process_all(plan: Plan, devices: list[str], tell: Callable[[int, int], None]) -> None:
    """Predicts and finishes every image that has no part yet; each window once, on whichever device is free.

    Args:
        plan: what there is to do
        devices: such as ["cuda:0", "cuda:1"]
        tell: is called with the number of windows that are done and of those that there are

    Raises:
        UserError: what a worker could not read or hold
    """
    numbers = [number for number in range(len(plan.images)) if not plan.part(number).exists()]
    left = {number: len(plan.missing(number)) for number in numbers}
    total = sum(left.values())
    ready = deque(number for number in numbers if not left[number])
    batches = plan.batches(numbers)
    running: set[Future[list[int]]] = set()
    with executor(plan, devices) as pool:
        try:
            while True:
                while len(running) < 2 * len(devices) and (task := next_task(pool, ready, batches)) is not None:
                    running.add(task)
                if not running:
                    return
                done, running = wait(running, return_when=FIRST_COMPLETED)
                for number in (number for future in done for number in future.result()):
                    left[number] -= 1
                    if not left[number]:
                        ready.append(number)
                tell(total - sum(left.values()), total)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def next_task(pool: Executor, ready: deque[int], batches: Iterator[Batch]) -> Future[list[int]] | None:
    """Images whose windows are all there go first, so that few logits lie on the disk."""
    if ready:
        return pool.submit(finish, ready.popleft())
    batch = next(batches, None)
    return None if batch is None else pool.submit(predict, batch)


def devices_of(device: str, number: int) -> list[str]:
    """`number` devices of a kind: "cuda" and 2 are cuda:0 and cuda:1, "auto" is cuda where there is one.

    Raises:
        UserError: there are not so many
    """
    kind = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
    if kind == "cpu":
        if number > (os.cpu_count() or 1):
            raise UserError(f"devices={number} does not do; this machine has {os.cpu_count()} processors")
        return ["cpu"] * number
    there = torch.cuda.device_count() if kind.startswith("cuda") else 0
    first, *more = kind.split(":")
    wanted = [int(more[0])] if more and more[0].isdigit() else list(range(number))
    if first != "cuda" or max(wanted) >= there or (more and number > 1):
        raise UserError(f"device={device} devices={number} does not do; this machine has cpu and {there} of cuda")
    return [f"cuda:{index}" for index in wanted]
