"""Write a style of QGIS, which is used for all layers beside it that have its name."""

from itertools import pairwise
from pathlib import Path
from xml.etree import ElementTree

from sn6.files import write_text

# Classes of confidence, and the colour of their outlines: red, green, blue.
LIMITS = (0.0, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
COLOURS = ("215,48,39", "244,109,67", "253,174,97", "217,239,139", "102,189,99", "26,152,80")
WIDTH = "0.4"  # mm


def write_style(path: Path) -> None:
    """Write a style that draws outlines in the colour of their confidence, without a fill."""
    root = ElementTree.Element("qgis", version="3.28", styleCategories="Symbology")
    renderer = child(root, "renderer-v2", type="graduatedSymbol", attr="confidence", graduatedMethod="GraduatedColor")
    ranges, symbols = child(renderer, "ranges"), child(renderer, "symbols")
    for number, ((lower, upper), colour) in enumerate(zip(pairwise(LIMITS), COLOURS, strict=True)):
        limits = {"lower": str(lower), "upper": str(upper), "label": f"{lower:g} to {upper:g}"}
        child(ranges, "range", symbol=str(number), render="true", **limits)
        symbol = child(symbols, "symbol", name=str(number), type="fill", alpha="1")
        options = child(child(symbol, "layer", **{"class": "SimpleFill", "enabled": "1"}), "Option", type="Map")
        values = {"style": "no", "outline_style": "solid", "outline_color": f"{colour},255", "outline_width": WIDTH}
        for name, value in values.items():
            child(options, "Option", name=name, type="QString", value=value)
    ElementTree.indent(root)
    write_text(path, f"<!DOCTYPE qgis>\n{ElementTree.tostring(root, encoding='unicode')}\n")


def child(parent: ElementTree.Element, tag: str, **attributes: str) -> ElementTree.Element:
    """Add an element to another, and return it."""
    return ElementTree.SubElement(parent, tag, attributes)
