"""Ctrl-C while a library is imported: it waits, and is not taken for the library's failure."""

from __future__ import annotations

import signal
import threading

import pytest
from layerdiff.graph.interrupts import Terminated, terminate, uninterrupted


def press() -> None:
    signal.raise_signal(signal.SIGINT)


def test_it_waits_for_the_end():
    done = []

    def imported():
        with uninterrupted():
            press()
            done.append(True)

    with pytest.raises(KeyboardInterrupt):
        imported()
    assert done
    with pytest.raises(KeyboardInterrupt):
        press()  # Python's own handler is back


def test_an_error_of_the_block_is_told_first():
    with pytest.raises(ValueError, match="of its own"), uninterrupted():
        raise ValueError("of its own")
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_handler_of_the_program_stays_in_force():
    came = []
    before = signal.signal(signal.SIGINT, lambda *_: came.append(True))
    try:
        with uninterrupted():
            press()
            assert came
    finally:
        signal.signal(signal.SIGINT, before)


def test_threads_have_no_handlers_to_change():
    errors = []

    def run():
        try:
            with uninterrupted():
                pass
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert not errors


def test_sigterm_waits_for_the_end_too():
    done = []

    def imported():
        with uninterrupted():
            signal.raise_signal(signal.SIGTERM)
            done.append(True)

    before = signal.signal(signal.SIGTERM, terminate)
    try:
        with pytest.raises(Terminated):
            imported()
    finally:
        signal.signal(signal.SIGTERM, before)
    assert done
