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
from sn6.formats import geoparquet, layer
from sn6.formats.geoparquet import EDGES, GeoParquetWriter, read_outlines

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
    table = geopandas.read_parquet(tmp_path / "new" / "f.parquet").set_index("id")
    table = table.loc[["b_tile_2_0", "b_tile_2_1", "a_tile_1_0"]]  # they are sorted by place
    assert table.crs.to_epsg() == 32631
    assert table["image_id"].tolist() == ["b_tile_2", "b_tile_2", "a_tile_1"]
    assert table["confidence"].tolist() == [0.1, 1, 0.75]
    assert table["area_m2"].tolist() == pytest.approx([(20 * 20.5 - 16) / 4, 100, 20])
    assert table.area.tolist() == pytest.approx(table["area_m2"].tolist())
    assert table.geometry.iloc[1].equals(box(591565, 5749990, 591575, 5750000))
    assert len(table.geometry.iloc[0].interiors) == 1
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
        outlines = read_outlines(tmp_path / "f.parquet", "confidence")
        assert list(outlines.tiles.values()) == [(591550, 5750000), (592000, 5750000), (591550.25, 5749550)]
        assert outlines.rows("b_tile_2")[0][0].equals(COURTYARD)
        assert [values.tolist() for _, (_, values) in outlines.by_tile()] == [[0.1, 1], [], [0.75]]
    table = geopandas.read_parquet(tmp_path / "f.parquet")
    table = table.sort_values("id", ascending=False, ignore_index=True)
    table.loc[2, "confidence"] = np.nan
    table.to_parquet(tmp_path / "f.parquet")
    monkeypatch.setattr(geoparquet, "CHUNK", 2)
    with user_error("invalid_value", key=tmp_path / "f.parquet", value=None) as caught:
        read_outlines(tmp_path / "f.parquet", "confidence", TileGrid(outlines.tiles, "EPSG:32631", 0.5))
    assert {"3", "a_tile_1"} <= set(re.findall(r"\w+", str(caught.value)))


def test_no_footprints_give_an_empty_table(tmp_path):
    with GeoParquetWriter(tmp_path / "f.parquet", "EPSG:32631", 0.5) as writer:
        writer.write("c_tile_3", (592000.0, 5750000.0), footprints([]))
    assert geopandas.read_parquet(tmp_path / "f.parquet").empty


def test_a_row_group_holds_footprints_of_one_place(tmp_path, monkeypatch):
    """Tiles of a square are written in a random order; a Hilbert curve visits its quarters one after another."""
    monkeypatch.setattr(layer, "GROUP", 16)
    places = np.random.default_rng(0).permutation([(x, y) for x in range(8) for y in range(8)]).tolist()
    with GeoParquetWriter(tmp_path / "f.parquet", "EPSG:32631", 0.5) as writer:
        for number, (x, y) in enumerate(places):
            writer.write(f"tile_{number}", (100.0 * x, 100.0 * y), footprints([number / 64], box(0, 0, 10, 10)))
    metadata = pq.read_metadata(tmp_path / "f.parquet")
    assert metadata.num_row_groups == 4
    column = {metadata.schema.column(i).path: i for i in range(metadata.num_columns)}
    for group in range(4):
        statistics = {edge: metadata.row_group(group).column(column[f"bbox.{edge}"]).statistics for edge in EDGES}
        assert statistics["xmax"].max - statistics["xmin"].min == 305  # half of the square
        assert statistics["ymax"].max - statistics["ymin"].min == 305
    table = geopandas.read_parquet(tmp_path / "f.parquet")
    assert sorted(table["confidence"] * 64) == list(range(64))
    for row in table.itertuples():
        x, y = places[round(row.confidence * 64)]
        assert row.geometry.equals(box(100 * x, 100 * y - 5, 100 * x + 5, 100 * y))
    near = geopandas.read_parquet(tmp_path / "f.parquet", bbox=(0, 0, 150, 150))
    assert len(near) == 4


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
