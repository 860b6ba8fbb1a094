"""Strategies for random experiments: valid, nearly valid, and malicious."""

import collections.abc
import types
import typing
from pathlib import Path
from typing import Annotated, Any, Literal, Union

from hypothesis import strategies as st
from pydantic import BaseModel

from mtlcli.component import Component
from mtlcli.config.component_configs import ComponentConfig
from mtlcli.config.components import ComponentField
from mtlcli.config.options import options_of
from mtlcli.config.schema import Experiment, Task
from mtlcli.registry import REGISTRIES
from tests.config.experiments import GOOD

MALICIOUS = [
    "null", "~", "", "true", "on", "yes", "-1", "0", "1e-3", "012", "0x1F", "0o17", ".inf", "-.inf", ".nan", "1e400",
    "1e-400", "4611686018427387904", "1099511627776", "9" * 5000, "*a", "&a x", "!!python/object/apply:os.system [ls]",
    "!!int 3", "[[[[[[[[1]]]]]]]]", "[" * 40, "{" * 40, "[]", "{}", "{name: }", "{name: [], x: 1}", "[red]x[/red]",
    '"\\e[31mx"', '"\\0"', '"\\ud800"', '"\\u202e"', '"a\\nb"', "../../x", "..", "/dev/zero", "${HOME}", "${",
    "${NOT_SET}", "${NOT_SET:7}", "'", '"', "#", "- a", "a: b", "|", ">", "%", "@", "`", "\t", "--- x", "...", "<<",
    "=", "?", "x" * 5000, "é", "☃", "\ufeff", "\x85", "\u2028",
]  # fmt: skip
WORDS = ["digit", "parity", "ink", "images", "fc1", "fc2", "fc*", "mean", "primary", "loss", "trunk", "heads", "x", ""]
KEYS = [
    "training", "training.epochs", "trunk", "trunk.name", "trunk.hidden", "trunk.hidden.0", "tasks.digit.kind", "seed",
    "tasks.digit", "tasks", "tasks.x.kind", "weighting", "weighting.name", "sharing.name", "regularizers", "name",
    "regularizers.0", "optimizer.groups", "optimizer.lr", "scheduler", "datasets.images", "evaluation.monitor.task",
    "a.b", "", ".", "name.", "a" * 300, ".".join("a" * 40),
]  # fmt: skip
TASKS = [
    {"dataset": "images", "target": "digit", "kind": "classification"},
    {"dataset": "images", "target": "parity", "kind": "binary"},
    {"dataset": "images", "target": "ink", "kind": {"name": "regression"}, "head": {"name": "mlp", "hidden": [4]}},
]
SLOW = {"torchvision", "census_income"}  # slow imports, and a download

malicious = st.sampled_from(MALICIOUS)
words = st.sampled_from(WORDS)
plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | words,
    lambda below: st.lists(below, max_size=3) | st.dictionaries(st.text(max_size=8) | words, below, max_size=3),
    max_leaves=6,
)


def mostly(right: st.SearchStrategy[Any], other: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.integers(0, 19).flatmap(lambda roll: other if roll == 19 else right)


def fitting(annotation: Any) -> st.SearchStrategy[Any]:
    """Generate values for a type; most have this type, and most of these satisfy its constraints."""
    return mostly(_fitting(annotation), plain)


def _fitting(annotation: Any) -> st.SearchStrategy[Any]:
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is Annotated:
        field = next((item for item in arguments[1:] if isinstance(item, ComponentField)), None)
        return _fitting(arguments[0]) if field is None else _entry(field)
    if origin in (Union, types.UnionType):
        return st.one_of(*map(_fitting, arguments))
    if origin is Literal:
        return st.sampled_from(arguments)
    if origin is tuple and arguments[-1:] != (...,):
        return st.tuples(*map(_fitting, arguments)).map(list)
    if origin in (list, tuple, collections.abc.Sequence):
        return st.lists(fitting(arguments[0]), min_size=1, max_size=3)
    if origin in (dict, collections.abc.Mapping):
        return st.dictionaries(words, fitting(arguments[1]), max_size=3)
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return _section(annotation)
    strategies = {
        int: mostly(st.integers(1, 12), st.integers()),
        float: mostly(st.sampled_from([1e-3, 0.5, 1, 0.99]), st.floats()),
        bool: st.booleans(),
        str: words,
        Path: words,
        type(None): st.none(),
    }
    return strategies.get(annotation, plain)


def _section(model: type[BaseModel], **replacements: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    """Generate a section with some of its keys. `replacements` has strategies for keys with more specific values."""
    keys = {field.alias or name: field for name, field in model.model_fields.items()}
    fields = {name: fitting(Annotated[(field.annotation, *field.metadata, "")]) for name, field in keys.items()}
    fields |= replacements
    required = {name: fields.pop(name) for name, field in keys.items() if field.is_required()}
    return st.fixed_dictionaries(required, optional=fields)


def _entry(field: ComponentField) -> st.SearchStrategy[Any]:
    """Generate entries of components: names, and mappings with options, of which some are invalid."""
    names = [name for name in field.registry.names() if name not in SLOW]
    if not names:  # all components of the group come from plugins
        return st.just("unknown")
    return st.sampled_from(names).flatmap(lambda name: _options(field.registry[name], field.entry)) | st.sampled_from(
        names
    )


def _options(component: Component[Any], base: type[ComponentConfig]) -> st.SearchStrategy[dict[str, Any]]:
    options = {**options_of(component), **base.reserved(component)}
    required = {name: fitting(option.annotation) for name, option in options.items() if option.required}
    others = {name: fitting(option.annotation) for name, option in options.items() if not option.required}
    wrong = st.dictionaries(st.sampled_from([*options, "name", "nmae"]), plain, max_size=1)
    return st.builds(
        lambda given, more: {"name": component.name, **given, **more},
        st.fixed_dictionaries(required, optional=others),
        mostly(st.just({}), wrong),
    )


def experiments() -> st.SearchStrategy[dict[str, Any]]:
    """Generate complete experiments as plain data, with keys of the schema."""
    names = mostly(st.sampled_from(["digit", "ink", "a"]), st.just("../x") | st.text(max_size=5))
    task = mostly(st.sampled_from(TASKS), _section(Task, dataset=mostly(st.just("images"), plain)))
    return _section(
        Experiment,
        name=mostly(st.just("a"), st.sampled_from(["..", "[red]"]) | st.text(max_size=5)),
        datasets=mostly(st.just({"images": "digits"}), fitting(Experiment.model_fields["datasets"].annotation)),
        tasks=st.dictionaries(names, task, min_size=1, max_size=3),
    )


def _lines(text: str) -> st.SearchStrategy[str]:
    """Duplicate, remove or swap lines of a text."""
    lines = text.splitlines(keepends=True)
    place = st.integers(0, len(lines) - 1)

    def change(operation: str, at: int, other: int) -> str:
        changed = list(lines)
        if operation == "swap":
            changed[at], changed[other] = changed[other], changed[at]
        else:
            changed[at : at + 1] = [lines[at]] * (2 if operation == "double" else 0)
        return "".join(changed)

    return st.builds(change, st.sampled_from(["swap", "double", "drop"]), place, place)


def _pieces(text: str) -> st.SearchStrategy[str]:
    """Replace a section of a text."""
    syntax = st.sampled_from(["*a", "&a ", "!!x ", "\t", "[", "{", "}", ": ", "- ", "---\n"])
    place, length, piece = st.integers(0, len(text)), st.integers(0, 30), st.text(max_size=6) | syntax | malicious
    return st.builds(lambda start, size, new: text[:start] + new + text[start + size :], place, length, piece)


def _values(text: str) -> st.SearchStrategy[str]:
    """Replace a word of a text by a malicious value."""
    words = sorted({word.strip("{}[],:") for word in text.split()} - {""})
    return st.builds(lambda old, new: text.replace(old, new, 1), st.sampled_from(words), malicious)


def _bytes(text: str) -> st.SearchStrategy[bytes]:
    """Change a few bytes of a text."""
    encoded = text.encode()

    def flip(changes: list[tuple[int, int]]) -> bytes:
        changed = bytearray(encoded)
        for at, bits in changes:
            changed[at] ^= bits
        return bytes(changed)

    change = st.tuples(st.integers(0, len(encoded) - 1), st.integers(1, 255))
    return st.lists(change, min_size=1, max_size=3).map(flip)


def files(text: str = GOOD) -> st.SearchStrategy[bytes]:
    """Generate damaged and manipulated versions of an experiment file."""
    texts = _lines(text) | _pieces(text) | _values(text) | st.text()
    return _bytes(text) | texts.map(lambda content: content.encode("utf-8", "surrogatepass")) | st.binary(max_size=40)


def overrides() -> st.SearchStrategy[str]:
    """Generate arguments for KEY=VALUE."""
    components = [name for registry in REGISTRIES.values() for name in registry.names() if name not in SLOW]
    keys = mostly(st.sampled_from(KEYS), st.text(max_size=8))
    values = malicious | st.sampled_from(components) | st.text(max_size=12)
    return mostly(st.builds(lambda key, value: f"{key}={value}", keys, values), st.text(max_size=12))
