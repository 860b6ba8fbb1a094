"""The functions and classes that `mtlcli` exports; import them from there."""
