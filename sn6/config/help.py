"""The help of `sn6.run`: groups with their choices, and every key with its value and what conf/ says of it."""

from collections.abc import Sequence

from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from sn6.config.comments import commented_keys, declared_keys, described
from sn6.config.composition import CONF, VERSION_BASE

COLUMN = 44  # where comments start
HEADER = """\
Train a network on tiles of SpaceNet 6, score its footprints, and write both to outputs/<name>.

  python -m sn6.run experiment=quickstart                      a simulated archive, some minutes on a laptop
  python -m sn6.run data.root=DIR                              TernausNet on the SAR tiles of an archive
  python -m sn6.run data.root=DIR data=eo model=unet           U-Net on the optical tiles
  python -m sn6.run data.root=DIR trainer.max_epochs=50 loss=focal_dice optimizer.lr=3e-4
"""
FOOTER = """\
Flags: --cfg job prints the config and stops, --info more, --hydra-help lists those of Hydra, -m runs a sweep.
"""


def help_text(overrides: Sequence[str]) -> str:
    """Return the help, with the keys of the groups that the overrides choose.

    Args:
        overrides: as Hydra reads them
    """
    with initialize_config_dir(str(CONF), **VERSION_BASE):
        config = compose("config", overrides=list(overrides))
    parts = [HEADER, "== Groups: choose with group=name (`sn6.run model=unet --help` shows its keys) =="]
    parts += [
        *group_lines(),
        "",
        "== Keys: set any with key=value ==",
        *key_lines(OmegaConf.to_yaml(config)),
        "",
        FOOTER,
    ]
    return "\n".join(parts)


def group_lines() -> list[str]:
    """Return a line for each choice of each config group, with what it is."""
    lines = []
    for folder in sorted(path for path in CONF.iterdir() if path.is_dir()):
        for number, path in enumerate(sorted(folder.glob("*.yaml"))):
            lines.append(f"{folder.name if number == 0 else '':<12}{path.stem:<20}{described(path)}".rstrip())
    return lines


def key_lines(text: str) -> list[str]:
    """Return the lines of a config in YAML with the comments of conf/ beside the keys."""
    keys = [key for key, _ in commented_keys(text)]
    lines, declared, number = [], declared_keys(), 0
    for line in text.splitlines():
        name = line.split(":")[0].strip()
        if number < len(keys) and keys[number].rpartition(".")[2] == name:
            comment = declared.get(keys[number])
            number += 1
            lines.append(f"{line:<{COLUMN}}# {comment.text}" if comment else line)
        else:
            lines.append(line)
    return lines
