"""What docs/reliability.md promises, tried for minutes: `scripts/torture.sh`. A short form is in the suite."""
