"""Graphs rewritten so that they round as a target does, or show how far rounding may move them."""
