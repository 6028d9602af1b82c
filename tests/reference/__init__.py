"""Slow reference implementations of the formulas, written for checking, not for use.

Everything is a plain loop over foci, voxels or p-values, in float64 (or exact rationals), with
no float32 storage step: cast and clip before comparing with maps that went through storage.
"""
