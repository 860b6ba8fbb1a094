"""Studies: comparisons of methods, and relations between tasks, from many runs."""
