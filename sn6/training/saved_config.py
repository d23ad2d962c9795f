"""Read the config of a run from its folder."""

from pathlib import Path
from typing import Any

import yaml

from sn6.errors import UserError, first_line

CONFIG_FILE = "config.yaml"


def saved_config(folder: Path) -> dict[str, Any]:
    """Read the config.yaml of a run; empty where there is none.

    Raises:
        UserError: it is broken or foreign
    """
    path = folder / CONFIG_FILE
    if not path.exists():
        return {}
    advice = "restore it, choose another name=, or set resume=false to start over"
    try:
        config = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        message = f"{path} cannot be read ({first_line(error)}); {advice}"
        raise UserError(message, kind="unreadable", key=path) from None
    groups = ("data", "model", "trainer", "callbacks")
    if not (isinstance(config, dict) and all(isinstance(config.get(name), dict) for name in groups)):
        raise UserError(f"{path} is empty or not of a run of sn6; {advice}", kind="wrong_data", key=path)
    return config
