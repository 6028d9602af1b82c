"""Meta-analytic estimators, one file each."""
