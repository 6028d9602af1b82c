"""Running on more than one machine, with real processes."""
