"""Methods compared over seeds, against single-task baselines."""
