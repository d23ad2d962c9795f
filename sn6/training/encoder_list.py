"""Print the encoders that a network can be built on: `model.encoder=list`, or `model.encoder=list:PATTERN`."""

import re
import sys
from collections.abc import Sequence

from hydra import compose

from sn6.config.composition import composing
from sn6.config.overrides import quote_texts
from sn6.errors import counted

REQUEST = re.compile(r"""model\.encoder=(['"]?)list(?::(?P<pattern>.*))?\1""")


def print_encoders(arguments: Sequence[str]) -> bool:
    """Print the encoders that are asked for, a line each as soon as it is known; return whether any were.

    Args:
        arguments: of the command line, as the user typed them

    Raises:
        UserError: no encoder fits the pattern
    """
    requests = [match for match in map(REQUEST.fullmatch, arguments) if match]
    if not requests:
        return False
    others = [argument for argument in arguments if not REQUEST.fullmatch(argument) and not argument.startswith("-")]
    with composing(others) as more:
        config = compose("config", quote_texts([*more, *(line for line in others if line not in more)]))
    if config.model.get("_target_") != "sn6.models.timm_unet.TimmUNet":
        return False
    from sn6.models.timm_encoder import encoder_lines, matching_encoders

    names = matching_encoders(requests[-1]["pattern"] or "*")
    print(f"trying {counted(len(names), 'encoder')}: half a second each", file=sys.stderr)
    print(f"{'model.encoder':<40} {'parameters':>12}  {'sizes of its maps':<18} model.pretrained")
    for line in encoder_lines(names):
        print(line, flush=True)
    return True
