"""Run a plan: predict windows and convert images to footprints, on one device or on several."""

import os
import re
import shutil
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Executor, Future, wait
from dataclasses import replace
from functools import partial
from multiprocessing import get_context
from multiprocessing.forkserver import ensure_running
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool

from sn6.errors import UserError
from sn6.footprints import Footprints, rotate_polygons
from sn6.footprints.blocks import footprints_by_blocks
from sn6.footprints.polygonizer import Maps
from sn6.heads import Heads
from sn6.prediction.ensemble import Ensemble
from sn6.prediction.images import Image
from sn6.prediction.mosaic import Mosaic
from sn6.prediction.networks import load_networks
from sn6.prediction.partial_results import write_part
from sn6.prediction.plan import Batch, Plan
from sn6.prediction.rasters import write_probability
from sn6.processes import WorkerPool, end_with_parent, interrupts_blocked, keep_freed_memory


class Worker:
    """Predict windows and finish images on one device.

    Args:
        plan: the work
        device: device of the networks
    """

    def __init__(self, plan: Plan, device: str) -> None:
        self.plan = plan
        self.ensemble = Ensemble(load_networks(plan.checkpoints, plan.allow), device, plan.averaging)

    def predict(self, batch: Batch) -> list[int]:
        """Write the outputs for windows and return the numbers of their images."""
        inputs = [self.plan.images[number].read(*region) for number, region in batch]
        outputs = self.ensemble.outputs([pixels for pixels, _ in inputs], [valid for _, valid in inputs])
        for (number, region), of_window in zip(batch, outputs, strict=True):
            self.plan.mosaic(number).write(region, of_window)
        return [number for number, _ in batch]

    def finish(self, number: int) -> list[int]:
        """Write the footprints of an image whose windows are all predicted, and delete its outputs."""
        image, mosaic = self.plan.images[number], self.plan.mosaic(number)
        size, read = (image.height, image.width), partial(read_maps, mosaic, self.ensemble.heads)
        if self.plan.rasters is not None:
            write_probability(self.plan.rasters / f"{image.image_id}.tif", image, read)
        chunks = footprints_by_blocks(read, *size, self.plan.polygonizer, image.pixel_metres)
        in_file = (within_area(to_file_frame(chunk, image), image) for chunk in chunks)
        write_part(self.plan.part(number), in_file, bool(self.ensemble.heads.class_names))
        shutil.rmtree(mosaic.folder)
        return []


def read_maps(mosaic: Mosaic, heads: Heads, rows: slice, columns: slice) -> tuple[Maps, Bool[np.ndarray, "h w"]]:
    """Return the maps of a rectangle of an image, and where they are valid."""
    outputs = mosaic.read(rows, columns)
    maps = heads.activate(heads.split(torch.from_numpy(outputs)[None]))
    return {name: pixels[0].numpy() for name, pixels in maps.items()}, ~np.isnan(outputs[0])


def to_file_frame(footprints: Footprints, image: Image) -> Footprints:
    """Rotate footprints back by 180° if the network saw the image rotated."""
    if not image.rotated:
        return footprints
    return replace(footprints, polygons=rotate_polygons(footprints.polygons, image.height, image.width))


def within_area(footprints: Footprints, image: Image) -> Footprints:
    """Return the footprints, in the frame of the file, whose centroid is on the ground to predict."""
    kept = image.is_in_area(footprints.polygons)
    classes = None if footprints.classes is None else footprints.classes[kept]
    return Footprints(footprints.polygons[kept], footprints.confidences[kept], classes)


worker: Worker  # of this process


def start_worker(plan: Plan, device: str, devices: Any = None) -> None:
    """Create the worker of this process, on `device` or on the next device of a queue."""
    global worker
    keep_freed_memory()
    if devices is not None:
        end_with_parent()
        device, threads = devices.get()
        torch.set_num_threads(threads)
    worker = Worker(plan, device)


def predict(batch: Batch) -> list[int]:
    """Call `Worker.predict` of this process."""
    return worker.predict(batch)


def finish(number: int) -> list[int]:
    """Call `Worker.finish` of this process."""
    return worker.finish(number)


class SameThread(Executor):
    """Do the work when it is submitted, so that a signal stops it."""

    def submit(self, function: Callable[..., Any], /, *arguments: Any, **options: Any) -> Future[Any]:
        """Return the finished future of a call; raise its error."""
        future: Future[Any] = Future()
        future.set_result(function(*arguments, **options))
        return future


def start_executor(plan: Plan, devices: list[str]) -> Executor:
    """Prepare this process for one device, or start a process for each of several."""
    if len(devices) == 1:
        start_worker(plan, devices[0])
        return SameThread()
    # forked from a server that has imported everything and has not used a device
    context = get_context("forkserver")
    context.set_forkserver_preload([__name__])
    queue = context.Queue()
    threads = max(1, torch.get_num_threads() // len(devices))
    for device in devices:
        queue.put((device, threads))
    with interrupts_blocked():
        ensure_running()
    return WorkerPool(len(devices), context, start_worker, (plan, "", queue))


def process_all(plan: Plan, devices: list[str], report: Callable[[int, int], None]) -> None:
    """Predict and finish every image that is not finished yet; each window is predicted once, on any free device.

    Args:
        plan: the work
        devices: such as ["cuda:0", "cuda:1"]
        report: called with the number of predicted windows and the number of all windows

    Raises:
        UserError: an image cannot be read, or the memory of a device is too small
    """
    numbers = [number for number in range(len(plan.images)) if not plan.part(number).exists()]
    remaining = {number: len(plan.missing(number)) for number in numbers}
    total = sum(remaining.values())
    ready = deque(number for number in numbers if not remaining[number])
    batches = plan.batches(numbers)
    running: set[Future[list[int]]] = set()
    with start_executor(plan, devices) as pool:
        while True:
            while len(running) < 2 * len(devices) and (task := next_task(pool, ready, batches)) is not None:
                running.add(task)
            if not running:
                return
            done, running = wait(running, return_when=FIRST_COMPLETED)
            for number in (number for future in done for number in future.result()):
                remaining[number] -= 1
                if not remaining[number]:
                    ready.append(number)
            report(total - sum(remaining.values()), total)


def next_task(pool: Executor, ready: deque[int], batches: Iterator[Batch]) -> Future[list[int]] | None:
    """Submit the next task: images that are ready to finish come first, so that few logits are on disk."""
    if ready:
        return pool.submit(finish, ready.popleft())
    batch = next(batches, None)
    return None if batch is None else pool.submit(predict, batch)


def list_devices(device: str, count: int) -> list[str]:
    """Return `count` devices: "cuda" and 2 are cuda:0 and cuda:1; "auto" is cuda if available, else cpu.

    Raises:
        UserError: the device is unknown, or this machine has fewer
    """
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if not re.fullmatch(r"cpu|cuda(:\d+)?", device):
        raise UserError(
            f"unknown device={device}; choose auto, cpu, cuda or cuda:N",
            kind="unknown_value",
            key="device",
            value=device,
        )
    kind, _, index = device.partition(":")
    available = torch.cuda.device_count() if kind == "cuda" else os.cpu_count() or 1
    if int(index or 0) >= available:
        raise UserError(
            f"device={device} is not available (CUDA devices on this machine: {available}); choose another device",
            kind="not_found",
            key="device",
            value=device,
        )
    max_count = 1 if index else available
    if count > max_count:
        raise UserError(
            f"invalid devices={count}: must be at most {max_count} with device={device} on this machine",
            kind="invalid_value",
            key="devices",
            value=count,
        )
    if kind == "cpu":
        return ["cpu"] * count
    return [f"cuda:{number}" for number in ([int(index)] if index else range(count))]
