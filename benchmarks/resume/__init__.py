"""What keeping results costs, and what it saves: ``python -m benchmarks.resume`` writes a section of docs/resume.md."""
