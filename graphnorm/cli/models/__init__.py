"""The command line's models and inputs: files, modules by name, shapes, the demo's networks."""
