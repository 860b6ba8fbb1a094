"""The activation of the trunk that a regularizer looks at."""

from __future__ import annotations

from mtlcli.errors import nearest
from mtlcli.regularizers.regularizer import Subject
from mtlcli.specs import Shape


def shape_of(subject: Subject, layer: str) -> Shape:
    """The shape of an activation. ValueError, with the names there are, where the trunk computes none of that name."""
    names = [name for name in subject.shapes if name != "input"]
    if layer not in names:
        told = "`input` is what the trunk is given" if layer == "input" else f"the trunk has no activation {layer!r}"
        raise ValueError(f"layer: {told}.{nearest(layer, names)} There are: {', '.join(names)}")
    return subject.shapes[layer]
