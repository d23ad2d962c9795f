"""What is true comes back as it was: out of the archive, into the radar's frame, to polygons, to a file, and scored."""

import numpy as np
import pytest
import shapely

from sn6.data.reader import read_sample
from sn6.data.source import Source, is_rotated
from sn6.datasets.archive import Archive
from sn6.footprints import Footprints, rotate_polygons
from sn6.footprints.polygonize import footprints_from_logits, polygonize
from sn6.formats.challenge_csv import ChallengeCSVWriter, read_proposals
from sn6.metrics.matching import Counts, match_tile

SOURCE = Source("SAR-Intensity", (1, 2, 3, 4), orient=True, min_area=0.0)


def certain(polygons):
    """Buildings whose area stays on its side of 80 px² when the outline moves by a pixel."""
    return (shapely.area(shapely.buffer(polygons, -1)) >= 80) | (shapely.area(shapely.buffer(polygons, 1)) < 80)


def in_own_frame(tile, polygons, shape):
    return rotate_polygons(polygons, *shape) if is_rotated(tile, SOURCE) else polygons


@pytest.mark.parametrize("orientation", [0, 1])
def test_true_instances_score_one(archive_root, tmp_path, orientation):
    """F1 = 1 by the instances; beside it what a perfect binary mask reaches, which merges party walls."""
    archive = Archive(archive_root)
    tiles = [
        tile
        for split in ("train", "test_public")
        for tile in archive.tiles(split, "SAR-Intensity")
        if tile.orientation == orientation
    ]
    proposed, ceiling = {}, Counts()
    for tile in tiles:
        sample = read_sample(archive, tile, SOURCE)
        instances, valid = sample["instances"][0], sample["valid"][0]
        polygons, _ = polygonize(np.ascontiguousarray(instances))
        polygons = in_own_frame(tile, polygons, valid.shape)
        proposed[tile.image_id] = Footprints(polygons, np.ones(len(polygons)))
        mask = footprints_from_logits(np.where(instances > 0, 1.0, -1.0), valid)
        mask_polygons = in_own_frame(tile, mask.polygons, valid.shape)
        ceiling += match_tile(archive.labels(tile).polygons, mask_polygons, mask.confidences).counts
    with ChallengeCSVWriter(tmp_path / "proposals.csv") as writer:
        for image_id, footprints in proposed.items():
            writer.write(image_id, (0.0, 0.0), footprints)
    found = read_proposals(tmp_path / "proposals.csv")

    total = Counts()
    for tile in tiles:
        truth, polygons = archive.labels(tile).polygons, found[tile.image_id].polygons
        match = match_tile(truth, polygons, found[tile.image_id].confidences)
        hits = certain(truth[match.truth_of_proposal[match.hits]])
        missed, invented = certain(truth[match.missed]), certain(polygons[match.invented])
        total += Counts(int(hits.sum()), int(invented.sum()), int(missed.sum()))
    print(f"orientation {orientation}: true instances F1 {total.f1}, a perfect binary mask F1 {ceiling.f1:.3f}")
    assert total.tp > 50
    assert total.f1 == 1
    assert 0.2 < ceiling.f1 < 0.9  # party walls are lost
    assert ceiling.f1 < 1


def test_footprints_of_turned_tiles_land_where_the_buildings_stand(archive_root):
    """The GeoJSON of the archive is in metres: a building's middle, by way of the turned sample, lies in it."""
    archive = Archive(archive_root)
    tile = next(t for t in archive.tiles("train", "SAR-Intensity") if t.orientation == 1 and len(archive.labels(t)))
    sample = read_sample(archive, tile, SOURCE)
    polygons, numbers = polygonize(np.ascontiguousarray(sample["instances"][0]))
    polygons = rotate_polygons(polygons, *sample["valid"].shape[1:])
    west, _, _, north = tile.bounds
    truth = archive.labels(tile).polygons
    for polygon, number in zip(polygons, numbers, strict=True):
        label = shapely.transform(truth[number - 1], lambda xy: xy * (0.5, -0.5) + (west, north))
        middle = polygon.representative_point()
        assert label.distance(shapely.Point(west + middle.x / 2, north - middle.y / 2)) < 0.5
