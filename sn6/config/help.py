"""The help of `sn6.run`: groups with their choices, and every key with its value and what conf/ says of it."""

from collections.abc import Mapping, Sequence

import yaml
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from sn6.config.comments import commented_keys, declared_keys, described
from sn6.config.composition import CONF, VERSION_BASE

COLUMN = 40  # where comments start
SEQUENCE = "tag:yaml.org,2002:seq"
HEADER = """\
Train a network on tiles of SpaceNet 6, score its footprints, and write the results to outputs/<name>.

  python -m sn6.run experiment=quickstart                      a simulated archive, a few minutes on a laptop
  python -m sn6.run data.root=DIR                              TernausNet on the SAR tiles of an archive
  python -m sn6.run data.root=DIR data=eo model=unet           U-Net on the optical tiles
  python -m sn6.run data.root=DIR trainer.max_epochs=50 loss=focal_dice optimizer.lr=3e-4
"""
FOOTER = """\
Flags: --cfg job prints the config and exits, --info prints more, --hydra-help lists Hydra's flags, -m runs a sweep.
"""


class FlowLists(yaml.SafeDumper):
    """Write lists in one line, and mappings a key a line."""


FlowLists.add_representer(list, lambda dumper, value: dumper.represent_sequence(SEQUENCE, value, flow_style=True))


def help_text(overrides: Sequence[str]) -> str:
    """Return the help, with the keys of the groups that the overrides choose.

    Args:
        overrides: as Hydra reads them
    """
    with initialize_config_dir(str(CONF), **VERSION_BASE):
        config = compose("config", overrides=list(overrides), return_hydra_config=True)
    choices = {str(group): str(choice) for group, choice in config.hydra.runtime.choices.items()}
    values = OmegaConf.to_container(config, resolve=False)
    assert isinstance(values, dict)
    values.pop("hydra")
    text = yaml.dump(values, Dumper=FlowLists, sort_keys=False, width=1000, allow_unicode=True)
    parts = [
        HEADER,
        "== Groups: choose with group=name (`sn6.run model=unet --help` shows its keys) ==",
        *group_lines(),
    ]
    parts += ["", "== Keys: set any with key=value ==", *key_lines(text, comments_of(choices)), "", FOOTER]
    return "\n".join(parts)


def comments_of(choices: Mapping[str, str]) -> dict[str, str]:
    """Return key → comment, with those of the chosen files of the groups before those of others."""
    comments = {key: declared.text for key, declared in declared_keys().items()}
    for group, choice in choices.items():
        path = CONF / group / f"{choice}.yaml"
        if path.exists():
            of_file = commented_keys(path.read_text(encoding="utf-8"))
            comments |= {f"{group}.{key}": comment for key, comment in of_file if comment}
    return comments


def group_lines() -> list[str]:
    """Return a line for each choice of each config group, with what it is."""
    lines = []
    for folder in sorted(path for path in CONF.iterdir() if path.is_dir()):
        for number, path in enumerate(sorted(folder.glob("*.yaml"))):
            lines.append(f"{folder.name if number == 0 else '':<14}{path.stem:<20}{described(path)}".rstrip())
    return lines


def key_lines(text: str, comments: Mapping[str, str]) -> list[str]:
    """Return the lines of a config in YAML, a key a line, with the comments beside the keys."""
    keys = [key for key, _ in commented_keys(text)]
    lines = []
    for key, line in zip(keys, text.splitlines(), strict=True):
        comment = comments.get(key, "")
        lines.append(f"{line:<{COLUMN}}  # {comment}" if comment else line)
    return lines
