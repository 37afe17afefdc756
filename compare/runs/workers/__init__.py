"""Sessions in processes of their own: what takes its process with it does not take the report.

`isolation` says whose, `worker` is the near end, `child` the far one, and `arena` the memory between them.
"""
