"""Networks: `image (b, c, h, w)` of any height and width → logits `(b, classes, h, w)`."""
