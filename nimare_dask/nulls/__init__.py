"""Null distributions, one file per scheme."""
