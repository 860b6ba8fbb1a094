"""The weights that a regularizer acts on, as the YAML names them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Annotated, Literal

from pydantic import Field
from torch import nn

from mtlcli.errors import nearest
from mtlcli.regularizers.base import Subject
from mtlcli.regularizers.factorized import Factorized

Patterns = Annotated[list[str], Field(min_length=1)]
Part = Literal["shared", "heads", "all"]


@dataclass(frozen=True)
class Layer:
    """A Linear or Conv2d of a trunk, as it is when it is looked for.

    name: as `named_modules` of the trunk has it; behind the trunk's name and a dot where there are several trunks.
    """

    name: str
    module: nn.Linear | nn.Conv2d
    trunk: nn.Module

    def replace(self, module: nn.Module) -> None:
        """Put another module in its place, or in its places, where the trunk uses it several times."""
        for path, found in list(self.trunk.named_modules(remove_duplicate=False)):
            if found is self.module:
                self.trunk.set_submodule(path, module)


def find_layers(subject: Subject, patterns: Sequence[str]) -> list[Layer]:
    """Every Linear and Conv2d of the trunks whose name matches one of the patterns, once, in the trunks' order.

    patterns: as of file names (`fc1`, `conv*`), of the names within a trunk; `*` goes over dots too. Layers that are
    factorized already aren't among them. ValueError, with the layers there are, for a pattern that matches none.
    """
    layers: dict[str, list[Layer]] = {}  # by their names within a trunk
    factorized: dict[str, None] = {}
    for trunk_name, trunk in subject.trunks.items():
        prefix = f"{trunk_name}." if len(subject.trunks) > 1 else ""
        for path, module in trunk.named_modules():
            if isinstance(module, Factorized):
                factorized[path] = None
            elif isinstance(module, nn.Linear | nn.Conv2d):
                layers.setdefault(path, []).append(Layer(prefix + path, module, trunk))
    for pattern in patterns:
        if not _matching(layers, pattern):
            taken = _matching(factorized, pattern)
            told = (
                f"but {', '.join(taken)}, which is factorized already."
                if taken
                else f"of the trunk.{nearest(pattern, layers)}"
            )
            raise ValueError(
                f"layers: {pattern!r} matches no Linear or Conv2d {told} Choose from: {', '.join(layers) or 'none'}"
            )
    wanted = {path for pattern in patterns for path in _matching(layers, pattern)}
    return [layer for path, found in layers.items() if path in wanted for layer in found]


def _matching(names: Iterable[str], pattern: str) -> list[str]:
    return [name for name in names if fnmatchcase(name, pattern)]


def weights_of(subject: Subject, part: Part) -> list[nn.Parameter]:
    """The weights of the trunks (`shared`), of the heads, or of both: no biases and nothing of norm layers.

    Those are the parameters of more than one dimension. ValueError where there are none.
    """
    trunks = subject.trunks.values() if part != "heads" else ()
    heads = subject.heads.values() if part != "shared" else ()
    found = {id(p): p for module in [*trunks, *heads] for p in module.parameters() if p.ndim > 1}
    if not found:
        raise ValueError(f"on: {part}: there are no weights there (parameters of more than one dimension)")
    return list(found.values())
