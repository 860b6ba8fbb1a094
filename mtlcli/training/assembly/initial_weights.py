"""Initial weights of a trunk from the checkpoint of another run."""

from __future__ import annotations

from mtlcli.config.locations import Problems
from mtlcli.files import given_path
from mtlcli.models.adapters.base import adapter_keys
from mtlcli.models.warm_start import check_trunk, warm_start
from mtlcli.regularizers.factorized import merge_factors
from mtlcli.training.assembly.adaptation import merge_stored_adapters
from mtlcli.training.assembly.pretrained_weights import load_pretrained
from mtlcli.training.checkpoint.base_values import complete_trunk
from mtlcli.training.checkpoint.file import load_checkpoint
from mtlcli.training.run import Run
from mtlcli.training.run_folder import checkpoint_of


def start_weights(run: Run) -> None:
    """Load the weights that the trunk starts from: the file in `pretrained`, and the checkpoint in `init_from`.

    Args:
        run: The run, whose model is changed.

    Raises:
        ConfigError: If a file can't be read or holds a different trunk.
    """
    if run.experiment.trunk.options.get("pretrained"):
        load_pretrained(run)
    start_trunk(run)


def start_trunk(run: Run) -> None:
    """Initialize the trunk from the checkpoint in `trunk.init_from`, if it is set.

    Factorized layers in the checkpoint are multiplied out, and shared low-rank adapters are merged.

    Args:
        run: The run, whose model is changed.

    Raises:
        ConfigError: If the file can't be read or holds a different trunk.
    """
    source = run.experiment.trunk.init_from
    if source is not None:
        with Problems(run.experiment).now("trunk.init_from"):
            source = str(checkpoint_of(given_path(source, "checkpoint")))
            payload, sharing = load_checkpoint(source), run.model.sharing
            if "reference" in payload:
                payload = {**payload, "model": complete_trunk(payload, run.model.state_dict(), source)}
            added = adapter_keys(sharing) if run.experiment.adapters is not None else ()
            state = merge_stored_adapters(sharing, payload) if payload["config"].get("adapters") else payload["model"]
            # a product of factors may be larger than both: its shape has to be right before it is made
            shapes = merge_factors({key: value.to("meta") for key, value in state.items()})
            check_trunk(sharing, shapes, source, added)
            warm_start(sharing, merge_factors(state), source, added)
