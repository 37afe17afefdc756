"""CUDA's runtime, in host memory."""

from __future__ import annotations

import ctypes


class FakeCuda:
    """CUDA's runtime with host memory in place of the device's; knows what was not given back."""

    def __init__(self):
        self.device, self.host, self.streams, self.events = {}, {}, set(), {}
        self.mallocs = 0
        self._clock = 0.0
        self._next = 1

    def _allocate(self, table, size):
        buffer = ctypes.create_string_buffer(max(size, 1))
        table[ctypes.addressof(buffer)] = buffer
        return ctypes.addressof(buffer)

    def malloc(self, size):
        self.mallocs += 1
        return self._allocate(self.device, size)

    def free(self, address):
        del self.device[address]

    def malloc_host(self, size):
        return self._allocate(self.host, size)

    def free_host(self, address):
        del self.host[address]

    def copy(self, to, source, size, kind, stream):
        ctypes.memmove(to, source, size)

    def stream(self):
        self._next += 1
        self.streams.add(self._next)
        return self._next

    def synchronize(self, stream):
        assert stream == 0 or stream in self.streams

    def destroy_stream(self, stream):
        self.streams.remove(stream)

    def event(self):
        self._next += 1
        self.events[self._next] = None
        return self._next

    def record(self, event, stream):
        self._clock += 1.0
        self.events[event] = self._clock

    def elapsed(self, start, end):
        return self.events[end] - self.events[start]

    def destroy_event(self, event):
        del self.events[event]

    @property
    def held(self):
        """Allocations, streams and events that are alive."""
        return len(self.device) + len(self.host) + len(self.streams) + len(self.events)
