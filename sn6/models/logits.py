"""Compute the outputs of any network: of any sizes, for heads of any number of channels, or as the class building."""

import torch
from jaxtyping import Float
from scipy.special import expit
from scipy.special import softmax as softmax_of_array
from torch import Tensor, nn

from sn6.errors import UserError, locate_error
from sn6.models.padding import pad_to_multiple

ONE_VALUE = "Expected more than 1 value per channel when training"  # of torch's batch norm


def fastest_format(device: torch.device, trains: bool) -> torch.memory_format:
    """Return the order of values in memory with which convolutions take least time.

    That is channels last, except for training on a CPU with AVX2 and without AVX-512, where the backward pass of
    convolutions takes up to twice as long with it.

    Args:
        device: of the network
        trains: whether gradients are computed
    """
    is_slow = trains and device.type == "cpu" and torch.backends.cpu.get_cpu_capability() == "AVX2"
    return torch.contiguous_format if is_slow else torch.channels_last


def compute_outputs(
    network: nn.Module,
    image: Float[Tensor, "b c h w"],
    multiple: int,
    channels: int = 1,
    building_class: int | None = None,
) -> Float[Tensor, "b {channels} h w"]:
    """Return the outputs of a network before their activation, at the size of `image`.

    Args:
        network: image → outputs (b, k, h, w), as a tensor or, as torchvision's networks return them, as {"out": tensor}
        image: normalised bands
        multiple: pixels; the image is padded to multiples of it, and the output is cropped
        channels: of all heads
        building_class: channel of building among several classes, whose logit is the only channel; None without classes

    Raises:
        UserError: the network returns something else
    """
    height, width = image.shape[-2:]
    memory_format = fastest_format(image.device, trains=torch.is_grad_enabled())
    padded = pad_to_multiple(image, multiple).contiguous(memory_format=memory_format)
    try:
        output = network(padded)
    except (torch.OutOfMemoryError, UserError):
        raise
    except Exception as error:
        if isinstance(error, ValueError) and ONE_VALUE in str(error):
            raise UserError(
                "batch norm needs more than one value of each channel in training, and an image of shape "
                f"{tuple(padded.shape)} leaves one; set a larger data.batch_size or data.crop",
                kind="conflict",
                key="data.batch_size",
                value=len(padded),
            ) from None
        if type(network).__module__.startswith("sn6."):
            raise
        raise UserError(
            f"{type(network).__name__} fails for an image of shape {tuple(padded.shape)} ({locate_error(error)}); "
            "correct the class, or the bands of the data",
            kind="failed",
            key="model._target_",
        ) from None
    logits = output["out"] if isinstance(output, dict) and "out" in output else output
    check_output(logits, padded, network, channels if building_class is None else None)
    return building_logits(logits[..., :height, :width], building_class)


def check_output(output: object, image: Tensor, network: nn.Module, channels: int | None) -> None:
    """Raise a UserError unless a network returned (b, channels, h, w) at the size of its input; None is any number."""
    batch, _, height, width = image.shape
    if isinstance(output, Tensor):
        size = tuple(output.shape)
        has_size = size[:1] + size[2:] == (batch, height, width)
        is_right = has_size and channels in (None, size[1])
        given = f"a tensor of shape {size}"
    else:
        has_size, is_right, given = False, False, f"a {type(output).__name__}"
    if not is_right:
        raise UserError(
            f"{type(network).__name__} returned {given} for an image of shape {tuple(image.shape)}, but a network has "
            f"to return logits of shape ({batch}, {channels or 'classes'}, {height}, {width}); "
            + (
                "pass the number of channels on to it: NAME_OF_ITS_ARGUMENT: ${model.classes}"
                if has_size
                else "change its forward, for example upsample its output"
            ),
            kind="mismatch",
            key="model._target_",
        )


def building_logits(logits: Float[Tensor, "b k h w"], building_class: int | None) -> Float[Tensor, "b _ h w"]:
    """Return the logit of building: that of its class minus the highest of the other classes.

    It is above 0 exactly where building is the argmax. Without classes the outputs of all heads are returned unchanged.

    Args:
        logits: of the heads, or of several classes before any softmax
        building_class: channel of building among several classes; None without classes
    """
    if building_class is None:
        return logits
    logits = logits.float()
    building = torch.tensor([building_class], device=logits.device)
    others = logits.index_fill(1, building, -torch.inf).amax(dim=1, keepdim=True)
    return logits.index_select(1, building) - others


def sigmoid(logits: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Return the probabilities of logits in float32, on a CPU by SciPy.

    So they are equal to the bit to those of an image that is predicted in windows, which are computed by NumPy; the
    last bit of PyTorch's sigmoid differs.
    """
    if logits.device.type == "cpu":
        return torch.from_numpy(expit(logits.detach().float().numpy()))
    return torch.sigmoid(logits.float())


def softmax(logits: Float[Tensor, "b k h w"]) -> Float[Tensor, "b k h w"]:
    """Return the probabilities of classes from their logits in float32, on a CPU by SciPy as `sigmoid` does."""
    if logits.device.type == "cpu":
        return torch.from_numpy(softmax_of_array(logits.detach().float().numpy(), axis=1))
    return torch.softmax(logits.float(), dim=1)
