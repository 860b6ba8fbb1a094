from pathlib import Path

import pytest
from PIL import Image

from mtlcli.cli import main
from mtlcli.config import load_experiment


def test_the_example_experiment_is_valid(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["init"]) == 0
    assert capsys.readouterr().out == "wrote experiment.yaml; next: mtl train experiment.yaml\n"
    assert main(["validate", "experiment.yaml"]) == 0
    experiment = load_experiment("experiment.yaml")
    assert list(experiment.tasks) == ["digit", "parity", "ink"]
    assert experiment.datasets["digits"].name == "digits"
    assert experiment.name == "experiment"


def test_files_are_overwritten_only_with_force(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("precious")
    assert main(["init", str(file)]) == 2
    assert "exists already; use --force to overwrite it" in capsys.readouterr().err
    assert file.read_text() == "precious"
    assert main(["init", str(file), "--force"]) == 0
    assert "precious" not in file.read_text()


def test_a_missing_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["init", str(tmp_path / "nowhere" / "x")]) == 2
    assert "can't be written: No such file or directory" in capsys.readouterr().err


def test_printed_commands_can_be_copied(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["init", "my own"]) == 0
    assert capsys.readouterr().out == "wrote my own.yaml; next: mtl train 'my own.yaml'\n"
    assert "mtl train 'my own.yaml' " in Path("my own.yaml").read_text()


def write_images(folder: Path, table: str) -> None:
    folder.mkdir()
    (folder / "labels.csv").write_text(table)
    (folder / "photos").mkdir()
    for at in range(30):
        Image.new("RGB", (70, 90), (8 * at, 0, 0)).save(folder / f"photos/{at}.png")


def test_an_experiment_for_own_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    rows = [
        f"{100 + at};{at}.png;{'red' if at % 2 else 'blue'};{at / 8};{at % 3 // 2 if at else ''};note {at};{at % 5}"
        f";{'4 x' if at else 4};{'train' if at < 20 else 'val' if at < 25 else 'test'}"
        for at in range(30)
    ]
    write_images(tmp_path / "own", "\n".join(["id;file;Color;size in m;sold;comment;mean;mixed;part", *rows]))
    assert main(["init", "cars", "--images", "own/labels.csv"]) == 0
    assert main(["validate", "cars.yaml"]) == 0, capsys.readouterr().err
    experiment = load_experiment("cars.yaml")
    options = experiment.datasets["photos"].options
    assert options["root"] == "own/photos" and options["size"] == 64 and options["split_column"] == "part"
    assert options["targets"] == {"Color": "classes", "size in m": "real", "sold": "binary", "mean": "real"}
    kinds = {name: (task.target, task.kind.name) for name, task in experiment.tasks.items()}
    assert kinds == {
        "Color": (None, "classification"), "size_in_m": ("size in m", "regression"), "sold": (None, "binary"),
        "task_mean": ("mean", "regression"),
    }  # fmt: skip
    text = Path("cars.yaml").read_text()
    assert "# not used: id (it numbers the rows)\n" in text and "# not used: comment (it is text that differs" in text
    assert "# not used: mixed (" in text and "Color: classes  # blue, red\n" in text
    assert "sold: binary  # 0 and 1, with blanks\n" in text


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("file,color\n0,red\n1,blue\n", "no column has the paths of images (such as `photos/1.jpg`); its columns are"),
        ("file,color\na.png,red\nb.png,blue\n", "the images of column 'file', such as 'a.png', are not below the fold"),
        ("file\n0.png\n1.png\n", "no column besides 'file' has labels\n"),
        ("file,x\n0.png,a\n1.png,a\n", "no column besides 'file' has labels ('x': target 'x' has only the class 'a'"),
    ],
)
def test_a_table_without_images_or_labels(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], table: str, message: str
) -> None:
    write_images(tmp_path / "own", table)
    assert main(["init", str(tmp_path / "x"), "--images", str(tmp_path / "own/labels.csv")]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "x.yaml").exists()
    assert main(["init", str(tmp_path / "x"), "--images", str(tmp_path / "nowhere.csv")]) == 2
    assert "nowhere.csv: can't be read as a table: No such file" in capsys.readouterr().err
