"""What localizing costs in memory and time as models and data grow."""
