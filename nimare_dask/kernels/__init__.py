"""Numba kernels: arrays in, arrays out; no xarray, no dask."""
