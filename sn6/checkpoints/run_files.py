"""Names of the weights in a run's folder, relative to it."""

BEST = "checkpoints/best.ckpt"  # the epoch with the best validation
LAST, BEFORE_LAST = "checkpoints/last.ckpt", "checkpoints/before_last.ckpt"  # from which a stopped run resumes
WEIGHTS_FILE = "weights.safetensors"  # of an EO run
# Where a run's folder is given instead of a file: the first of these that exists. Of a run in stages the last one,
# or the EO stage.
FINAL_WEIGHTS = (BEST, f"sar/{BEST}", WEIGHTS_FILE)
EO_WEIGHTS = (WEIGHTS_FILE, f"eo/{WEIGHTS_FILE}", BEST)
