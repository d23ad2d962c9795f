"""All commands: `sn6 run ...` is `python -m sn6.run ...`."""

import runpy
import sys

from sn6 import __version__
from sn6.signals import exit_on_closed_pipe, stop_on_signals

COMMANDS = {
    "run": "train a network and score its footprints; -m runs a sweep",
    "predict": "predict footprints of tiles or any GeoTIFF with trained networks",
    "export": "write a trained network as ONNX, as a program of torch or for QGIS",
    "score": "compute the polygon F1 of a file of footprints",
    "compare": "compare finished runs, with intervals",
    "show": "draw tiles, labels and footprints",
    "simulate": "simulate an archive",
    "download": "download the published archive and weights",
    "check": "read every file of an archive and report what is wrong",
}
HELP = "\n".join(
    [
        "usage: sn6 COMMAND key=value ...",
        "",
        "Map building footprints from radar images (SpaceNet 6).",
        "",
        *(f"  {name:<10} {text}" for name, text in COMMANDS.items()),
        "",
        "sn6 COMMAND --help lists the keys of a command; sn6 --version prints the version.",
    ]
)


@exit_on_closed_pipe()
def main() -> None:
    """Run a command as `python -m sn6.COMMAND` does.

    The command becomes `__main__`, so that Lightning starts the other ranks of a run with `python -m sn6.run`.
    """
    first = sys.argv[1] if len(sys.argv) > 1 else "--help"
    if first in ("-h", "--help"):
        print(HELP)
    elif first == "--version":
        print(f"sn6 {__version__}")
    elif first not in COMMANDS:
        print(f"sn6: unknown command {first!r}; choose from {', '.join(COMMANDS)}", file=sys.stderr)
        sys.exit(1)
    else:
        del sys.argv[1]
        sys.path.append("")  # the folder of the command, last: a user's own networks and losses may be in it
        with stop_on_signals():  # from the imports on
            runpy.run_module(f"sn6.{first}", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
