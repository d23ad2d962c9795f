"""The doors that do not go through Hydra: `python -m sn6.<name> key=value ...` calls one function.

The function is the whole definition of its door: the signature gives keys, types and defaults,
`Annotated[type, "text"]` the help of a key, the docstring the help of the command.
"""

import inspect
import sys
from collections.abc import Callable, Mapping
from operator import attrgetter
from typing import Any, get_args, get_type_hints

import yaml
from pydantic import ConfigDict, TypeAdapter, ValidationError

from sn6.errors import UserError, one_line_errors


def enter(command: Callable[..., None], name: str) -> None:
    """Runs `command` with the words of the command line; `--help` prints what it takes.

    Args:
        command: a function of keyword arguments, annotated with types and help texts
        name: what the user types, such as `sn6.simulate`
    """
    words = sys.argv[1:]
    if {"-h", "--help"} & set(words):
        print(help_text(command, name))
        return
    with one_line_errors():
        command(**parse_words(command, name, words))


def parse_words(command: Callable[..., None], name: str, words: list[str]) -> dict[str, Any]:
    """`["root=x", "tiles=3"]` → `{"root": "x", "tiles": 3}`, checked against the signature of `command`.

    Raises:
        UserError: a word without `=`, an unknown, repeated or missing key, a value of another type
    """
    parameters = inspect.signature(command).parameters
    given: dict[str, Any] = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not equals:
            raise UserError(f"{name}: {word!r} is no key=value; the keys are {', '.join(parameters)}")
        if key in given:
            raise UserError(f"{name}: {key} is given twice; give it once")
        try:
            given[key] = yaml.safe_load(value)
        except yaml.YAMLError:
            given[key] = value
    checked = checked_arguments(command, given, where=name)
    missing = [key for key, p in parameters.items() if p.default is p.empty and key not in given]
    if missing:
        raise UserError(f"{name}: {missing[0]}=... is missing; `python -m {name} --help` tells what it is")
    return checked


def checked_arguments(
    function: Callable[..., Any], given: Mapping[str, Any], where: str, strict: bool = False
) -> dict[str, Any]:
    """The `given` arguments as the types that `function` declares.

    Args:
        function: a function or class with annotated parameters
        given: names and values; parameters that are left out are not looked at
        where: the command or config key to name in the message
        strict: whether "3" does not do for an int

    Raises:
        UserError: a name that `function` does not take (with those that it takes), or a value of another type
    """
    parameters = inspect.signature(function).parameters
    target = attrgetter("__init__")(function) if inspect.isclass(function) else function
    try:
        hints = get_type_hints(target, include_extras=True)
    except NameError:  # of others, with types that only their type checker imports
        hints = {}
    takes_any = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
    checked = {}
    for key, value in given.items():
        if key not in parameters and not takes_any:
            raise UserError(f"{where}: there is no {key!r}; the keys are {', '.join(parameters)}")
        try:
            checked[key] = type_adapter(hints.get(key, Any)).validate_python(value, strict=strict)
        except ValidationError as error:
            reasons = dict.fromkeys(one["msg"][:1].lower() + one["msg"][1:] for one in error.errors())
            raise UserError(f"{where}: {key}={value!r} does not do; {', or '.join(reasons)}") from None
    return checked


def type_adapter(hint: Any) -> TypeAdapter:
    """Checks a value against a type, by isinstance where the type is nobody's data."""
    return TypeAdapter(hint, config=ConfigDict(arbitrary_types_allowed=True))


def help_text(command: Callable[..., None], name: str) -> str:
    """The docstring of `command`, without what it raises, and a line for each key: name, default, help."""
    hints = get_type_hints(command, include_extras=True)
    told = (inspect.getdoc(command) or "").partition("\n\nRaises:")[0]
    lines = [f"python -m {name} key=value ...", "", told, "", "keys:"]
    for key, parameter in inspect.signature(command).parameters.items():
        required = parameter.default is parameter.empty
        default = "needed" if required else "null" if parameter.default is None else str(parameter.default)
        text = next((extra for extra in get_args(hints[key])[1:] if isinstance(extra, str)), "")
        lines.append(f"  {key + '=' + default:<28} {text}")
    return "\n".join(lines)
