"""From log-scales to new weights: coefficients, products rounded once, what a float format can hold."""
