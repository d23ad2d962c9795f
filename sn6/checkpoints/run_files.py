"""Name the files of weights in a run's folder, relative to it."""

BEST = "checkpoints/best.ckpt"  # the epoch with the best validation score
LAST, BEFORE_LAST = "checkpoints/last.ckpt", "checkpoints/before_last.ckpt"  # to resume a stopped run
WEIGHTS_FILE = "weights.safetensors"  # of the same epoch, small: network and metadata, written when a run has finished
# Where a run's folder is given instead of a file, the first of these that exists is read: of a run in stages that of
# the last stage, or of the EO stage. A copy of the folder needs no checkpoints.
FINAL_WEIGHTS = (BEST, f"sar/{BEST}", WEIGHTS_FILE, f"sar/{WEIGHTS_FILE}")
EO_WEIGHTS = (WEIGHTS_FILE, f"eo/{WEIGHTS_FILE}", BEST)
