"""The examples of the documentation work."""

import csv
import json
import re
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

import mtlcli
from mtlcli.cli import main
from mtlcli.config import experiment_from_dict, load_experiment
from mtlcli.data.datasets.image_masks import ImageMasks
from mtlcli.data.datasets.images import Images
from mtlcli.data.datasets.table import TableDataset
from mtlcli.data.formats.column_encoding import list_sources
from mtlcli.metric_names import metrics_to_choose
from mtlcli.pretrained import find_weights
from mtlcli.registry import kinds
from mtlcli.training.assembly.build import check_experiment
from tests.models.small_minilm import write_minilm

DOCS = Path(__file__).parents[1] / "docs"


def test_the_documented_weighting_trains(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    blocks = re.findall(r"^```python\n(.*?)^```$", (DOCS / "weighting.md").read_text(), re.MULTILINE | re.DOTALL)
    (code,) = (block for block in blocks if "@weightings.register" in block)
    plugin = tmp_path / "inverse_norm_of_the_documentation.py"
    plugin.write_text(code)
    config = str(DOCS.parent / "configs/digits.yaml")
    arguments = ["train", config, "training.epochs=1", "weighting={name: inverse_norm, every: 2}"]
    assert main([*arguments, "--plugin", str(plugin), "--run-dir", str(tmp_path / "run")]) == 0, capsys.readouterr().err
    assert ",train,mean,cosine," in (tmp_path / "run/metrics.csv").read_text()


def test_the_documented_regularizer_trains(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (code,) = re.findall(r"^```python\n(.*?)^```$", (DOCS / "regularizers.md").read_text(), re.MULTILINE | re.DOTALL)
    plugin = tmp_path / "small_features_of_the_documentation.py"
    plugin.write_text(code)
    config = str(DOCS.parent / "configs/digits.yaml")
    arguments = ["train", config, "training.epochs=1", "regularizers=[{name: small_features, margin: 2.0}]"]
    assert main([*arguments, "--plugin", str(plugin), "--run-dir", str(tmp_path / "run")]) == 0, capsys.readouterr().err
    assert ",train,regularizers.small_features,loss," in (tmp_path / "run/metrics.csv").read_text()


def test_the_documented_adapters_are_accepted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (text,) = re.findall(r"^```yaml\n(.*?)^```$", (DOCS / "adapters.md").read_text(), re.MULTILINE | re.DOTALL)
    plain = {"name": "adapters", **yaml.safe_load(text)}
    first = {**plain, "trunk": {**plain["trunk"], "init_from": None}, "training": {"epochs": 1, "device": "cpu"}}
    mtlcli.train({key: value for key, value in first.items() if key != "adapters"}, run_dir="runs/pretrained")
    check_experiment(experiment_from_dict(plain))


def test_the_documented_callbacks_are_called(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    text = (DOCS / "callbacks.md").read_text()
    python, plugin = re.findall(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    (keys,) = re.findall(r"^```yaml\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    (tmp_path / "status_file.py").write_text(plugin)
    config = (DOCS.parent / "configs/digits.yaml").read_text()
    monkeypatch.chdir(tmp_path)
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs/digits.yaml").write_text(config)
    (tmp_path / "digits.yaml").write_text(f"{config}\n{keys}")
    exec(python, {"__name__": "documentation"})
    assert capsys.readouterr().out.startswith("[(1, ")
    arguments = ["train", "digits.yaml", "training.epochs=1", "--allow-plugins", "--run-dir", str(tmp_path / "run")]
    assert main(arguments) == 0, capsys.readouterr().err
    assert (tmp_path / "status.txt").read_text() == "1 of 1 epochs\n"


def test_the_documented_table_is_read(tmp_path: Path) -> None:
    (text,) = re.findall(r"^```yaml\n(.*?)^```$", (DOCS / "tables.md").read_text(), re.MULTILINE | re.DOTALL)
    options = yaml.safe_load(text)["datasets"]["homes"]
    header = "price,sold,condition,garden,garage,pool,postcode,listed,furnished,description,agent,rooms\n"
    rows = [
        f"{9 * at}00,{at % 2},{'good' if at % 3 else 'bad'},1,0,{at % 2},1234{at % 5},2024-01-{1 + at:02},"
        f"{'yes' if at % 3 else 'No'},A {'big' if at % 2 else 'small'} home,x,{at % 4}"
        for at in range(25)
    ]
    (tmp_path / "homes.csv").write_text(header + "\n".join(rows))
    del options["name"]
    dataset = TableDataset(**{**options, "path": str(tmp_path / "homes.csv")})
    spec = dataset.describe()
    assert {name: target.type for name, target in spec.targets.items()} == {
        "price": "real", "sold": "binary", "condition": "classes", "features": "multilabel"
    }  # fmt: skip
    assert [(column.name, column.levels is None) for column in spec.columns if column.text is None] == [
        ("postcode", False), ("listed", True), ("furnished", True), ("rooms", True)
    ]  # fmt: skip
    assert list_sources(spec.columns) == ["postcode", "listed", "furnished", "description", "rooms"]


def test_the_documented_images_are_read(tmp_path: Path) -> None:
    text = (DOCS / "images.md").read_text()
    (options,) = yaml.safe_load(re.findall(r"^```yaml\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)[0])[
        "datasets"
    ].values()
    table = re.findall(r"^    file,.*?(?=^$)", text, re.MULTILINE | re.DOTALL)[0]
    (tmp_path / "labels.csv").write_text(table.replace("    ", ""))
    (tmp_path / "photos/old").mkdir(parents=True)
    for name in ("0001.jpg", "old/0002.png"):
        Image.new("RGB", (40, 30)).save(tmp_path / "photos" / name)
    del options["name"]
    dataset = Images(**{**options, "path": str(tmp_path / "labels.csv"), "root": str(tmp_path / "photos"), "test": 0})
    spec = dataset.describe()
    assert spec.input_shape == (3, 224, 224)
    assert {name: target.missing for name, target in spec.targets.items()} == {
        "make": False, "price": True, "sunroof": False
    }  # fmt: skip


def test_the_documented_masks_are_read(tmp_path: Path) -> None:
    text = (DOCS / "images.md").read_text()
    example = yaml.safe_load(re.findall(r"^```yaml\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)[1])
    options = example["datasets"]["rooms"]
    table = re.findall(r"^    file,.*?(?=^$)", text, re.MULTILINE | re.DOTALL)[1]
    (tmp_path / "table.csv").write_text(table.replace("    ", ""))
    for folder in ("masks", "depth", "normals"):
        (tmp_path / "photos" / folder).mkdir(parents=True)
    for name in "ab":
        Image.new("RGB", (40, 30)).save(tmp_path / f"photos/{name}.jpg")
        for mask in ("surface", "edges"):
            Image.new("L", (40, 30), 1).save(tmp_path / f"photos/masks/{name}_{mask}.png")
        np.save(tmp_path / f"photos/normals/{name}.npy", np.full((30, 40, 3), 3**-0.5))
    Image.new("I;16", (40, 30), 1500).save(tmp_path / "photos/depth/a.png")
    del options["name"]
    given = {"path": str(tmp_path / "table.csv"), "root": str(tmp_path / "photos"), "test": 0}
    dataset = ImageMasks(**{**options, **given})
    assert dataset.describe().input_shape == (3, 240, 320)
    whole = dataset.whole()
    for name, value in {"surface": 1, "edges": 1, "depth": 1.5, "normals": 3**-0.5}.items():
        assert np.allclose(whole.maps[name][0].numpy(), value)
    assert whole.maps["depth"][1].isnan().all() and whole.targets["weather"].tolist() == [1, 0]
    assert dataset.check_files() == []


def test_the_tutorial_of_images_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text = (DOCS / "tutorial-images.md").read_text()
    (code,) = re.findall(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    commands = "".join(re.findall(r"^```sh\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)).splitlines()
    monkeypatch.chdir(tmp_path)
    exec(code, {"__name__": "tutorial"})
    assert len(list(Path("photos").glob("*.jpg"))) == 600 and len(commands) == 4
    for command in commands:
        program, *arguments = shlex.split(command)
        assert program == "mtl" and main(arguments) == 0, capsys.readouterr().err
    (shown,) = re.findall(r"^```yaml\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    written = yaml.safe_load(Path("marbles.yaml").read_text())
    assert all(written[key] == value for key, value in yaml.safe_load(shown).items())
    metrics = json.loads(Path("runs/marbles/summary.json").read_text())["metrics"]["test"]
    assert metrics["color"]["accuracy"] > 0.7 and metrics["night"]["accuracy"] > 0.7 and metrics["count"]["r2"] > 0.3
    with Path("predictions.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 20 and list(rows[0]) == ["file", "color", "count", "night"]
    assert {row["color"] for row in rows} == {"red", "green", "blue"} and {row["night"] for row in rows} == {"0", "1"}


def test_examples_of_the_python_api_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    code = re.findall(r"^```python\n(.*?)^```$", (DOCS / "api.md").read_text(), re.MULTILINE | re.DOTALL)
    names: dict[str, Any] = {"__name__": "example"}
    for block in code:
        exec(block, names)
    printed = capsys.readouterr().out
    assert "trunk.hiden - unknown option of trunk 'mlp'. Did you mean 'hidden'?" in printed
    assert "training.epochs - expected an integer > 0" in printed
    assert len(names["predictions"]["digit"]) == 5 and names["features"]["digit"].shape == (5, 128)
    assert names["relations"].tasks == ["digit", "ink"] and names["comparison"].failed == []


def test_the_documented_runs_are_merged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text = (DOCS / "merging.md").read_text()
    (commands,) = re.findall(r"^```sh\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    (code,) = re.findall(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "configs").symlink_to(DOCS.parent / "configs")
    for line in commands.splitlines():
        program, *arguments = shlex.split(line)
        assert program == "mtl"
        quick = ["training.epochs=1", "training.batch_size=200"] if arguments[0] == "train" else []
        assert main([*arguments, *quick]) == 0, (line, capsys.readouterr().err)
    assert "| test | parity |" in capsys.readouterr().out
    names: dict[str, Any] = {"mtlcli": mtlcli}
    exec(code, names)
    assert names["merged"].coefficients.keys() == {"digit", "parity"}
    assert names["model"].sources.keys() == {"digit", "parity"}


def test_the_documented_reference_to_a_base_is_valid() -> None:
    (text,) = re.findall(r"^```yaml\n(.*?)^```$", (DOCS / "checkpoints.md").read_text(), re.MULTILINE | re.DOTALL)
    data = {"datasets": {"r": {"name": "reviews"}}, "tasks": {"rating": {"dataset": "r", "kind": "classification"}}}
    experiment = experiment_from_dict({"name": "small", **data, **yaml.safe_load(text)})
    assert experiment.checkpoint.base == "reference"
    assert experiment.resolved()["checkpoint"]["base"] == "reference"


def test_the_documented_models_of_maps_are_valid() -> None:
    blocks = re.findall(r"^```yaml\n(.*?)^```$", (DOCS / "dense.md").read_text(), re.MULTILINE | re.DOTALL)
    complete = [block for block in blocks if block.startswith("name:")]
    assert len(complete) >= 4  # the others are parts of one, of which other tests read those of datasets
    for block in complete:
        check_experiment(experiment_from_dict(yaml.safe_load(block)))


def test_every_file_in_the_documentation_exists() -> None:
    for document in DOCS.glob("*.md"):
        for path in re.findall(r"`((?:benchmarks|configs|scripts|docs|tests)/[\w/.]+)", document.read_text()):
            assert (DOCS.parent / path).exists(), (document.name, path)


def test_the_modules_that_the_architecture_names_exist() -> None:
    """`package/module` and `package/module.Name.member`, relative to any package, with definitions of all names."""
    root = DOCS.parent / "mtlcli"
    modules = {path.relative_to(root).with_suffix("").as_posix(): path for path in root.rglob("*.py")}
    modules |= {name.removesuffix("/__init__"): path for name, path in modules.items() if name.endswith("/__init__")}
    named = re.findall(r"`([a-z_]+(?:/[a-z_]+)+)((?:\.\w+)*)`", (DOCS / "architecture.md").read_text())
    assert len(named) > 40
    for module, members in named:
        (path,) = [path for name, path in modules.items() if f"/{name}".endswith(f"/{module}")]
        for member in filter(None, members.split(".")):
            assert re.search(rf"^ *(def|class) {member}\b", path.read_text(), re.MULTILINE), f"{module}{members}"


def test_the_documented_predictions_are_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (commands,) = re.findall(r"^```sh\n(.*?)^```$", (DOCS / "prediction.md").read_text(), re.MULTILINE | re.DOTALL)
    config = (DOCS.parent / "configs/digits.yaml").read_text()
    monkeypatch.chdir(tmp_path)
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs/digits.yaml").write_text(config)
    np.save(tmp_path / "images.npy", np.zeros((3, 8, 8), np.uint8))
    for command in commands.splitlines():
        program, *arguments = shlex.split(command)
        assert program == "mtl" and main(arguments) == 0
    assert (tmp_path / "predictions.csv").read_text().startswith("digit,parity,ink,segments\n")
    assert len((tmp_path / "predictions.jsonl").read_text().splitlines()) == 3
    assert np.load(tmp_path / "features.npy").shape == (3, 64)


def test_the_documented_metrics_are_reported(tmp_path: Path, capsys: pytest.CaptureFixture[str], plots: None) -> None:
    text = (DOCS / "metrics.md").read_text()
    (config,) = re.findall(r"^```yaml\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    (tmp_path / "metrics.yaml").write_text(config)
    run = tmp_path / "run"
    arguments = ["train", str(tmp_path / "metrics.yaml"), "training.epochs=1", "--require", "digit.recall[8]>=0"]
    assert main([*arguments, "--run-dir", str(run)]) == 0, capsys.readouterr().err
    table, by_class, *_ = (run / "table.md").read_text().split("\n\n")
    assert table.startswith("| split | task | n | loss | accuracy | balanced_accuracy | log_loss | calibration_error |")
    assert by_class.startswith("| split | task | class | recall | precision |")
    assert by_class.count("| test | digit |") == 10
    drawn = {path.name for path in (run / "plots").iterdir()}
    for task in ("digit", "parity", "rank"):
        assert drawn >= {f"confusion-{task}.png", f"confusion-{task}.csv", f"calibration-{task}.png"}
    assert not [name for name in drawn if "ink" in name]


def test_all_metrics_are_documented() -> None:
    documented: dict[str, set[str]] = {}
    text = (DOCS / "metrics.md").read_text().partition("\n## Labels of pixels")[0]
    kind = ""
    for first, metrics in re.findall(r"^\| (?:`(\w+)`)?(?: on maps)? ?\| (`.*?) \|", text, re.MULTILINE):
        kind = first or kind
        documented.setdefault(kind, set()).update(re.findall(r"`([\w.]+)`(\*?)", metrics))
    for name in kinds.names():
        target = kinds[name].target
        assert {metric for metric, _ in documented[name]} == set(metrics_to_choose(target)), name
        assert {metric for metric, star in documented[name] if star} == {*target.directions} - {"loss"}, name


def test_the_documented_weights_train(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (text,) = re.findall(r"^```yaml\n(.*?)^```$", (DOCS / "weights.md").read_text(), re.MULTILINE | re.DOTALL)
    rows = [
        f"{at % 7},{at % 3},{at % 2},{at % 5},{('price', 'delivery', 'other')[at % 3]},{at % 4}" for at in range(90)
    ]
    (tmp_path / "visits.csv").write_text("\n".join(["age,pages,bought,amount,reason,weight", *rows]))
    (tmp_path / "visits.yaml").write_text(text)
    monkeypatch.chdir(tmp_path)
    assert main(["train", "visits.yaml", "training.epochs=2", "--run-dir", "run"]) == 0, capsys.readouterr().err
    log = (tmp_path / "run/log.txt").read_text()
    assert "task amount: only examples with bought = 1" in log
    assert "task reason: class weights delivery 0.5, other 1, price 2" in log


def test_the_documented_instructions_are_valid(tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    (text,) = re.findall(r"^```yaml\n(.*?)^```$", (DOCS / "generation.md").read_text(), re.MULTILINE | re.DOTALL)
    (tmp_path / "instructions.yaml").write_text(text)
    check_experiment(load_experiment(tmp_path / "instructions.yaml"))


def test_the_documented_stems_and_dependent_tasks_are_valid() -> None:
    blocks = re.findall(r"^```yaml\n(.*?)^```$", (DOCS / "configuration.md").read_text(), re.MULTILINE | re.DOTALL)
    (stems,) = (yaml.safe_load(block) for block in blocks if "stems:" in block)
    (linked,) = (yaml.safe_load(block) for block in blocks if "after:" in block)
    datasets = {"mnist": {"name": "mnist"}, "digits": {"name": "digits"}, "census": {"name": "census_income"}}
    images = {task: {"dataset": task, "target": "digit", "kind": "classification"} for task in ("mnist", "digits")}
    check_experiment(
        experiment_from_dict({"name": "x", "datasets": datasets, **stems, "tasks": linked["tasks"] | images})
    )


def test_the_documented_fine_tuning_is_valid() -> None:
    (text,) = re.findall(r"^```yaml\n(.*?)^```$", (DOCS / "fine-tuning.md").read_text(), re.MULTILINE | re.DOTALL)
    plain: dict[str, Any] = yaml.safe_load(text)
    if find_missing(plain["trunk"]["pretrained"]):
        del plain["trunk"]["pretrained"]
    plain |= {"name": "tuned", "datasets": {"digits": {"name": "digits"}}, "tasks": {"digit": {"dataset": "digits"}}}
    plain["tasks"]["digit"]["kind"] = "classification"
    check_experiment(experiment_from_dict(plain))


def find_missing(weights: str) -> bool:
    """Return whether pretrained weights have not been fetched."""
    try:
        return find_weights(weights) is None
    except ValueError:
        return True


def test_the_example_of_texts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The documented experiment trains on the columns that it names, and the model predicts the documented texts."""
    pytest.importorskip("transformers")
    text = (DOCS / "text.md").read_text()
    config, tags, pairs = re.findall(r"^```yaml\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    (code,) = re.findall(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MTL_DATA", str(write_minilm(tmp_path)))
    rows = ["title,body,topic,urgent,minutes"]
    rows += [f"note {at},the dress is {at},{'ab'[at % 2]},{at % 2},{at}" for at in range(40)]
    Path("notes.csv").write_text("\n".join(rows))
    Path("notes.yaml").write_text(config)
    assert main(["train", "notes.yaml", "training.epochs=1", "--run-dir", "runs/notes"]) == 0
    names: dict[str, Any] = {"mtlcli": mtlcli}
    exec(code, names)
    assert len(names["model"].predict([("a", "b"), (None, "c")])["topic"].labels) == 2
    plain = {**yaml.safe_load(config), "name": "notes", "trunk": {"name": "mlp"}}
    check_experiment(experiment_from_dict(plain))
    (row,) = re.findall(r'`(\{"words": .*?\})`', text)
    other = {"words": ["Go"], "names": ["O"], "topic": "sport"}
    Path("news.jsonl").write_text("\n".join([row, json.dumps(other)] * 10))
    Path("sts.csv").write_text("\n".join(["first,second,score", *(f"text {at},a text,{at % 6}" for at in range(20))]))
    Path("faq.csv").write_text("\n".join(["question,answer", *(f"text {at},a text {at}" for at in range(20))]))
    for example in (tags, pairs):
        check_experiment(experiment_from_dict({"name": "example", **yaml.safe_load(example)}))


def test_the_documented_vision_transformer_is_valid() -> None:
    (text,) = re.findall(r"^```yaml\n(.*?)^```$", (DOCS / "large-models.md").read_text(), re.MULTILINE | re.DOTALL)
    check_experiment(experiment_from_dict(yaml.safe_load(text)))
