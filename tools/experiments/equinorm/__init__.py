"""EquiNorm beside BatchNorm and GroupNorm: training curves and cost of a step."""
