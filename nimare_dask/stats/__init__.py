"""Statistics on arrays: p values, z scores, chi-square, multiple comparisons."""
