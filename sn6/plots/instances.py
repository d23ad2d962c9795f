"""Draw buildings one by one: neighbours in different colours, merged and split ones hatched."""

from heapq import heapify, heappop, heappush

import numpy as np
import shapely
from jaxtyping import Bool, Int, Int64, Shaped
from matplotlib.axes import Axes
from matplotlib.patches import Patch

from sn6.footprints import Polygons
from sn6.metrics.matching import Match
from sn6.plots.tiles import LEGEND, MARK, outline

# Okabe, Ito 2008, Color Universal Design, without black and with violet: distinct with any colour blindness
PALETTE = np.array(["#e69f00", "#56b4e9", "#009e73", "#f0e442", "#0072b2", "#d55e00", "#cc79a7", "#8c5fd4"])
NEAR = 8.0  # pixels; polygons that are nearer than this get different colours


def colours_of_tile(
    truths: Shaped[np.ndarray, "truths"], proposals: Shaped[np.ndarray, "proposals"], match: Match
) -> tuple[Shaped[np.ndarray, "truths"], Shaped[np.ndarray, "proposals"]]:
    """Return a colour for each building and each proposal: a matched pair has the same, neighbours of a side do not."""
    count = len(truths)
    node = np.where(match.true_positives, match.truth_of_proposal, count + np.arange(len(proposals)))
    pairs = np.concatenate([neighbours(truths), node[neighbours(proposals)]])
    colours = PALETTE[colour_graph(count + len(proposals), pairs)]
    return colours[:count], colours[node]


def colours_of(polygons: Shaped[np.ndarray, "n"]) -> Shaped[np.ndarray, "n"]:
    """Return a colour for each polygon, different from those of its neighbours."""
    return PALETTE[colour_graph(len(polygons), neighbours(polygons))]


def neighbours(polygons: Shaped[np.ndarray, "n"]) -> Int64[np.ndarray, "pairs 2"]:
    """Return the pairs of different polygons whose distance is at most `NEAR`."""
    pairs = shapely.STRtree(polygons).query(polygons, predicate="dwithin", distance=NEAR).T
    return pairs[pairs[:, 0] < pairs[:, 1]]


def colour_graph(count: int, pairs: Int[np.ndarray, "pairs 2"]) -> Int64[np.ndarray, " count"]:
    """Return an index into PALETTE for each node, different for joined ones and all indices about equally often.

    Nodes are coloured in the order smallest last (Matula, Beck 1983), in which six colours suffice for a planar graph.
    Where a node is joined with all colours, as in a heap of overlapping polygons, two joined nodes have the same.

    Args:
        count: number of nodes
        pairs: joined nodes
    """
    joined: list[set[int]] = [set() for _ in range(count)]
    for one, other in pairs.tolist():
        joined[one].add(other)
        joined[other].add(one)
    colours, used = np.full(count, -1), np.zeros(len(PALETTE), dtype=int)
    for node in reversed(smallest_first(joined)):
        taken = {int(colours[other]) for other in joined[node] if other != node}
        free = [colour for colour in range(len(PALETTE)) if colour not in taken] or range(len(PALETTE))
        colours[node] = min(free, key=lambda colour: used[colour])
        used[colours[node]] += 1
    return colours


def smallest_first(joined: list[set[int]]) -> list[int]:
    """Return the nodes in the order in which always the one that is joined with the fewest others is taken away."""
    degree = [len(others) for others in joined]
    heap = [(number, node) for node, number in enumerate(degree)]
    heapify(heap)
    order: list[int] = []
    left = set(range(len(joined)))
    while heap:
        number, node = heappop(heap)
        if node not in left or number != degree[node]:
            continue  # an older entry
        left.remove(node)
        order.append(node)
        for other in joined[node] & left:
            degree[other] -= 1
            heappush(heap, (degree[other], other))
    return order


def draw_instances(
    axis: Axes,
    polygons: Polygons,
    colours: Shaped[np.ndarray, "n"],
    marked: Bool[np.ndarray, "n"] | None = None,
    label: str = "",
) -> None:
    """Draw polygons filled with their colours, those that are marked hatched, with a white edge, and in the legend.

    Args:
        axis: panel with a picture of the tile
        polygons: in pixels
        colours: of each
        marked: which are marked; None for no marks and no legend
        label: of the marked ones in the legend
    """
    shapes = np.asarray(polygons, dtype=object)
    drawn = ~shapely.is_empty(shapes)
    faces = [f"{colour}b0" for colour in colours[drawn]]
    axis.add_collection(outline(shapes[drawn], facecolors=faces, edgecolors=list(colours[drawn]), linewidths=1.0))
    if marked is None:
        return
    effects = {"linewidths": 1.6, "path_effects": MARK["path_effects"]}
    hatched = outline(shapes[drawn & marked], facecolors="none", edgecolors="white", hatch="//", **effects)
    axis.add_collection(hatched)
    entry = Patch(facecolor="0.3", edgecolor="white", hatch="//", label=f"{label}: {marked.sum()}")
    axis.legend(handles=[entry], **LEGEND)
