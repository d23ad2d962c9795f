"""Pictures while training: the maps of the network, in the tile's own frame."""

import numpy as np
import torch
from helpers.training import make_datamodule, make_segmenter, make_trainer
from scipy.special import expit

import sn6.callbacks.image_logging
from sn6.callbacks.image_logging import ImageLogging
from sn6.callbacks.polygon_f1 import PolygonF1
from sn6.data.normalization import normalize
from sn6.training.quiet import quiet_libraries


def test_the_maps_are_those_of_the_network_north_up(archive_root, tmp_path, monkeypatch):
    """The network looks at each pixel alone: its map of the image as it is on disk is computed again here."""
    drawn = {}

    def record(view, truth, proposals, match, maps):
        drawn[view.title.partition(",")[0]] = maps
        return tile_figure(view, truth, proposals, match, maps)

    tile_figure = sn6.callbacks.image_logging.tile_figure
    monkeypatch.setattr(sn6.callbacks.image_logging, "tile_figure", record)
    data = make_datamodule(archive_root)
    data.setup()
    data.validation_tiles = data._dataset([*data.fold.validation, *data.fold.train][:8])
    network = torch.nn.Conv2d(4, 1, 1)
    trainer = make_trainer(1, tmp_path, callbacks=[PolygonF1(), ImageLogging(tiles=8)])
    with quiet_libraries():
        trainer.validate(make_segmenter(network), data, verbose=False)
    dataset = data.validation_tiles
    rotated = [dataset.is_rotated(index) for index in range(8)]
    assert any(rotated)
    assert not all(rotated)
    weight, bias = network.weight[0, :, 0, 0].detach().numpy(), network.bias.item()
    for tile in (dataset.tiles[index] for index in range(8)):
        if tile.image_id not in drawn:
            continue  # a tile without buildings
        decibels, valid = dataset.data_set.read(tile, "SAR-Intensity", (1, 2, 3, 4))
        image = normalize(decibels, valid, dataset.statistics, "zero")
        expected = expit(np.tensordot(weight, image, 1) + bias)
        np.testing.assert_allclose(drawn[tile.image_id]["mask"][0], expected, atol=1e-5)
    assert len({path.name for path in (tmp_path / "figures").iterdir()}) == len(drawn) >= 2
