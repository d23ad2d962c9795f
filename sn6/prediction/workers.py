"""Run a plan: predict windows and convert images to footprints, on one device or on several."""

import os
import re
import shutil
import signal
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import FIRST_COMPLETED, Executor, Future, wait
from dataclasses import replace
from functools import partial
from multiprocessing import get_context
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float32

from sn6.errors import UserError
from sn6.footprints import Footprints, rotate_polygons
from sn6.footprints.blocks import footprints_by_blocks
from sn6.footprints.polygonizer import Maps
from sn6.heads import Heads
from sn6.prediction.ensemble import Ensemble
from sn6.prediction.fused_view import FusedView, image_of_map, with_looks
from sn6.prediction.heights import height_head, with_heights
from sn6.prediction.images import Image
from sn6.prediction.map_grid import Block
from sn6.prediction.networks import load_networks
from sn6.prediction.partial_results import write_part
from sn6.prediction.plan import Batch, Plan
from sn6.prediction.rasters import band_names, write_probability
from sn6.prediction.schedule import COUNTED, Schedule, Step, steps_of, steps_of_images
from sn6.processes import WorkerPool, end_with_parent, keep_freed_memory, start_server

ReadOutputs = Callable[[slice, slice], Float32[np.ndarray, "k h w"]]  # rows, columns → outputs, NaN on nodata


class Worker:
    """Predict windows and finish images on one device.

    Args:
        plan: the work
        device: device of the networks
    """

    def __init__(self, plan: Plan, device: str) -> None:
        self.plan = plan
        self.ensemble = Ensemble(load_networks(plan.checkpoints, plan.allow), device, plan.averaging)
        self.heights = height_head(self.ensemble.heads)

    def predict(self, batch: Batch) -> Batch:
        """Write the outputs for windows, and return them."""
        inputs = [self.ensemble.read(self.plan.images[number], region) for number, region in batch]
        outputs = self.ensemble.outputs([pixels for pixels, _ in inputs], [valid for _, valid in inputs])
        for (number, region), of_window in zip(batch, outputs, strict=True):
            cropped = self.ensemble.crop(of_window, self.plan.images[number], region)
            self.plan.mosaic(number).write(region, cropped)
        return batch

    def run(self, step: Step) -> Step:
        """Do a step, and return it."""
        if step.kind == "fuse":
            self.fuse(step.key)
        elif step.kind == "finish":
            self.finish(step.key)
        elif step.kind == "map":
            self.finish_map(step.key)
        else:
            self.register(step)
        return step

    def register(self, step: Step) -> None:
        """Do a step of the registration."""
        heads = self.ensemble.heads
        if step.kind == "solve":
            self.plan.rounds[step.key].solve()
            return
        number, key = step.key
        if step.kind == "average":
            self.plan.rounds[number].average(key, self.plan.mosaic, heads)
        else:
            self.plan.rounds[number].measure(key, self.plan.mosaic(key), heads)

    def fuse(self, block: Block) -> None:
        """Write the mean outputs of the looks at a block whose images are all predicted."""
        assert self.plan.fusion is not None
        maps = replace(self.plan.fused, layout=self.plan.registered)
        maps.write(block, self.plan.mosaic, self.ensemble.heads, self.plan.fusion)

    def finish(self, number: int) -> None:
        """Write the footprints of an image whose windows are all predicted and fused, and delete its outputs."""
        image, mosaic = self.plan.images[number], self.plan.mosaic(number)
        if self.plan.layout.place(number) is not None:
            chunks = self.fused_footprints(number)
        elif self.has_looks:
            chunks = (
                replace(chunk, looks=np.ones(len(chunk), np.int64)) for chunk in self.footprints(image, mosaic.read)
            )
        else:
            chunks = self.footprints(image, mosaic.read)
        in_file = (within_area(chunk, image) for chunk in chunks)
        write_part(self.plan.part(number), in_file, *self.optional)
        shutil.rmtree(mosaic.folder)

    def footprints(self, image: Image, read_outputs: ReadOutputs) -> Iterator[Footprints]:
        """Yield the footprints of an image in the frame of its file, and write its probability."""
        read = partial(read_maps, read_outputs, self.ensemble.heads)
        if self.plan.rasters is not None:
            path = self.plan.rasters / f"{image.image_id}.tif"
            write_probability(path, image, read, band_names(self.ensemble.heads, self.plan.raster_maps))
        size = image.height, image.width
        chunks = footprints_by_blocks(read, *size, self.plan.polygonizer, image.pixel_metres)
        if self.heights is not None:
            chunks = with_heights(chunks, read, self.heights, size)
        for chunk in chunks:
            yield to_file_frame(chunk, image)

    def fused_footprints(self, number: int) -> Iterator[Footprints]:
        """Yield the footprints of an image from the looks of all at its own valid pixels, with the number of looks."""
        view = FusedView(self.plan, number, self.ensemble.heads)
        for chunk in self.footprints(view.image, view.read):
            yield view.to_image(chunk)

    def finish_map(self, number: int) -> None:
        """Write the footprints of a map whose blocks are all fused."""
        fused, heads, image = self.plan.fused, self.ensemble.heads, image_of_map(self.plan, number)

        def read(rows: slice, columns: slice) -> Float32[np.ndarray, "k h w"]:
            return fused.read(number, rows, columns, heads.channels)

        chunks = (within_area(chunk, image) for chunk in self.footprints(image, read))
        counted = (with_looks(chunk, fused, number) for chunk in chunks)
        write_part(self.plan.map_part(number), counted, *self.optional)

    @property
    def has_looks(self) -> bool:
        """Return whether footprints say how many looks they are made from."""
        return self.plan.fusion is not None

    @property
    def optional(self) -> list[str]:
        """Return the attributes that footprints have besides polygons and confidences."""
        has = {
            "classes": bool(self.ensemble.heads.class_names),
            "looks": self.has_looks,
            "heights": self.heights is not None,
        }
        return [name for name, given in has.items() if given]


def read_maps(read: ReadOutputs, heads: Heads, rows: slice, columns: slice) -> tuple[Maps, Bool[np.ndarray, "h w"]]:
    """Return the maps of a rectangle, and where they are valid."""
    outputs = read(rows, columns)
    maps = heads.activate(heads.split(torch.from_numpy(outputs)[None]))
    return {name: pixels[0].numpy() for name, pixels in maps.items()}, ~np.isnan(outputs[0])


def to_file_frame(footprints: Footprints, image: Image) -> Footprints:
    """Rotate footprints back by 180° if the network saw the image rotated."""
    if not image.rotated:
        return footprints
    return replace(footprints, polygons=rotate_polygons(footprints.polygons, image.height, image.width))


def within_area(footprints: Footprints, image: Image) -> Footprints:
    """Return the footprints, in the frame of the file, whose centroid is on the ground to predict."""
    return footprints[image.is_in_area(footprints.polygons)]


worker: Worker  # of this process


def start_worker(plan: Plan, device: str, devices: Any = None) -> None:
    """Create the worker of this process, on `device` or on the next device of a queue."""
    global worker
    keep_freed_memory()
    if devices is not None:
        end_with_parent()
        signal.signal(signal.SIGUSR2, signal.SIG_IGN)  # SLURM's notice to all processes of a job is for the first one
        device, threads = devices.get()
        torch.set_num_threads(threads)
    worker = Worker(plan, device)


def predict(batch: Batch) -> Batch:
    """Call `Worker.predict` of this process."""
    return worker.predict(batch)


def run(step: Step) -> Step:
    """Call `Worker.run` of this process."""
    return worker.run(step)


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
    start_server(__name__)
    queue = context.Queue()
    threads = max(1, torch.get_num_threads() // len(devices))
    for device in devices:
        queue.put((device, threads))
    return WorkerPool(len(devices), context, start_worker, (plan, "", queue))


def process_all(
    plan: Plan, devices: list[str], report: Callable[[int, int], None], images: Collection[int] | None = None
) -> None:
    """Do all steps that are not done yet; each window is predicted once, on any free device.

    Args:
        plan: the work
        devices: such as ["cuda:0", "cuda:1"]
        report: called with the number of windows, blocks and measurements that are done, and that of all of them
        images: numbers of some images, on which no other process works: their windows are predicted, and they are
            finished if they are not fused with others; None for all steps

    Raises:
        UserError: an image cannot be read, or the memory of a device is too small
    """
    waits, predicted = steps_of(plan) if images is None else steps_of_images(plan, images)
    schedule = Schedule(waits)
    numbers = plan.layout.in_order(predicted)
    remaining = {number: len(plan.missing(number)) for number in numbers}
    total, done = sum(remaining.values()) + sum(step.kind in COUNTED for step in waits), 0
    batches = plan.batches(numbers)
    running: set[Future[Step | Batch]] = set()
    with start_executor(plan, devices) as pool:
        while True:
            while len(running) < 2 * len(devices) and (task := next_task(pool, schedule, batches)) is not None:
                running.add(task)
            if not running:
                return
            finished, running = wait(running, return_when=FIRST_COMPLETED)
            for result in (future.result() for future in finished):
                if isinstance(result, Step):
                    done += result.kind in COUNTED
                    schedule.complete(result)
                    delete_used_blocks(plan, result)
                    continue
                done += len(result)
                for number, _ in result:
                    remaining[number] -= 1
                    if not remaining[number]:
                        schedule.complete(Step("outputs", number))
            report(done, total)


def next_task(pool: Executor, schedule: Schedule, batches: Iterator[Batch]) -> Future[Any] | None:
    """Submit the next task: steps that are ready come first, so that few outputs are on disk."""
    if schedule.ready:
        return pool.submit(run, schedule.ready.popleft())
    batch = next(batches, None)
    return None if batch is None else pool.submit(predict, batch)


def delete_used_blocks(plan: Plan, step: Step) -> None:
    """Delete the blocks that no image needs any more after a step, unless maps are made from them."""
    if step.kind != "finish" or plan.merge:
        return
    for block in plan.layout.blocks_of(step.key):
        if all(plan.part(number).exists() for number in plan.layout.images_of(block)):
            plan.fused.path(block).unlink(missing_ok=True)


def check_device(device: str) -> None:
    """Raise a UserError where a device has no name that is known."""
    if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", device):
        raise UserError(
            f"unknown device={device}; choose auto, cpu, cuda or cuda:N",
            kind="unknown_value",
            key="device",
            value=device,
        )


def list_devices(device: str, count: int) -> list[str]:
    """Return `count` devices: "cuda" and 2 are cuda:0 and cuda:1; "auto" is cuda if available, else cpu.

    Raises:
        UserError: the device is unknown, or this machine has fewer
    """
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    check_device(device)
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
