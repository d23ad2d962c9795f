"""The network that a config or a checkpoint describes: its class, its arguments, and how it is built."""

import inspect
from collections.abc import Callable, Iterator, Mapping
from importlib import import_module
from typing import Any

from torch import nn

from sn6.config.targets import import_target, make_object
from sn6.errors import UserError
from sn6.models.first_layer import BY_MEAN, FirstLayer

# Keys of conf/any_model.yaml, and those that the recipes of conf/experiment set, for classes that have such arguments.
SHARED_KEYS, RECIPE_KEYS = ("in_channels", "classes"), ("encoder", "width", "widths", "norm", "pretrained")
# What the libraries call the argument that downloads weights: sn6 and timm, segmentation_models_pytorch, torchvision.
PRETRAINED_ARGUMENTS = (
    *("pretrained", "weights_file", "pretrained_backbone"),
    *("encoder_weights",),
    *("weights", "weights_backbone"),
)


def architecture_keys(network: Callable[..., nn.Module]) -> tuple[str, ...]:
    """Return the options of a network that the shapes of its weights depend on, as its class declares them.

    Only networks of sn6 declare them: null leaves these open, for given weights or the default of the class.
    """
    return getattr(network, "architecture_keys", ())


def is_own(network: Callable[..., nn.Module]) -> bool:
    """Return whether a network's class or function is part of sn6."""
    return str(getattr(network, "__module__", "")).startswith("sn6.")


def is_own_network(target: str) -> bool:
    """Return whether a `_target_` is the class of a network of sn6; nothing else of sn6 may be called from a file."""
    module, _, name = target.rpartition(".")
    if not module.startswith("sn6.models."):
        return False
    try:
        network = getattr(import_module(module), name, None)
    except ImportError:
        return False
    return isinstance(network, type) and issubclass(network, nn.Module)


def constructor_arguments(network: Callable[..., nn.Module], options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options without those that the network's class or function need not have an argument for.

    These are `SHARED_KEYS` and `RECIPE_KEYS`: a recipe may be tried with another network.
    """
    parameters = inspect.signature(network).parameters
    optional = (*SHARED_KEYS, *RECIPE_KEYS)
    return {key: value for key, value in options.items() if key not in optional or key in parameters}


def ignored_keys(options: Mapping[str, Any]) -> list[str]:
    """Return the keys of a recipe that the network has no argument for."""
    passed = constructor_arguments(import_target(options["_target_"], "model"), options)
    return [f"model.{key}" for key in RECIPE_KEYS if key in options and key not in passed]


def build_network(options: Mapping[str, Any], fetch_pretrained: bool, first_layer: FirstLayer = BY_MEAN) -> nn.Module:
    """Build a network.

    Args:
        options: `_target_` and the arguments of its class, see `sn6.checkpoints.init_options.network_arguments`
        fetch_pretrained: whether it starts from the pretrained weights that its options name; false where other weights
            replace them, so that nothing is downloaded
        first_layer: how ImageNet weights are adapted to the bands, for networks of sn6 that have some

    Raises:
        UserError: the `_target_` makes something else than a torch.nn.Module
    """
    target = import_target(options["_target_"], "model")
    arguments = constructor_arguments(target, options)
    if not fetch_pretrained:
        arguments |= {key: None for key in PRETRAINED_ARGUMENTS if key in inspect.signature(target).parameters}
    takes_rule = is_own(target) and "first_layer" in inspect.signature(target).parameters
    network = make_object(arguments, "model", **({"first_layer": first_layer} if takes_rule else {}))
    if not isinstance(network, nn.Module):
        raise UserError(
            f"model._target_={options['_target_']} gives a {type(network).__name__}, not a torch.nn.Module; name the "
            "class of a network",
            kind="invalid_value",
            key="model._target_",
            value=options["_target_"],
        )
    return network


def foreign_targets(options: Mapping[str, Any]) -> list[str]:
    """Return the classes in the options of a network that are not part of sn6."""
    return [target for target in dict.fromkeys(targets_in(options)) if not target.startswith("sn6.")]


def targets_in(node: Any) -> Iterator[str]:
    """Yield every `_target_` in the options of a network, its own and those of nested nodes."""
    if isinstance(node, Mapping):
        if "_target_" in node:
            yield str(node["_target_"])
        for value in node.values():
            yield from targets_in(value)
    elif isinstance(node, list | tuple):
        for value in node:
            yield from targets_in(value)
