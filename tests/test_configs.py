"""All configurations of the repository are valid."""

from pathlib import Path

import pytest

from mtlcli.config import load_experiment
from mtlcli.errors import ConfigError
from mtlcli.files import data_root
from mtlcli.studies.compare.plan import make_plan
from mtlcli.studies.compare.published import read_published
from mtlcli.training.assembly.build import build, check_experiment
from mtlcli.training.checkpoint.file import plain, save_checkpoint
from tests.data.mtan_files import write_mtan_files
from tests.models.small_minilm import write_minilm

ROOT = Path(__file__).parents[1]
PLACED = ("nyuv2", "cityscapes")  # datasets whose files users place by hand
METHODS = "uniform,rlw,dwa,uncertainty,mgda,pcgrad,graddrop,cagrad,{name: imtl_g, gradients: features},nash_mtl,famo"
CONFIGS = sorted([*(ROOT / "configs").rglob("*.yaml"), *(ROOT / "benchmarks").rglob("*.yaml")])


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint as from `configs/transfer_pretrain.yaml`, but untrained."""
    run = build(load_experiment(ROOT / "configs/transfer_pretrain.yaml"))
    path = tmp_path_factory.mktemp("pretrained") / "best.pt"
    model = plain(dict(run.model.state_dict()))
    save_checkpoint(path, {"config": run.experiment.resolved(), "specs": {}, "model": model})
    return path


@pytest.fixture(scope="module")
def small_models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data root with a small model of random weights in place of the pretrained `minilm`."""
    pytest.importorskip("transformers")
    return write_minilm(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def placed_files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data root with small files in place of NYUv2 and Cityscapes."""
    return write_mtan_files(tmp_path_factory.mktemp("placed"))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_config_is_valid(
    path: Path, pretrained: Path, small_models: Path, placed_files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MTL_PRETRAINED", str(pretrained))  # initial weights of the transfer configurations
    if path.stem in PLACED:
        monkeypatch.setenv("MTL_DATA", str(placed_files))
    elif not (data_root(None) / "minilm").is_dir():
        monkeypatch.setenv("MTL_DATA", str(small_models))
    try:
        check_experiment(load_experiment(path))
    except ConfigError as error:
        if "run `mtl data fetch" not in str(error):  # of pretrained weights, which no check downloads
            raise
        pytest.skip(str(error))


@pytest.mark.parametrize(
    ("name", "vary"),
    [("census_group1", ["sharing=hard,cross_stitch,omoe,mmoe"]), ("census_group2", ["sharing=hard,mmoe"]),
     ("multimnist", ["weighting=uniform,{name: imtl_g, gradients: features},"
                     "{name: mgda, gradients: features, normalization: loss+},pcgrad,graddrop,rlw,uncertainty,gradnorm,"
                     "{name: mgda, gradients: features}"]),
     pytest.param("nyuv2", [f"weighting={METHODS}"], marks=pytest.mark.matrix),
     pytest.param("cityscapes", [f"weighting={METHODS},{{name: famo, weight_decay: 0.01}}"], marks=pytest.mark.matrix)],
)  # fmt: skip
def test_published_values_belong_to_methods_of_the_study(
    name: str, vary: list[str], placed_files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if name in PLACED:
        monkeypatch.setenv("MTL_DATA", str(placed_files))
    config = ROOT / f"configs/papers/{name}.yaml"
    plan = make_plan(lambda overrides: load_experiment(config, overrides), vary, [], 1, 1)
    labels = {"single-task", "SI", *(method.label for method in plan.methods)}  # SI is none of ours
    for table in read_published(ROOT / f"docs/published/{name}.yaml", plan):
        assert set(table.rows) <= labels, table.source
