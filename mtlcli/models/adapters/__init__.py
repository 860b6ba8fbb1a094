"""Adapters: small trainable modules in a trunk whose own weights are frozen."""
