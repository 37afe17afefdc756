"""What several tests share: networks, edits, runners, data."""
