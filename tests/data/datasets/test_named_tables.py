"""Tables that are datasets by name: made-up files in the layout of the real ones, and the real ones if available."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import mtlcli
from mtlcli.data.datasets._named_table import NamedTable
from mtlcli.data.datasets.brown import DOCUMENTS, Brown, JoinedDocuments
from mtlcli.data.datasets.brown import FILE as BROWN
from mtlcli.data.datasets.movielens_100k import GENRES, MovieLens100K
from mtlcli.data.datasets.reviews import COLUMNS, Reviews
from mtlcli.data.datasets.reviews import FILE as REVIEWS
from mtlcli.data.datasets.vader import CHECKSUMS, Vader
from mtlcli.data.download.collection import SourceUnavailable, data_root
from mtlcli.data.formats.column_encoding import list_sources
from mtlcli.errors import ConfigError, MtlError
from mtlcli.registry import datasets
from mtlcli.training.assembly.build import build, check_experiment
from tests.data.download.collections import FakeSource

WORDS = ["soft", "small", "awful", "lovely", "blue", "returned", "comfortable"]


def texts(amount: int) -> list[str]:
    return [f"{WORDS[at % 7]} and {WORDS[at % 5]} {WORDS[at % 3]} {at}" for at in range(amount)]


def reviews_file() -> bytes:
    import pyarrow as pa
    import pyarrow.parquet

    amount = 60
    columns: dict[str, list[Any]] = {
        "title": [None if at % 4 == 1 else f"{WORDS[at % 7]} dress" for at in range(amount)],
        "review": [None if at % 10 == 9 else text for at, text in enumerate(texts(amount))],
        "age": [20 + at % 50 for at in range(amount)],
        "rating": [1 + at % 5 for at in range(amount)],
        "recommended": [int(at % 5 > 2) for at in range(amount)],
        "department": [None if at == 3 else ("Tops", "Dresses", "Trend")[at % 3] for at in range(amount)],
        "class": [None if at == 3 else ("Knits", "Dresses", "Trend")[at % 3] for at in range(amount)],
        "division": [None if at == 3 else ("General", "Initmates")[at % 2] for at in range(amount)],
        "feedback": [at % 4 for at in range(amount)],
    }
    file = io.BytesIO()
    pyarrow.parquet.write_table(pa.table({COLUMNS[name]: cells for name, cells in columns.items()}), file)
    return file.getvalue()


def vader_files() -> dict[str, bytes]:
    """Files with a byte order mark, line ends of Windows, a byte that is not UTF-8, and ids DOCUMENT_SENTENCE."""
    files = {}
    for file in CHECKSUMS:
        ids = [f"{1 + at // 4}_{1 + at % 4}" if "amazon" in file or "nyt" in file else str(1 + at) for at in range(40)]
        means = [(at % 9 - 4) / 1.5 for at in range(40)]
        if file.endswith("_GroundTruth.txt"):
            rows = [f"{i}\t{mean:.12g}\t{text}" for i, mean, text in zip(ids, means, texts(40), strict=True)]
        else:
            means[2] += file.startswith("tweets")
            rows = [f"{i}\t{mean:.10g}\t0.5{at}\t[1, 2]" for at, (i, mean) in enumerate(zip(ids, means, strict=True))]
        files[file] = b"\xef\xbb\xbf" + "\r\n".join([*rows, ""]).encode().replace(b"blue 4\r", b"blue \x92\r")
    return files


def brown_documents() -> dict[str, bytes]:
    """All 500 documents, each with 24 words and punctuation."""
    sentence = "The/at jury/nn said/vbd it's/pps+bez Friday/nr ``/`` good/jj ''/'' \n\n\tnews/nn ./.\n"
    return {name: f"\n\n\t{sentence * 3}{name}/np-tl left/vbd ,/,\n".encode() for name in DOCUMENTS}


def movielens_files() -> dict[str, bytes]:
    films = [
        "1\tToy Story\t1995\tAnimation Children's",
        "2\tunkonwn\tunkonwn\tunknown",
        "3\tHeat\t1996\tAction Film-Noir",
    ]
    users = [
        f"{user}\t{20 + user}\t{'MF'[user % 2]}\t{('student', 'none', 'artist')[user % 3]}\t0{user}"
        for user in range(1, 21)
    ]
    ratings = [f"{user}\t{film}\t{1 + (user + film) % 5}\t88{user}" for user in range(1, 21) for film in (1, 2, 3)]
    return {
        "ml-100k.item": "\n".join(["item_id:token\ttitle\tyear\tclass", *films, ""]).encode(),
        "ml-100k.user": "\n".join(["user_id:token\tage\tgender\toccupation\tzip", *users, ""]).encode(),
        "ml-100k.inter": "\n".join(["user_id:token\titem_id:token\trating:float\ttime", *ratings, ""]).encode(),
    }


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("root")
    joined = JoinedDocuments(FakeSource(brown_documents())).collect([BROWN], tmp_path_factory.mktemp("work"))[BROWN]
    content = {
        "reviews": {REVIEWS: reviews_file()}, "vader": vader_files(), "movielens_100k": movielens_files(),
        "brown": {BROWN: joined.read_bytes()},
    }  # fmt: skip
    for name, files in content.items():
        raw = folder / name / "raw"
        raw.mkdir(parents=True)
        for file, data in files.items():
            (raw / file).write_bytes(data)
    return folder


SMALL: dict[str, dict[str, Any]] = {
    "reviews": {"features": 16}, "vader": {"domain": "nyt", "features": 16},
    "brown": {"features": 64, "words": 10}, "movielens_100k": {"features": 8},
}  # fmt: skip


def open_dataset(name: str, root: Path, **options: Any) -> NamedTable:
    dataset = datasets[name].create(root=str(root), download=False, **{**SMALL[name], **options})
    assert isinstance(dataset, NamedTable)
    return dataset


@pytest.mark.parametrize("name", SMALL)
def test_the_description_before_the_data_is_read_has_the_form_of_the_fitted_one(name: str, root: Path) -> None:
    dataset = open_dataset(name, root)
    outline = open_dataset(name, root / "empty").describe()
    dataset.fit()
    spec = dataset.describe()
    assert list_sources(outline.columns) == list_sources(spec.columns)
    assert [column.levels is None for column in outline.columns] == [column.levels is None for column in spec.columns]
    assert (outline.splits, outline.main_target) == (spec.splits, spec.main_target)
    types = [{name: (t.type, t.classes) for name, t in of.targets.items()} for of in (outline, spec)]
    assert types[0] == types[1]
    assert any(column.text is not None and column.text.idf != 1 for column in spec.columns)
    sizes = {split: len(dataset.examples(split, 0)) for split in spec.splits}
    assert sum(sizes.values()) == len(dataset.whole()) and min(sizes.values()) > 0
    assert all(option.description for option in datasets[name].options.values())


@pytest.mark.parametrize("name", SMALL)
def test_a_checkpoint_fixes_the_encoding(name: str, root: Path) -> None:
    trained = open_dataset(name, root)
    trained.fit()
    again = open_dataset(name, root)
    assert again.restore(trained.describe()) == trained.describe()
    first, second = trained.whole().inputs, again.whole().inputs
    assert isinstance(first, torch.Tensor) and isinstance(second, torch.Tensor) and torch.equal(first, second)


def targets(dataset: NamedTable) -> dict[str, list[float]]:
    return {name: values.tolist() for name, values in dataset.whole().targets.items()}


def test_reviews_without_a_text_are_left_out(root: Path) -> None:
    dataset = open_dataset("reviews", root)
    values = targets(dataset)
    assert len(dataset.whole()) == 54
    assert values["rating"][:4] == [0, 1, 2, 3] and values["recommended"][:5] == [0, 0, 0, 1, 1]
    assert values["department"][:4] == [4, 1, 5, -100] and values["feedback"][:4] == [0, 1, 2, 3]
    assert dataset._loaded is not None and list_sources(dataset.describe().columns) == ["title", "review", "age"]


def test_vader_pairs_texts_with_the_deviation_of_their_ratings(root: Path) -> None:
    values = targets(open_dataset("vader", root))
    assert values["sentiment"][:3] == pytest.approx([-4 / 1.5, -3 / 1.5, -2 / 1.5])
    assert values["deviation"][:12] == pytest.approx([float(f"0.5{at}") for at in range(12)])
    tweets = targets(open_dataset("vader", root, domain="tweets"))["deviation"]
    assert np.isnan(tweets).tolist() == [at == 2 for at in range(40)]


def test_sentences_of_a_document_are_in_one_split(root: Path) -> None:
    dataset = open_dataset("vader", root)
    for split in ("train", "val", "test"):
        rows = dataset.examples(split, 0).rows
        assert rows is not None and len(rows) % 4 == 0 and (rows[::4] % 4 == 0).all()
        assert torch.equal(rows.view(-1, 4), rows[::4, None] + torch.arange(4))


def test_brown_counts_parts_of_speech_in_passages(root: Path) -> None:
    dataset = open_dataset("brown", root)
    values = targets(dataset)
    assert len(dataset.whole()) == 2 * 500  # of 10 words, and 13
    assert values["genre"][:2] == [0, 0] and values["genre"][-1] == 14
    assert values["imaginative"][0] == 0 and values["imaginative"][-1] == 1
    # The jury said it's Friday good news | The jury said, then the rest
    assert values["nouns"][:2] == pytest.approx([4 / 10, 6 / 13])
    assert values["verbs"][:2] == pytest.approx([2 / 10, 2 / 13])
    assert values["pronouns"][0] == pytest.approx(1 / 10) and values["modifiers"][0] == pytest.approx(1 / 10)


def test_brown_has_a_part_of_speech_of_each_word(root: Path) -> None:
    dataset = open_dataset("brown", root, unit="sentences")
    tags = ["DET NOUN VERB PRON NOUN . ADJ .", "NOUN .", "NOUN VERB ."]  # it's has the tag of its first part
    names = dataset.describe().targets["pos"].class_names
    labels = [[names[tag] for tag in row if tag >= 0] for row in targets(dataset)["pos"][:7]]
    assert labels == [tags[at].split() for at in (0, 1, 0, 1, 0, 1, 2)]
    corpus = open_dataset("brown", root, tagset="brown")
    names = corpus.describe().targets["pos"].class_names
    first = targets(corpus)["pos"][0]
    assert [names[tag] for tag in first[:8]] == ["at", "nn", "vbd", "pps", "nr", "``", "jj", "''"]


def test_brown_needs_all_documents(tmp_path: Path) -> None:
    documents = brown_documents()
    del documents["ck07"]
    with pytest.raises(SourceUnavailable, match="has no ck07"):
        JoinedDocuments(FakeSource(documents)).collect([BROWN], tmp_path)


def test_movielens_joins_the_attributes_of_users_and_films(root: Path) -> None:
    dataset = open_dataset("movielens_100k", root)
    values = targets(dataset)
    assert values["rating"][:3] == [2, 3, 4] and values["stars"][:3] == [3, 4, 5] and values["liked"][:3] == [0, 1, 1]
    spec = dataset.describe()
    names = [column.name for column in spec.columns]
    inputs = dataset.whole().inputs
    assert isinstance(inputs, torch.Tensor)
    first = dict(zip(names, inputs[0].tolist(), strict=True))
    assert first["age"] == 21 and first["Animation"] == first["Children's"] == 1 and first["Action"] == 0
    year = next(column for column in spec.columns if column.name == "year")
    assert inputs[1, names.index("year")].item() == pytest.approx(year.mean)  # the year of the second film is missing
    plain = open_dataset("movielens_100k", root, ids=False, together="user")
    plain.fit()
    assert list_sources(plain.describe().columns) == ["age", "gender", "occupation", "title", "year", *GENRES]
    rows = plain.examples("test", 0).rows
    assert rows is not None and len(rows) % 3 == 0 and (rows[::3] % 3 == 0).all()


DAMAGED = {
    "reviews": (REVIEWS, b"PAR1 nonsense", "reviews: .*parquet.brotli: .* Run `mtl data fetch reviews"),
    "vader": ("nytEditorialSnippets_GroundTruth.txt", b"1_1\t0.4\n", r"GroundTruth.txt:1: 2 values, expected 3\. Run"),
    "brown": (BROWN, b"== ca01\nThe/at jury\n", "the document 'ca01' is unknown, or has a token that is not WORD/TAG"),
    "movielens_100k": ("ml-100k.inter", b"header\n1\t9\t5\t0\n", "ml-100k.inter:2: unknown user 1 or film 9"),
}


@pytest.mark.parametrize("name", SMALL)
def test_damaged_and_missing_files(name: str, root: Path, tmp_path: Path) -> None:
    file, content, message = DAMAGED[name]
    raw = tmp_path / name / "raw"
    raw.mkdir(parents=True)
    for path in (root / name / "raw").iterdir():
        (raw / path.name).write_bytes(content if path.name == file else path.read_bytes())
    with pytest.raises(MtlError, match=message):
        open_dataset(name, tmp_path).fit()
    with pytest.raises(ConfigError, match=f"no .*, and `download` is false. Run `mtl data fetch {name}"):
        open_dataset(name, tmp_path / "empty").fit()


def config(root: Path, domains: tuple[str, ...]) -> dict[str, Any]:
    options = {"name": "vader", "root": str(root), "download": False, "features": 8}
    return {
        "name": "vader",
        "datasets": {domain: {**options, "domain": domain} for domain in domains},
        "tasks": {domain: {"dataset": domain, "target": "sentiment", "kind": "regression"} for domain in domains},
        "trunk": {"name": "mlp", "hidden": [4], "features": 4},
        "training": {"epochs": 1, "batch_size": 16, "device": "cpu", "threads": 1},
    }


def test_an_experiment_is_checked_without_data_and_trained_with_a_common_encoding(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    domains = ("amazon", "nyt")
    check_experiment(mtlcli.load_experiment(config(tmp_path / "empty", domains)))
    run = build(mtlcli.load_experiment(config(root, domains)))
    assert run.specs["amazon"].columns == run.specs["nyt"].columns
    assert all(column.text is not None and column.text.idf > 1 for column in run.specs["nyt"].columns)
    monkeypatch.setenv("MTL_DATA", str(root))  # a checkpoint doesn't store paths
    summary = mtlcli.train(config(root, domains), run_dir=tmp_path / "run", plots=False)
    assert mtlcli.evaluate(str(summary["checkpoint"])) == summary["metrics"]["test"]


REAL: dict[str, type[NamedTable]] = {
    "reviews": Reviews,
    "vader": Vader,
    "brown": Brown,
    "movielens_100k": MovieLens100K,
}
SIZES = {"reviews": 22_641, "vader": 4_200, "brown": 10_085, "movielens_100k": 100_000}


@pytest.mark.parametrize("name", REAL)
def test_the_real_files_match_the_description(name: str) -> None:
    dataset = REAL[name](val=0.0, features=8)  # type: ignore[call-arg]
    if not dataset.collection.complete(data_root(None)):
        pytest.skip(f"the data isn't here: mtl data fetch {name}")
    outline = dataset.describe()
    dataset.fit()
    spec = dataset.describe()
    assert len(dataset.whole()) == SIZES[name] and abs(len(dataset.examples("test", 0)) / SIZES[name] - 0.2) < 0.02
    kept = [(column.name, column.levels and len(column.levels)) for column in outline.columns if column.name != "film"]
    assert kept == [
        (column.name, column.levels and len(column.levels)) for column in spec.columns if column.name != "film"
    ]
    for target, described in outline.targets.items():
        fitted = spec.targets[target]
        assert (fitted.type, fitted.classes, fitted.missing) == (described.type, described.classes, described.missing)
