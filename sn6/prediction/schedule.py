"""Order the steps of a prediction: which wait for which, and which are ready."""

from collections import defaultdict, deque
from collections.abc import Collection, Mapping, Set
from typing import Any, Literal, NamedTuple

from sn6.prediction.plan import Plan

COUNTED = ("fuse", "average", "measure")  # kinds of steps in the progress that is shown, beside windows


class Step(NamedTuple):
    """A step after the windows of an image are predicted.

    Attributes:
        kind: "outputs" of an image are complete, which is no work of its own; "fuse" a block; "finish" an image; "map";
            of a round of registration: "average" a block, "measure" an image, "solve" for all shifts
        key: number of the image or map, or the block; of a registration its round, or (round, block or image)
    """

    kind: Literal["outputs", "fuse", "finish", "map", "average", "measure", "solve"]
    key: Any


class Schedule:
    """Tell which steps are ready.

    Args:
        waits: step → those that have to be done before it; a step that is nowhere a key is done elsewhere
    """

    def __init__(self, waits: Mapping[Step, Set[Step]]) -> None:
        self.remaining = {step: len(others) for step, others in waits.items()}
        self.followers: dict[Step, list[Step]] = defaultdict(list)
        for step, others in waits.items():
            for other in others:
                self.followers[other].append(step)
        self.ready = deque(step for step, count in self.remaining.items() if not count)

    def complete(self, step: Step) -> None:
        """Mark a step as done: those that waited only for it are ready."""
        for follower in self.followers.pop(step, []):
            self.remaining[follower] -= 1
            if not self.remaining[follower]:
                self.ready.append(follower)


def steps_of(plan: Plan) -> tuple[dict[Step, set[Step]], set[int]]:
    """Return the steps of a plan that are not done yet, each with those that it waits for, and the images to predict.

    A block is fused when all of its images are predicted, an image is finished when all of its blocks are fused, and a
    map when all of its blocks are. With registration no block is fused before the shifts of all images are known.
    """
    layout = plan.layout
    unfinished = [number for number in range(len(plan.images)) if not plan.part(number).exists()]
    maps = [number for number in plan.maps_to_merge if not plan.map_part(number).exists()]
    wanted = {block for number in unfinished for block in layout.blocks_of(number)}
    wanted |= {block for block in layout.blocks if block.map in maps}
    blocks = sorted(block for block in wanted if not plan.fused.path(block).exists())
    images = sorted({*unfinished, *(number for block in blocks for number in layout.images_of(block))})
    outputs = {number: Step("outputs", number) for number in images if plan.missing(number)}
    fuse = {block: Step("fuse", block) for block in blocks}
    waits = registration_steps(plan, outputs)
    solved = {step for step in waits if step == Step("solve", len(plan.rounds) - 1)}
    for block in blocks:
        waits[fuse[block]] = solved | {outputs[one] for one in layout.images_of(block) if one in outputs}
    for number in unfinished:
        of_blocks = {fuse[block] for block in layout.blocks_of(number) if block in fuse}
        waits[Step("finish", number)] = of_blocks | {outputs[one] for one in (number,) if one in outputs}
    for number in maps:
        waits[Step("map", number)] = {step for block, step in fuse.items() if block.map == number}
    return waits, set(outputs)


def steps_of_images(plan: Plan, numbers: Collection[int]) -> tuple[dict[Step, set[Step]], set[int]]:
    """Return the steps of some images that need no other image, and those images to predict, as `steps_of` does.

    Images that are fused with others have no such step: they are predicted.
    """
    on_map = {number for number in numbers if plan.layout.place(number) is not None}
    unfinished = [number for number in numbers if number not in on_map and not plan.part(number).exists()]
    predicted = {number for number in (*on_map, *unfinished) if plan.missing(number)}
    waits = {
        Step("finish", number): {Step("outputs", number)} if number in predicted else set() for number in unfinished
    }
    return waits, predicted


def registration_steps(plan: Plan, outputs: Mapping[int, Step]) -> dict[Step, set[Step]]:
    """Return the steps of the registration that are not done yet, each with those that it waits for.

    A block is averaged when all of its images are predicted and the round before is solved; an image is measured when
    all of its blocks are averaged; a round is solved when all images are measured.

    Args:
        plan: with or without registration
        outputs: number of an image that is not predicted yet → when it is
    """
    waits: dict[Step, set[Step]] = {}
    before: set[Step] = set()
    for number, one in enumerate(plan.rounds):
        if one.shifts_file.exists():
            continue
        average = {
            block: Step("average", (number, block))
            for block in plan.layout.blocks
            if not one.averages_file(block).exists()
        }
        for block, step in average.items():
            waits[step] = before | {outputs[image] for image in plan.layout.images_of(block) if image in outputs}
        measure = {
            image: Step("measure", (number, image))
            for image in plan.layout.placed
            if not one.measurement_file(image).exists()
        }
        for image, step in measure.items():
            waits[step] = {average[block] for block in plan.layout.blocks_of(image) if block in average}
        solve = Step("solve", number)
        waits[solve] = set(measure.values())
        before = {solve}
    return waits
