"""Ray casting of simple scenes with exact ground truth, for the dataset `scenes`."""
