"""A stand-in for Ray: tasks are run by whoever waits for them, the last first, and some of them die."""

from __future__ import annotations

import pickle
import sys
import types


class Crashed(Exception):
    """Ray's WorkerCrashedError."""


def install(monkeypatch, **there):
    """Installs it in place of Ray.

    Args:
        monkeypatch: pytest's.
        there: What the cluster has; 3 CPUs if nothing is given.

    Returns:
        The module, with ``deaths``: numbers of the tasks, from 1, that cost their worker; ``started``: the resources
        that each was started with; ``at_once``: how many were not done each time that somebody waited; ``stopped``: how
        often the cluster was left.
    """
    module = types.ModuleType("ray")
    module.deaths, module.started, module.there, module.stopped = [], [], there or {"CPU": 3.0}, 0
    calls = {}
    exceptions = types.SimpleNamespace(WorkerCrashedError=Crashed, NodeDiedError=Crashed, OutOfMemoryError=Crashed)

    def remote(**asked):
        def made(function):
            def start(*arguments):
                module.started.append(asked)
                calls[len(module.started)] = function, arguments
                return len(module.started)

            return types.SimpleNamespace(remote=start)

        return made

    def get(task):
        if isinstance(task, bytes):  # a value in the object store
            return pickle.loads(task)
        if task in module.deaths:
            raise Crashed("The worker died unexpectedly.")
        function, arguments = calls[task]
        return function(*arguments)

    def init(**options):
        module.up = True

    def shutdown():
        module.stopped, module.up = module.stopped + 1, False

    def wait(tasks, num_returns):
        module.at_once.append(len(tasks))
        return tasks[-1:], tasks[:-1]

    module.remote, module.get, module.exceptions, module.shutdown = remote, get, exceptions, shutdown
    module.put, module.cluster_resources = pickle.dumps, lambda: module.there
    module.wait, module.at_once, module.init, module.up = wait, [], init, False
    module.cancel, module.is_initialized = lambda task, force: None, lambda: module.up
    monkeypatch.setitem(sys.modules, "ray", module)
    return module
