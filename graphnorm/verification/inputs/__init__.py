"""Inputs on which models are run: what is allowed, what is drawn, which rows are reached."""
