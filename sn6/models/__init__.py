"""Networks, which map `image (b, c, h, w)` of any height and width to logits `(b, classes, h, w)`."""
