"""Components: the classes and functions that an experiment refers to by name, with their options.

A component is one class or function in one file. Its positional parameters are supplied by the builder; its
keyword-only parameters are the options that the YAML may set. Validation, the JSON Schema, `mtl list` and `mtl show`
are derived from their annotations, their defaults and the docstring.
"""

from __future__ import annotations

import inspect
import keyword
import re
import typing
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Generic, Literal, Protocol, TypeVar

from mtlcli.error_origin import describe_error
from mtlcli.errors import MtlError, OptionError

ARGS = re.compile(r"^(?:Args|Options):\n((?:[ \t]+.*\n?|\n)+)", re.MULTILINE)  # up to the first unindented line
SHOWN = 30  # characters of a value in a message
Target = TypeVar("Target", bound=Callable[..., Any])
Created = TypeVar("Created")


class KindClass(Protocol):
    """The class of a task kind, as far as it is used without an instance (see `mtlcli.tasks.base.TaskKind`)."""

    directions: Mapping[str, Literal["max", "min"]]
    collected: Mapping[str, Any]
    bounded: frozenset[str]
    primary: str

    def negligible_errors(self, metrics: Mapping[str, float]) -> dict[str, float]:
        """Return the smallest denominators for percentages of errors, by metric."""

    def __call__(self, *supplied: Any, **options: Any) -> Any:
        """Create the task kind."""


class RegularizerClass(Protocol):
    """The class of a regularizer, as far as it is used without an instance (see `mtlcli.regularizers.base`)."""

    default_strength: float
    reshapes: bool
    sees_examples: bool
    sees_trunk: bool
    needs_gates: bool
    needs_order: bool

    def __call__(self, *supplied: Any, **options: Any) -> Any:
        """Create the regularizer."""


@dataclass(frozen=True)
class Option:
    """A keyword that a component accepts from the YAML.

    Args:
        name: the key in the YAML.
        annotation: the type of its values.
        default: the value of an option that is left out; `inspect.Parameter.empty` where it is required.
        description: one sentence for `mtl show` and the JSON Schema.
    """

    name: str
    annotation: Any
    default: Any
    description: str

    @property
    def required(self) -> bool:
        """True if the YAML must set the option."""
        return self.default is inspect.Parameter.empty


@dataclass(frozen=True)
class Component(Generic[Target]):
    """A registered class or function.

    Args:
        group: the group of components it belongs to, such as `trunk`.
        name: its name in the YAML.
        target: the class or function.
        keyword_only: whether the options are the keyword-only parameters (components of `mtl` and of plugins), or all
            parameters but the first (classes of torch).
        plugin: the plugin that registered it, as given to `--plugin` (of a file, without its folder); None for
            components of `mtl` or torch.
        aliases: other names that the YAML may use.
    """

    group: str
    name: str
    target: Target
    keyword_only: bool = True
    plugin: str | None = None
    aliases: tuple[str, ...] = ()

    @property
    def doc(self) -> str:
        """The docstring, without indentation."""
        return inspect.cleandoc(self.target.__doc__ or "")

    @property
    def summary(self) -> str:
        """The first line of the docstring."""
        return self.doc.partition("\n")[0]

    @property
    def takes_any_option(self) -> bool:
        """True if it has a parameter `**options`: such a component checks the names of its options itself."""
        kinds = [p.kind for p in inspect.signature(self.target).parameters.values()]
        return self.keyword_only and inspect.Parameter.VAR_KEYWORD in kinds

    @cached_property
    def options(self) -> dict[str, Option]:
        """The options by name, in the order of the signature."""
        function = self.target.__init__ if inspect.isclass(self.target) else self.target
        hints = typing.get_type_hints(function, include_extras=True)
        described = dict(_described_options(self.doc))
        parameters = list(inspect.signature(self.target).parameters.values())
        if self.keyword_only:
            parameters = [p for p in parameters if p.kind is p.KEYWORD_ONLY]
        else:
            parameters = [p for p in parameters[1:] if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
        named = {_option_name(p.name): p for p in parameters}
        return {
            name: Option(name, hints.get(p.name, Any), p.default, described.get(name, "")) for name, p in named.items()
        }

    def create(self, *supplied: Any, **options: Any) -> Any:
        """Call the class or function.

        Args:
            *supplied: its positional arguments, from the builder.
            **options: options by their names in the YAML.

        Returns:
            What the class or function returns. OptionError is raised if the component rejects the value of an option;
            its other errors pass through.
        """

        def make(**chosen: Any) -> Any:
            return self.target(*supplied, **{_parameter_name(name): value for name, value in chosen.items()})

        required = [name for name, option in self.options.items() if option.required] if options else []
        return blame_options(make, options, required)


def _option_name(parameter: str) -> str:
    """Return the option of a parameter: a keyword of Python, such as `from`, is the parameter `from_`."""
    name = parameter.removesuffix("_")
    return name if keyword.iskeyword(name) else parameter


def _parameter_name(option: str) -> str:
    return f"{option}_" if keyword.iskeyword(option) else option


def capitalize(sentence: str) -> str:
    """Return a description with a capital first letter, unless it starts with a symbol, code or an acronym."""
    word = re.match(r"[a-z]{2,}(?=[\s,-])|a(?= )", sentence)
    return sentence[:1].upper() + sentence[1:] if word else sentence


def _described_options(doc: str) -> Iterator[tuple[str, str]]:
    """Yield the `name: description` entries of a docstring's `Args:` (or `Options:`) block."""
    block = ARGS.search(doc)
    for entry in re.finditer(r"^    (\w+): (.*(?:\n {5,}.*)*)", block[1] if block else "", re.MULTILINE):
        yield _option_name(entry[1]), capitalize(" ".join(entry[2].split()))


def blame_options(
    make: Callable[..., Created], options: Mapping[str, Any], required: Collection[str] = (), sole: bool = False
) -> Created:
    """Call a function, and attribute its errors to the options whose absence changes or avoids the error.

    Args:
        make: the function.
        options: its keyword arguments.
        required: options that can't be left out; one is blamed if the message contains its name.
        sole: blame the only required option even if the message doesn't contain its name.

    Returns:
        What the function returns. An error that no option causes passes through.

    Raises:
        OptionError: options caused errors; contains the message for each.
    """
    left, refused = dict(options), dict[str, str]()
    first: Exception | None = None
    while True:
        try:
            result = make(**left)
        except (MtlError, OptionError):
            raise
        except Exception as error:
            first = first or error
            name = _culprit(make, left, error, required, sole)
            if name is None and not refused:
                raise
            if name is not None:
                value = list(left[name]) if isinstance(left[name], tuple) else left[name]
                shown = "" if str(value) in str(error) or len(repr(value)) > SHOWN else f", found {value!r}"
                refused[name] = describe_error(error, shown).removeprefix(f"{name}: ")
            if name is None or name in required:
                break
            del left[name]
        else:
            if not refused:
                return result
            break
    raise OptionError(refused) from first


def _culprit(
    make: Callable[..., Any], options: Mapping[str, Any], error: Exception, required: Collection[str], sole: bool
) -> str | None:
    """Return the option that causes the error; None if no single option does."""
    fixes = []
    for name in options:
        if name not in required:
            try:
                make(**{key: value for key, value in options.items() if key != name})
            except Exception as other:
                if (type(other), str(other)) == (type(error), str(error)):
                    continue
            fixes.append(name)
    words = re.findall(r"\w+", str(error).lower())
    needed = [name for name in options if name in required]
    named = [name for name in fixes or needed if name.lower() in words]
    if named:
        return min(named, key=lambda name: words.index(name.lower()))
    if fixes:
        return fixes[0]
    return needed[0] if sole and len(needed) == 1 else None
