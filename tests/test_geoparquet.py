"""Reading and writing of GeoParquet, by sn6 and by geopandas, and interrupted writing."""

import json
import re

import geopandas
import numpy as np
import pyarrow.parquet as pq
import pytest
import shapely
from helpers.errors import user_error
from shapely import box

from sn6.footprints import Footprints
from sn6.footprints.ground import TileGrid
from sn6.formats import geoparquet
from sn6.formats.geoparquet import GeoParquetWriter, read_geoparquet

COURTYARD = shapely.Polygon([(1, 1), (21, 1), (21, 21.5), (1, 21.5)], [[(4, 4), (8, 4), (8, 8), (4, 8)]])


def footprints(confidences, *polygons):
    return Footprints(np.array(polygons, dtype=object), np.array(confidences, dtype=np.float64))


def write_tiles(path, crs="EPSG:32631", pixel_size=0.5):
    with GeoParquetWriter(path, crs, pixel_size) as writer:
        writer.write("b_tile_2", (591550.0, 5750000.0), footprints([0.1, 1], COURTYARD, box(30, 0, 50, 20)))
        writer.write("c_tile_3", (592000.0, 5750000.0), footprints([]))
        writer.write("a_tile_1", (591550.25, 5749550.0), footprints([0.75], box(0, 0, 8, 10)))


def test_geopandas_reads_the_footprints_in_metres(tmp_path):
    write_tiles(tmp_path / "new" / "f.parquet")
    table = geopandas.read_parquet(tmp_path / "new" / "f.parquet")
    assert table.crs.to_epsg() == 32631
    assert table["image_id"].tolist() == ["b_tile_2", "b_tile_2", "a_tile_1"]
    assert table["confidence"].tolist() == [0.1, 1, 0.75]
    assert table["area_m2"].tolist() == pytest.approx([(20 * 20.5 - 16) / 4, 100, 20])
    assert table.area.tolist() == pytest.approx(table["area_m2"].tolist())
    assert table.geometry[1].equals(box(591565, 5749990, 591575, 5750000))
    assert len(table.geometry[0].interiors) == 1
    assert table.total_bounds.tolist() == [591550.25, 5749545.0, 591575.0, 5750000.0]


def test_the_metadata_list_the_evaluated_tiles(tmp_path):
    write_tiles(tmp_path / "f.parquet")
    metadata = pq.read_metadata(tmp_path / "f.parquet").metadata
    assert json.loads(metadata[b"sn6"]) == {
        "pixel_size": 0.5,
        "tiles": {"b_tile_2": [591550, 5750000], "c_tile_3": [592000, 5750000], "a_tile_1": [591550.25, 5749550]},
    }
    assert json.loads(metadata[b"geo"])["columns"]["geometry"]["bbox"] == [591550.25, 5749545.0, 591575.0, 5750000.0]


def test_an_image_without_crs_gives_a_table_without_one(tmp_path):
    write_tiles(tmp_path / "f.parquet", crs=None, pixel_size=1.0)
    assert geopandas.read_parquet(tmp_path / "f.parquet").crs is None


def test_a_file_is_read_in_chunks_as_at_once(tmp_path, monkeypatch):
    write_tiles(tmp_path / "f.parquet")
    for chunk in (1, 2, 100):
        monkeypatch.setattr(geoparquet, "CHUNK", chunk)
        outlines = read_geoparquet(tmp_path / "f.parquet", "confidence")
        assert list(outlines.tiles.values()) == [(591550, 5750000), (592000, 5750000), (591550.25, 5749550)]
        assert outlines.rows("b_tile_2")[0][0].equals(COURTYARD)
        assert [values.tolist() for _, (_, values) in outlines.by_tile()] == [[0.1, 1], [], [0.75]]
    table = geopandas.read_parquet(tmp_path / "f.parquet")
    table.loc[2, "confidence"] = np.nan
    table.to_parquet(tmp_path / "f.parquet")
    monkeypatch.setattr(geoparquet, "CHUNK", 2)
    with user_error("invalid_value", key=tmp_path / "f.parquet", value=None) as caught:
        read_geoparquet(tmp_path / "f.parquet", "confidence", TileGrid(outlines.tiles, "EPSG:32631", 0.5))
    assert {"3", "a_tile_1"} <= set(re.findall(r"\w+", str(caught.value)))


def test_no_footprints_give_an_empty_table(tmp_path):
    with GeoParquetWriter(tmp_path / "f.parquet", "EPSG:32631", 0.5) as writer:
        writer.write("c_tile_3", (592000.0, 5750000.0), footprints([]))
    assert geopandas.read_parquet(tmp_path / "f.parquet").empty


def test_row_groups_are_written_while_tiles_are_added(tmp_path, monkeypatch):
    monkeypatch.setattr(geoparquet, "GROUP", 5)
    with GeoParquetWriter(tmp_path / "f.parquet", "EPSG:32631", 0.5) as writer:
        for i in range(12):
            writer.write(f"tile_{i}", (0.0, 0.0), footprints([0, 0], *[box(0, 0, 10, 10 + i)] * 2))
    assert pq.read_metadata(tmp_path / "f.parquet").num_row_groups == 4
    assert geopandas.read_parquet(tmp_path / "f.parquet").area.tolist() == [25 + 2.5 * (i // 2) for i in range(24)]


def test_an_interrupted_writer_leaves_the_old_file(tmp_path):
    def interrupted():
        with GeoParquetWriter(tmp_path / "f.parquet", "EPSG:32631", 0.5) as writer:
            writer.write("other", (0.0, 0.0), footprints([]))
            raise KeyboardInterrupt

    write_tiles(tmp_path / "f.parquet")
    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert len(geopandas.read_parquet(tmp_path / "f.parquet")) == 3
    assert [path.name for path in tmp_path.iterdir()] == ["f.parquet"]
