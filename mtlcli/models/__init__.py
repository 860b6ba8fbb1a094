"""Models: trunks, heads and sharings, and the base classes for new ones."""

from mtlcli.models.heads.base import Head
from mtlcli.models.model import MultiTaskModel
from mtlcli.models.sharing.base import Sharing, SharingRecord, SharingStats
from mtlcli.models.trunks.base import Trunk

__all__ = ["Head", "MultiTaskModel", "Sharing", "SharingRecord", "SharingStats", "Trunk"]
