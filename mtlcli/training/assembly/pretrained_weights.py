"""Pretrained weights that an option of the trunk names."""

from __future__ import annotations

from mtlcli.config.locations import Problems
from mtlcli.models.trunks.base import Trunk
from mtlcli.training.run import Run


def load_pretrained(run: Run) -> None:
    """Load the file in the option `pretrained` into all trunks; on the device `meta`, only check it.

    Args:
        run: The run, whose model is changed.

    Raises:
        ConfigError: If the file can't be read or holds the weights of another network.
    """
    with Problems(run.experiment).now("trunk.pretrained"):
        for module in run.model.modules():
            if isinstance(module, Trunk):
                module.load_pretrained()
