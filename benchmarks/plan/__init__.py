"""Precision plans, measured: what they cost beside the cheapest there is, and what other tools keep."""
