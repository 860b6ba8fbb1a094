"""Long tests of the guarantees of docs/reliability.md, run by `scripts/torture.sh`. The suite has a short version."""
