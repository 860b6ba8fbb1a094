"""Options of a target that is a column of mask files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePath
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError

from mtlcli.config.options import Options
from mtlcli.config.type_names import describe_type, format_value
from mtlcli.data.formats.compressed import describe_os_error
from mtlcli.data.formats.mask_targets import MaskTarget, MaskType
from mtlcli.errors import ConfigError, OptionError, suggest
from mtlcli.files import user_path
from mtlcli.specs import MOST_CLASSES, TargetSpec
from mtlcli.text import name_problem, quote

MOST_VALUES = 2**20  # largest value of a class in a file
Name = str | int | float
Value = Annotated[int, Field(ge=-MOST_VALUES, le=MOST_VALUES)]
Key = Value | Annotated[str, Field(pattern="^-?[0-9]{1,6}$")]  # keys of YAML are strings


class MaskOptions(Options):
    """Options of a target with mask files; see the dataset `image_masks`."""

    type: MaskType
    column: Annotated[str, Field(min_length=1)] | None = None
    folder: str = ""
    suffix: str = ""
    classes: (
        Annotated[int, Field(ge=2, le=MOST_CLASSES)]
        | Annotated[list[Name], Field(min_length=2)]
        | Annotated[dict[Key, Name], Field(min_length=2)]
        | str
        | None
    ) = None
    ignore: Value | list[Value] | None = None
    others: Literal["error", "missing"] = "error"
    scale: Annotated[float, Field(gt=0)] = 1.0


def read_mask_options(name: str, plain: Mapping[str, Any]) -> MaskOptions:
    """Check the options of a target with mask files.

    Args:
        name: name of the target.
        plain: the options, as they are in the YAML.

    Returns:
        The options.

    Raises:
        OptionError: an option is unknown or invalid.
    """
    fields = MaskOptions.model_fields
    if unknown := [str(key) for key in plain if key not in fields]:
        raise OptionError({
            key: f"unknown option of a target with mask files.{suggest(key, fields)} Options: {', '.join(fields)}"
            for key in unknown
        }).below(name)  # fmt: skip
    try:
        options = MaskOptions.model_validate(plain)
    except ValidationError as error:
        keys = dict.fromkeys(str(detail["loc"][0]) for detail in error.errors())
        raise OptionError({key: _describe_wrong(key, plain) for key in keys}).below(name) from error
    problems = _find_contradictions(name, options)
    if problems:
        raise OptionError(problems).below(name)
    return options


def _describe_wrong(key: str, plain: Mapping[str, Any]) -> str:
    if key == "classes":
        expected = "a number ≥ 2, a list of names, a mapping of values to names, or a file with a name in each line"
    else:
        field = MaskOptions.model_fields[key]
        expected = describe_type(Annotated[field.annotation, *field.metadata] if field.metadata else field.annotation)
    return f"expected {expected}, found {format_value(plain[key])}" if key in plain else f"missing; expected {expected}"


def _find_contradictions(name: str, options: MaskOptions) -> dict[str, str]:
    """Return option → fault, of options that don't fit the type, and of paths that leave the folder of the images."""
    problems: dict[str, str] = {}
    type_ = options.type
    if type_ == "classes" and options.classes is None:
        problems["classes"] = "missing; expected the names of the classes in the order of their values, or their number"
    if type_ != "classes":
        problems |= {
            key: f"only a target of the type 'classes' has it, not {type_!r}"
            for key in ("classes", "others")
            if getattr(options, key) != MaskOptions.model_fields[key].default
        }
    if options.scale != 1 and type_ not in ("real", "depth"):
        problems["scale"] = f"only a target of the type 'real' or 'depth' has it, not {type_!r}"
    if options.ignore is not None and type_ == "normals":
        problems["ignore"] = "a normal is missing where its components are 0 or NaN"
    for key in ("folder", "suffix"):
        path = PurePath(getattr(options, key).replace("\\", "/"))
        if path.is_absolute() or ".." in path.parts:
            problems[key] = f"{quote(str(path))} leads out of the folder of the images; set the dataset's `root`"
    return problems


def make_mask_target(name: str, options: MaskOptions, stored: TargetSpec | None = None) -> MaskTarget:
    """Create a target from its options, reading the file of its classes if they are in one.

    Args:
        name: name of the target.
        options: its options.
        stored: its specification in a checkpoint, whose classes replace a file of names; None during training.

    Returns:
        The target.

    Raises:
        ConfigError: the file can't be read, or names are invalid.
    """
    given: Any = options.classes
    if isinstance(given, str):
        given = list(stored.class_names) if stored is not None else _read_names(name, given)
    values: dict[int, int] | None = None
    classes: tuple[str, ...] | int | None = given if isinstance(given, int) else None
    if isinstance(given, list):
        classes = tuple(str(entry).strip() for entry in given)
    elif isinstance(given, dict):
        texts = {int(value): str(entry).strip() for value, entry in given.items()}
        classes = tuple(dict.fromkeys(texts.values()))
        values = {value: classes.index(text) for value, text in texts.items()}
    if isinstance(classes, tuple):
        _check_names(name, classes)
    if options.ignore is not None:
        ignore = tuple(options.ignore) if isinstance(options.ignore, list) else (options.ignore,)
    else:
        amount = classes if isinstance(classes, int) else len(classes or ())
        ignore = (255,) if options.type == "classes" and 255 not in (values or range(amount)) else ()
    return MaskTarget(name, options.type, classes, values, ignore, options.others, options.scale)


def _read_names(name: str, file: str) -> list[str]:
    path = user_path(file)
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"{path}: the file of the classes of target {name!r} can't be read: {describe_os_error(error)}"
        ) from error
    return [line for line in lines if line.strip()]


def _check_names(name: str, classes: tuple[str, ...]) -> None:
    if len(classes) < 2:
        raise ConfigError(f"target {name!r} has fewer than two classes")
    for entry in classes:
        if why := "is empty" if not entry else name_problem(entry):
            raise ConfigError(f"the class {quote(entry)} of target {name!r} {why}")
    if repeated := [entry for entry in classes if classes.count(entry) > 1]:
        raise ConfigError(f"target {name!r} has the class {repeated[0]!r} more than once")
