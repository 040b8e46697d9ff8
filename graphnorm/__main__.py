"""``python -m graphnorm``."""

from graphnorm.cli import main

main()
