"""Encoders of many families by timm, at the sizes of tiles and crops, and in runs."""

import pytest
import torch
from helpers.commands import small_run
from helpers.resuming import weights_of

from sn6.models.timm_unet import TimmUNet

FAMILIES = [
    *("resnet34", "seresnext50_32x4d", "efficientnet_b0", "tf_efficientnet_b5", "tf_efficientnetv2_s"),
    *("convnext_tiny", "convnextv2_tiny", "dpn92", "hrnet_w18", "regnety_032"),
    *("swin_tiny_patch4_window7_224", "caformer_s18"),
]
TRAINED = ["resnet34", "efficientnet_b0", "convnext_tiny", "swin_tiny_patch4_window7_224"]


@pytest.mark.slow
@pytest.mark.parametrize("encoder", FAMILIES)
def test_logits_of_a_tile_and_of_crops(encoder):
    for size, bands, half in ((900, 4, True), (512, 1, False), (333, 2, True)):
        network = TimmUNet(bands, 2, encoder, half_size_head=half).eval()
        with torch.inference_mode():
            logits = network(torch.randn(1, bands, size, size))
        assert logits.shape == (1, 2, size, size)
        assert torch.isfinite(logits).all()
        assert logits.std() > 0


def run_of(encoder, root, *more):
    overrides = [line for line in small_run("timm_unet") if not line.startswith("model.width=")]
    return [*overrides, f"model.encoder={encoder}", "model.widths=[16,16,16,16,16]", f"data.root={root}", *more]


@pytest.mark.slow
@pytest.mark.parametrize("encoder", TRAINED)
def test_an_encoder_trains_resumes_and_predicts(encoder, archive_root, sn6_run, sn6_command, tmp_path):
    run = run_of(encoder, archive_root, "callbacks.resume_point.every_n_steps=1")
    assert sn6_run(*run).status == 0
    (tmp_path / "outputs/it/metrics.json").unlink()  # as if it had been stopped
    resumed = sn6_run(*run, "trainer.max_epochs=2")
    assert resumed.status == 0, resumed.err
    assert "Warning" not in resumed.err
    last = torch.load(tmp_path / "outputs/it/checkpoints/last.ckpt", weights_only=True)
    assert (last["epoch"], last["global_step"]) == (1, 4)
    assert sn6_command("predict", "checkpoint=outputs/it", f"root={archive_root}", "out=prediction").status == 0
    assert (tmp_path / "prediction/proposals.csv").exists()


@pytest.mark.slow
@pytest.mark.parametrize("model", ["resunet", "timm_unet"])
def test_a_resumed_run_has_the_batch_statistics_of_one_that_never_stopped(model, archive_root, sn6_run, tmp_path):
    overrides = run_of("test_efficientnet", archive_root) if model == "timm_unet" else small_run(model)
    run = [line for line in overrides if not line.startswith(("name=", "trainer.max_epochs="))]
    run = [*run, f"data.root={archive_root}"] if model == "resunet" else run
    for overrides in (["name=one", "trainer.max_epochs=2"], ["name=two", "trainer.max_epochs=1"]):
        assert sn6_run(*run, *overrides).status == 0
    (tmp_path / "outputs/two/metrics.json").unlink()  # as if it had been stopped
    assert sn6_run(*run, "name=two", "trainer.max_epochs=2").status == 0
    one, two = (weights_of(tmp_path / "outputs" / name) for name in ("one", "two"))
    assert any("running_var" in name for name in one)
    assert all(torch.equal(tensor, two[name]) for name, tensor in one.items())


@pytest.mark.slow
def test_the_weights_decide_encoder_and_decoder_of_the_next_run(archive_root, sn6_run, tmp_path):
    """The first run has three optical bands; the second gets the network by its metadata and freezes the encoder."""
    optical = ["data=eo", "data.bands=[3,2,1]", "model.in_channels=3", "model.norm=group", "model.half_size_head=true"]
    widths = "model.widths=[16,16,16,16]"
    first = [line for line in run_of("test_efficientnet", archive_root, *optical) if "widths" not in line]
    assert sn6_run(*first, widths).status == 0
    left_out = ("model.encoder", "model.widths", "name=")
    second = [line for line in run_of("", archive_root) if not line.startswith(left_out)]
    handoff = ["weights=outputs/it", "adapt=repeat", "freeze_encoder_epochs=1"]
    assert sn6_run(*second, "name=sar", *(f"callbacks.sar_handoff.{line}" for line in handoff)).status == 0
    start, end = (weights_of(tmp_path / "outputs" / name) for name in ("it", "sar"))
    key = "network.encoder.network.conv_stem.weight"
    torch.testing.assert_close(end[key][:, 3], start[key][:, 0] * 3 / 4)  # frozen since the transfer
    assert not torch.equal(start["network.head.weight"], end["network.head.weight"])
