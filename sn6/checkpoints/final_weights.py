"""Write the weights of a checkpoint as a small file, to share and to predict with."""

from pathlib import Path

from sn6.checkpoints.loading import installed_versions, read_checkpoint
from sn6.checkpoints.metadata import CheckpointMetadata, ForeignMetadata
from sn6.checkpoints.weights_file import write_weights


def write_final_weights(checkpoint: Path, path: Path, key: str) -> CheckpointMetadata | ForeignMetadata:
    """Write the network of a checkpoint with its metadata, without optimizer and callbacks; return its metadata.

    A file of another program, which has no metadata to write, is left out.

    Args:
        checkpoint: of a run, after its calibration: predictions with the file equal those with the checkpoint
        path: of the file, which ends in .safetensors
        key: the option that names the checkpoint, for messages

    Raises:
        UserError: the checkpoint cannot be used, see `read_checkpoint`, or the file cannot be written
    """
    weights, metadata = read_checkpoint(checkpoint, key)
    if isinstance(metadata, CheckpointMetadata):
        metadata = metadata.model_copy(update={"versions": installed_versions()})
        write_weights(path, weights, metadata.model_dump())
    return metadata
