"""Weightings: methods that combine the losses or gradients of several tasks into one update."""

from mtlcli.weighting.base import (
    GradientWeighting,
    GramianWeighting,
    JacobianWeighting,
    LossWeighting,
    WeightedTask,
    Weighting,
)
from mtlcli.weighting.methods.aligned_mtl import AlignedMTL
from mtlcli.weighting.methods.cagrad import CAGrad
from mtlcli.weighting.methods.conflict_free import ConFIG
from mtlcli.weighting.methods.db_mtl import DBMTL
from mtlcli.weighting.methods.dualproj import DualProj
from mtlcli.weighting.methods.dwa import DWA
from mtlcli.weighting.methods.excess_mtl import ExcessMTL
from mtlcli.weighting.methods.fairgrad import FairGrad
from mtlcli.weighting.methods.famo import FAMO
from mtlcli.weighting.methods.fixed import Fixed
from mtlcli.weighting.methods.gls import GLS
from mtlcli.weighting.methods.graddrop import GradDrop
from mtlcli.weighting.methods.gradnorm import GradNorm
from mtlcli.weighting.methods.gradvac import GradVac
from mtlcli.weighting.methods.imtl_g import IMTLG
from mtlcli.weighting.methods.imtl_l import IMTLL
from mtlcli.weighting.methods.mgda import MGDA
from mtlcli.weighting.methods.moco import MoCo
from mtlcli.weighting.methods.nash_mtl import NashMTL
from mtlcli.weighting.methods.pcgrad import PCGrad
from mtlcli.weighting.methods.relation import Relation
from mtlcli.weighting.methods.rlw import RLW
from mtlcli.weighting.methods.sdmgrad import SDMGrad
from mtlcli.weighting.methods.stch import STCH
from mtlcli.weighting.methods.torchjd import TorchJD
from mtlcli.weighting.methods.uncertainty import Uncertainty
from mtlcli.weighting.methods.uniform import Uniform
from mtlcli.weighting.methods.upgrad import UPGrad
from mtlcli.weighting.randomness import SeededMixin

__all__ = [
    "DBMTL",
    "DWA",
    "FAMO",
    "GLS",
    "IMTLG",
    "IMTLL",
    "MGDA",
    "RLW",
    "STCH",
    "AlignedMTL",
    "CAGrad",
    "ConFIG",
    "DualProj",
    "ExcessMTL",
    "FairGrad",
    "Fixed",
    "GradDrop",
    "GradNorm",
    "GradVac",
    "GradientWeighting",
    "GramianWeighting",
    "JacobianWeighting",
    "LossWeighting",
    "MoCo",
    "NashMTL",
    "PCGrad",
    "Relation",
    "SDMGrad",
    "SeededMixin",
    "TorchJD",
    "UPGrad",
    "Uncertainty",
    "Uniform",
    "WeightedTask",
    "Weighting",
]


def __dir__() -> list[str]:
    return __all__
