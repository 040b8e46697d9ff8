"""From log-scales to new weights: coefficients, products rounded once, the range of a float format."""
