"""Running torch models for measurement: runs, float64 copies, noise, errors."""
