"""Regularizers: terms added to the objective, and the base class for new ones."""

from mtlcli.regularizers.base import Regularizer, Subject

__all__ = ["Regularizer", "Subject"]
