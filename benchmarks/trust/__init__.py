"""What was promised never to happen, tried: see ``docs/trust.md``, which ``python -m benchmarks.trust`` writes."""
