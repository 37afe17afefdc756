"""Both sides cut alike and opened piece by piece."""
