from __future__ import annotations

from pathlib import Path

from mtlcli.files import UNFINISHED
from mtlcli.studies.folder import StudyFolder


def test_lock_removes_only_unfinished_files(tmp_path: Path) -> None:
    """A folder given by `--out` may contain files of the user."""
    kept = [tmp_path / ".pre-commit-config.yaml", tmp_path / "docs/.readthedocs.yaml"]
    unfinished = [tmp_path / f"{UNFINISHED}comparison.csv.x.csv", tmp_path / f"docs/{UNFINISHED}relation.csv.y.csv"]
    (tmp_path / "docs").mkdir()
    (tmp_path / ".venv.old").mkdir()
    for path in [*kept, *unfinished]:
        path.write_text("")
    with StudyFolder(tmp_path).lock():
        pass
    assert all(path.exists() for path in kept) and not any(path.exists() for path in unfinished)
