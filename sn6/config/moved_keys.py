"""Keys of older versions that have another name or place now."""

MOVED = {
    "callbacks.polygon_f1.threshold": "polygons.threshold",
    "callbacks.polygon_f1.min_area": "polygons.min_area",
    "callbacks.polygon_f1.simplify": "polygons.simplify",
    "callbacks.polygon_f1.polygonizer": "polygons",
    "callbacks.calibration.thresholds": "callbacks.calibration.candidates={threshold: [...]}",
    "callbacks.calibration.min_areas": "callbacks.calibration.candidates={min_area: [...]}",
}

MOVED_TARGETS = {f"sn6.segmenter.{name}": f"sn6.schedules.{name}" for name in ("constant", "cosine")}


def moved_key(key: str) -> str | None:
    """Return the message for a key that has moved; None for any other."""
    return f"{key} has moved; set {MOVED[key]}" if key in MOVED else None
