"""Models: trunks, stems, heads and sharings, and the base classes for new ones.

The plugin API: a trunk subclasses `Trunk`, a stem `Stem`, a head `Head` (or is any `nn.Module`), a sharing `Sharing`.
`Base` is the pretrained model that a trunk may be built from. The types `Column` and `TrunkPass`, which they receive or
record, are in `mtlcli.specs`.
"""

from mtlcli.models.heads.base import Head
from mtlcli.models.model import MultiTaskModel
from mtlcli.models.pretrained.base import Base
from mtlcli.models.sharing.base import MakeHead, MakeTrunk, Sharing, SharingRecord, SharingStats
from mtlcli.models.stems.base import Stem
from mtlcli.models.trunks.base import Trunk

__all__ = [
    "Base",
    "Head",
    "MakeHead",
    "MakeTrunk",
    "MultiTaskModel",
    "Sharing",
    "SharingRecord",
    "SharingStats",
    "Stem",
    "Trunk",
]


def __dir__() -> list[str]:
    return sorted(__all__)
