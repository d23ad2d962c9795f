"""Commands that do not go through Hydra: `python -m sn6.<name> key=value ...` calls one function.

The function's signature is the whole definition: names, types and defaults of the keys, `Annotated[type, "text"]` the
help of a key, the docstring the help of the command. The fields of an argument that is a dataclass are keys as well, so
that commands can share them.
"""

import difflib
import inspect
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, is_dataclass
from operator import attrgetter
from pathlib import Path
from types import NoneType
from typing import Any, get_args, get_origin, get_type_hints

import yaml
from pydantic import ConfigDict, PydanticUserError, TypeAdapter, ValidationError
from pydantic_core import ErrorDetails

from sn6 import __version__
from sn6.errors import UserError, joined, one_line_errors
from sn6.signals import exit_on_closed_pipe, stop_on_signals


@dataclass(frozen=True)
class WithoutKey:
    """Mark, in `Annotated`, the list whose values may be typed one after another, without its key."""


@exit_on_closed_pipe()
def run_command(command: Callable[..., None], name: str) -> None:
    """Call `command` with the overrides of the command line; `--help` prints its keys, `--version` the version.

    Args:
        command: a function of keyword arguments, annotated with types and help texts
        name: the module as it is typed, such as `sn6.simulate`
    """
    overrides, command = sys.argv[1:], with_fields_as_keys(command)
    if {"-h", "--help"} & set(overrides):
        print(help_text(command, name))
        return
    if "--version" in overrides:
        print(f"sn6 {__version__}")
        return
    with stop_on_signals(), one_line_errors():
        command(**parse_overrides(command, name, overrides))


def with_fields_as_keys(command: Callable[..., None]) -> Callable[..., None]:
    """Return a command that takes, in place of each argument that is a dataclass, the fields of this dataclass."""
    hints = get_type_hints(command, include_extras=True)
    groups = {name: hint for name, hint in hints.items() if inspect.isclass(hint) and is_dataclass(hint)}

    def flat(**given: Any) -> None:
        made = {}
        for name, group in groups.items():
            fields = inspect.signature(group).parameters
            made[name] = group(**{field: given.pop(field) for field in fields if field in given})
        command(**given, **made)

    parameters = []
    for name, parameter in inspect.signature(command).parameters.items():
        of_group = inspect.signature(groups[name]).parameters.values() if name in groups else [parameter]
        parameters += [one.replace(kind=inspect.Parameter.KEYWORD_ONLY) for one in of_group]
        hints |= type_hints(groups[name]) if name in groups else {}
    flat.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    flat.__annotations__ = {parameter.name: hints[parameter.name] for parameter in parameters}
    flat.__doc__ = command.__doc__
    return flat


def parse_overrides(command: Callable[..., None], name: str, overrides: list[str]) -> dict[str, Any]:
    """Convert `["root=x", "tiles=3"]` to `{"root": Path("x"), "tiles": 3}` by the types that `command` declares.

    Arguments without `=` are the values of the list that is marked as `WithoutKey`, if there is one.

    Raises:
        UserError: an override without `=`, an unknown, repeated or missing key, a value of another type
    """
    parameters = inspect.signature(command).parameters
    hints = get_type_hints(command, include_extras=True)
    given: dict[str, Any] = {}
    listed = listed_key(hints)
    if listed is not None and (values := [one for one in overrides if is_value(one, parameters)]):
        given[listed] = values
        overrides = [one for one in overrides if one not in values]
    for override in overrides:
        key, equals, text = override.partition("=")
        if not equals:
            raise UserError(
                f"{name}: cannot read {override!r} as key=value; valid keys: {', '.join(parameters)}",
                kind="invalid_value",
                value=override,
            )
        if key in given:
            raise UserError(f"{name}: {key} is given twice; give it once", kind="conflict", key=key)
        given[key] = parse_value(text, hints.get(key, Any))
    checked = validate_arguments(command, given, where=name)
    checked = {key: value.expanduser() if isinstance(value, Path) else value for key, value in checked.items()}
    missing = [key for key, p in parameters.items() if p.default is p.empty and key not in given]
    if missing:
        listed = ", ".join(f"{key}=..." for key in missing)
        raise UserError(
            f"{name}: missing {listed}; see `python -m {name} --help`", kind="missing_value", key=missing[0]
        )
    return checked


def listed_key(hints: Mapping[str, Any]) -> str | None:
    """Return the key that is marked as `WithoutKey`, None where there is none."""
    return next((key for key, hint in hints.items() if WithoutKey() in get_args(hint)[1:]), None)


def is_value(argument: str, keys: Iterable[str]) -> bool:
    """Return whether an argument is a value without its key; a path may have a `=` in it, after a separator."""
    key, equals, _ = argument.partition("=")
    return not argument.startswith("-") and (not equals or "/" in key) and key not in keys


def parse_value(text: str, hint: Any) -> Any:
    """Read the text of a value as far as YAML is needed for the declared type; pydantic converts the rest.

    Scalars stay text, so that a Path or str may be a date, a number or `on`. `null` is None where the type allows it,
    and `[a, b]` a list of texts where it allows a list.
    """
    types = set(alternatives(hint))
    if text == "null" and NoneType in types:
        return None
    if text.startswith("[") and types & {list, tuple}:
        try:
            return yaml.load(text, yaml.BaseLoader)
        except yaml.YAMLError:  # patterns: to YAML `*_south` is a reference
            is_plain = text.endswith("]") and not set(text[1:-1]) & set("[]{}'\"")
            return [part.strip() for part in text[1:-1].split(",")] if is_plain else text
    return text


def alternatives(hint: Any) -> Iterable[Any]:
    """Yield the types of a union, each without its arguments and annotations."""
    if hasattr(hint, "__metadata__"):  # Annotated
        yield from alternatives(hint.__origin__)
    elif get_origin(hint) is not None and get_origin(hint) not in (list, tuple, dict):
        for part in get_args(hint):
            yield from alternatives(part)
    else:
        yield get_origin(hint) or hint


def validate_arguments(
    function: Callable[..., Any], given: Mapping[str, Any], where: str, prefix: str = "", strict: bool = False
) -> dict[str, Any]:
    """Return the `given` arguments converted to the types that `function` declares.

    Args:
        function: a function or class with annotated parameters
        given: names and values; parameters that are left out are not checked
        where: the command or "config", for messages
        prefix: node of the config before the names, such as "data."
        strict: whether "3" is refused for an int

    Raises:
        UserError: names that `function` does not take, and values of another type, all in one message
    """
    checked, errors = check_arguments(function, given, prefix, strict)
    if errors:
        raise joined(errors, where)
    return checked


def check_arguments(
    function: Callable[..., Any], given: Mapping[str, Any], prefix: str, strict: bool
) -> tuple[dict[str, Any], list[UserError]]:
    """Return the converted arguments and the errors; arguments of `validate_arguments`."""
    parameters = inspect.signature(function).parameters
    hints = type_hints(function)
    takes_any = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
    checked: dict[str, Any] = {}
    errors = []
    for name, value in given.items():
        key = prefix + name
        if name not in parameters and not takes_any:
            message = unknown_key(key, [prefix + parameter for parameter in parameters])
            errors.append(UserError(message, kind="unknown_key", key=key, value=value))
            continue
        if name in parameters and value is parameters[name].default:
            checked[name] = value  # such as None, which other packages often leave out of the type
            continue
        try:
            checked[name] = type_adapter(hints.get(name, Any)).validate_python(value, strict=strict)
        except ValidationError as error:
            reasons = dict.fromkeys(map(reason_of, error.errors()))
            message = f"invalid {key}={value}: {', or '.join(reasons)}"
            errors.append(UserError(message, kind="invalid_value", key=key, value=value))
    return checked, errors


def reason_of(error: ErrorDetails) -> str:
    """Return why a value is invalid, and how a list is typed where it is none."""
    if error["type"] in ("list_type", "tuple_type") or error.get("ctx", {}).get("class") == "Sequence":
        return "input should be a list, [a,b]"
    return error["msg"][:1].lower() + error["msg"][1:]


def type_hints(function: Callable[..., Any]) -> dict[str, Any]:
    """Return the types of the parameters of a function or class; nothing where they cannot be resolved."""
    try:
        target = attrgetter("__init__")(function) if inspect.isclass(function) else function
        return get_type_hints(target, include_extras=True)
    except NameError:  # other packages' types that only their type checker imports
        return {}


def has_signature(function: Callable[..., Any]) -> bool:
    """Return whether the parameters are known; they are not of some functions in C, such as torch.tensor."""
    try:
        inspect.signature(function)
    except ValueError:
        return False
    return True


def unknown_key(key: str, valid: Iterable[str]) -> str:
    """Return the message for a key that does not exist, with the nearest one that does, else all valid ones."""
    names = list(dict.fromkeys(valid))
    near = difflib.get_close_matches(key, names, n=1)
    return (
        f"unknown key {key!r}; did you mean {near[0]!r}?" if near else f"unknown key {key!r}; valid: {', '.join(names)}"
    )


def type_adapter(hint: Any) -> TypeAdapter:
    """Return the validator of a type; by isinstance where pydantic does not know the type."""
    try:
        return TypeAdapter(hint, config=ConfigDict(arbitrary_types_allowed=True))
    except PydanticUserError:  # types of other packages that only a type checker understands
        return TypeAdapter(Any)


def help_text(command: Callable[..., None], name: str) -> str:
    """Return the docstring of `command`, without its errors, and a line for each key: name, default, help."""
    hints = get_type_hints(command, include_extras=True)
    description = (inspect.getdoc(command) or "").partition("\n\nRaises:")[0]
    listed = listed_key(hints)
    values = f"{listed.upper()}... " if listed else ""
    lines = [f"usage: python -m {name} {values}key=value ...", "", description, "", "keys:"]
    for key, parameter in inspect.signature(command).parameters.items():
        required = parameter.default is parameter.empty
        default = "(required)" if required else "null" if parameter.default is None else shown(parameter.default)
        text = next((extra for extra in get_args(hints[key])[1:] if isinstance(extra, str)), "")
        lines.append(f"  {key + '=' + default:<28} {text}")
    return "\n".join(lines)


def shown(default: Any) -> str:
    """Return a default as it would be typed."""
    if isinstance(default, bool):
        return str(default).lower()
    if isinstance(default, list | tuple):
        return f"[{','.join(map(shown, default))}]"
    return str(default)
