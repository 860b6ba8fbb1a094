"""Numbers of labels, by which mean losses divide."""

from mtlcli.labels import count_labels as count_labels
