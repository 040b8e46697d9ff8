"""Training runs behind the figures of docs/training.md and docs/equinorm.md."""
