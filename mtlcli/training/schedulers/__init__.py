"""Learning rate schedules in addition to those of torch."""
