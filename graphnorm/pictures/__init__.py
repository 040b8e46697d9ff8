"""Pictures of rescaling graphs: ``graphnorm.pictures.draw(graph, "graph.html")``."""

from graphnorm.pictures.output import FORMATS, check_format, draw, save
from graphnorm.pictures.picture import LAYERS, Picture

__all__ = ["FORMATS", "LAYERS", "Picture", "check_format", "draw", "save"]
