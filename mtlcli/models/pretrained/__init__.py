"""Pretrained models: their files, configurations and networks, for the trunks that are built from them."""
