"""Name the classes of other packages that a run uses, which reading its checkpoint has to be allowed."""

from collections.abc import Mapping
from typing import Any

from sn6.checkpoints.architecture import foreign_targets
from sn6.checkpoints.heads import foreign_heads, target_nodes
from sn6.checkpoints.init_options import network_arguments
from sn6.checkpoints.polygonizer import is_own_polygonizer, target_of


def foreign_classes(config: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the classes that the network of a run, its heads and its polygonizer are of, where they are not of sn6.

    Args:
        config: of a stage, resolved
    """
    foreign = [*foreign_targets(network_arguments(config["model"])), *foreign_heads(target_nodes(config["heads"]))]
    return (*foreign, *(() if is_own_polygonizer(config["polygons"]) else (target_of(config["polygons"]),)))
