"""Signals: which ones save, what a second one does, and what nohup asks for."""

import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from pic_tf.callbacks.stop_and_save import CheckpointCallback, Interrupted

DEMANDS = [signal.SIGINT, signal.SIGTERM]
WARNINGS = [signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2]


class Saved:
    """Checkpoints that count."""

    count = 0

    def save(self, texts) -> None:
        self.count += 1


@pytest.fixture
def state():
    """A callback in the middle of an epoch, of a process that hears SIGHUP."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)  # these tests may run under nohup
    yield of_an_epoch()
    signal.signal(signal.SIGHUP, before)


def of_an_epoch():
    callback = CheckpointCallback(Saved(), every=1, texts=dict, metrics=[], check=lambda: None)
    callback.set_params({"steps": 9})
    return callback


def send(number):
    os.kill(os.getpid(), number)
    time.sleep(0.01)  # Python runs handlers between two of its instructions


@pytest.mark.parametrize("number", DEMANDS + WARNINGS)
def test_a_signal_saves_after_the_running_step(state, number, capfd):
    with state:
        state.on_train_batch_end(0)
        send(number)
        with pytest.raises(Interrupted):
            state.on_train_batch_end(1)
    assert state._checkpoints.count == 1
    assert "stopping after this step" in capfd.readouterr().err


@pytest.mark.parametrize("first", DEMANDS)
def test_a_second_demand_ends_at_once(state, first):
    with state:
        send(first)
        assert all(signal.getsignal(number) == signal.SIG_DFL for number in DEMANDS)
        assert all(callable(signal.getsignal(number)) for number in WARNINGS)


def test_warnings_that_come_again_and_a_demand_behind_them_still_save(state):
    """A batch system warns, perhaps more than once, and asks a while later."""
    with state:
        for number in [*WARNINGS, *WARNINGS, signal.SIGTERM]:
            send(number)
        with pytest.raises(Interrupted):
            state.on_train_batch_end(1)


def test_another_thread_than_the_main_one_trains_without_signals(state):
    def epoch() -> int:
        with state:
            state.on_epoch_end(0)
        return state._checkpoints.count

    before = signal.getsignal(signal.SIGTERM)
    with ThreadPoolExecutor(1) as threads:
        assert threads.submit(epoch).result() == 1
    assert signal.getsignal(signal.SIGTERM) is before


def test_nohup_is_heard_and_handlers_are_put_back(state):
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        handlers = [signal.getsignal(number) for number in DEMANDS + WARNINGS]
        with state:
            assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
            send(signal.SIGHUP)
            state.on_train_batch_end(1)
        assert [signal.getsignal(number) for number in DEMANDS + WARNINGS] == handlers
    finally:
        signal.signal(signal.SIGHUP, before)
