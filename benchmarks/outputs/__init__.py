"""What comparing outputs costs beside two bare sessions: ``python -m benchmarks.outputs``."""
