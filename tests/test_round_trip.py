"""Ground truth survives the round trip: archive, radar frame, polygons, file, score."""

import numpy as np
import pytest
import shapely

from sn6.data.reader import read_sample
from sn6.data.source import Source, is_rotated
from sn6.datasets.spacenet6 import PIXEL, PRODUCTS, SpaceNet6
from sn6.footprints import Footprints, rotate_polygons
from sn6.footprints.polygonize import polygonize
from sn6.footprints.threshold import Threshold
from sn6.formats.challenge_csv import ChallengeCSVWriter, read_proposals
from sn6.metrics.matching import Counts, match_tile

SOURCE = Source(PRODUCTS["SAR-Intensity"], (1, 2, 3, 4), orient=True, min_area=0.0)


def far_from_minimum_area(polygons):
    """Return whether the area stays on its side of 80 px² when the outline moves by a pixel."""
    return (shapely.area(shapely.buffer(polygons, -1)) >= 80) | (shapely.area(shapely.buffer(polygons, 1)) < 80)


def to_tile_frame(archive, tile, polygons, shape):
    return rotate_polygons(polygons, *shape) if is_rotated(archive, tile, SOURCE) else polygons


@pytest.mark.parametrize("orientation", [0, 1])
def test_ground_truth_instances_score_one(archive_root, tmp_path, orientation):
    """Instances reach F1 = 1; the ground-truth mask, which merges buildings that touch, has a lower upper bound."""
    archive = SpaceNet6(archive_root)
    tiles = [
        tile
        for split in ("train", "test_public")
        for tile in archive.tiles(split, "SAR-Intensity")
        if tile.orientation == orientation
    ]
    proposed, upper_bound = {}, Counts()
    for tile in tiles:
        sample = read_sample(archive, tile, SOURCE)
        instances, valid = sample["instances"][0], sample["valid"][0]
        polygons, _ = polygonize(np.ascontiguousarray(instances))
        polygons = to_tile_frame(archive, tile, polygons, valid.shape)
        proposed[tile.image_id] = Footprints(polygons, np.ones(len(polygons)))
        mask = Threshold()({"mask": (sample["instances"] > 0).astype(np.float32)}, valid, PIXEL)
        mask_polygons = to_tile_frame(archive, tile, mask.polygons, valid.shape)
        upper_bound += match_tile(archive.labels(tile).polygons, mask_polygons, mask.confidences).counts
    with ChallengeCSVWriter(tmp_path / "proposals.csv") as writer:
        for image_id, footprints in proposed.items():
            writer.write(image_id, (0.0, 0.0), footprints)
    proposals = read_proposals(tmp_path / "proposals.csv")

    total = Counts()
    for tile in tiles:
        truth, polygons = archive.labels(tile).polygons, proposals[tile.image_id].polygons
        match = match_tile(truth, polygons, proposals[tile.image_id].confidences)
        tp = far_from_minimum_area(truth[match.truth_of_proposal[match.true_positives]])
        fp = far_from_minimum_area(polygons[match.false_positives])
        fn = far_from_minimum_area(truth[match.false_negatives])
        total += Counts(int(tp.sum()), int(fp.sum()), int(fn.sum()))
    assert total.tp > 50
    assert total.f1 == 1
    assert 0.2 < upper_bound.f1 < 0.9  # walls between buildings are lost


def test_footprints_of_rotated_tiles_are_at_the_position_of_the_buildings(archive_root):
    """A point inside each building of a rotated sample is inside its label, both in metres."""
    archive = SpaceNet6(archive_root)
    tile = next(t for t in archive.tiles("train", "SAR-Intensity") if t.orientation == 1 and len(archive.labels(t)))
    sample = read_sample(archive, tile, SOURCE)
    polygons, numbers = polygonize(np.ascontiguousarray(sample["instances"][0]))
    polygons = rotate_polygons(polygons, *sample["valid"].shape[1:])
    west, _, _, north = tile.bounds
    truth = archive.labels(tile).polygons
    for polygon, number in zip(polygons, numbers, strict=True):
        label = shapely.transform(truth[number - 1], lambda xy: xy * (0.5, -0.5) + (west, north))
        inside = polygon.representative_point()
        assert label.distance(shapely.Point(west + inside.x / 2, north - inside.y / 2)) < 0.5
