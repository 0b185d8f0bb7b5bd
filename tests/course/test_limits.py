"""Answers that never end are stopped and told, and everything is as before afterwards."""

import contextlib
import gc
import itertools
import signal
import subprocess
import sys
import threading
import time
import weakref

import psutil
import pytest

from gpt2lib.course import Exercise, Misconception, calling, case, limits
from gpt2lib.course.checking import judge
from gpt2lib.course.limits import Counted, Stopped, within

SIGNALS = hasattr(signal, "setitimer")


def plus_one(n, step):
    return step(n)


def exercise(**more):
    return Exercise(
        id="next",
        notebook="99",
        title="The next number",
        signature="my_next(n, step)",
        reference=f"{__name__}:plus_one",
        cases=lambda: [case(1, lambda n: n + 1), case(5, lambda n: n + 1)],
        hints=["-"],
        **more,
    )


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(calling, "seconds", lambda: 0.3)
    monkeypatch.setattr("gpt2lib.course.checking.seconds", lambda: 0.3)


@pytest.fixture(params=["signal", "thread"])
def way(request, monkeypatch):
    """Both ways to stop, whatever this system has."""
    if request.param == "signal" and not SIGNALS:
        pytest.skip("no signal.setitimer here")
    if request.param == "thread":
        monkeypatch.setattr(limits, "_by_signal", limits._by_thread)
    return request.param


def forever():
    i = 0
    while True:
        i = i


def swallows():
    while True:
        with contextlib.suppress(Exception):
            time.sleep(0.01)


def swallows_all():
    for _ in itertools.count():
        with contextlib.suppress(BaseException):
            time.sleep(0.01)
        if time.monotonic() > swallows_all.until:
            return


@pytest.mark.parametrize("endless", [forever, swallows, lambda: [0 for _ in itertools.count()]])
def test_an_endless_loop_is_stopped(endless, way):
    started = time.monotonic()
    with pytest.raises(Stopped, match=r"it did not end within 0\.3 seconds"):
        within(0.3, endless)
    assert time.monotonic() - started < 20


def test_a_bare_except_gets_it_again(way, monkeypatch):
    monkeypatch.setattr(limits, "AGAIN", 0.05)
    swallows_all.until = time.monotonic() + 1
    with contextlib.suppress(Stopped):  # if it came outside of the block
        within(0.2, swallows_all)
    with pytest.raises(Stopped):
        within(0.2, forever)


def test_what_ends_is_untouched(way):
    assert within(5, lambda: 3) == 3
    with pytest.raises(KeyError):
        within(5, lambda: {}[1])
    with pytest.raises(KeyboardInterrupt):
        within(5, raise_interrupt)
    time.sleep(0.15)  # nothing comes late


def raise_interrupt():
    raise KeyboardInterrupt


def test_a_list_that_grows_is_stopped(way):
    def grow():
        kept = []
        while True:
            kept.append(bytearray(1 << 20))

    before = psutil.Process().memory_info().rss
    with pytest.raises(Stopped, match=r"it took more than 0\.2 GB of memory"):
        within(60, grow, memory=200 << 20)
    gc.collect()
    assert psutil.Process().memory_info().rss < before + (150 << 20)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="RLIMIT_DATA counts on Linux only")
def test_a_giant_is_refused_and_small_ones_are_not_afterwards():
    import torch

    for giant in (lambda: [0] * 10**10, lambda: torch.ones(10**10), lambda: bytearray(80 << 30)):
        with pytest.raises(Stopped, match="it asked for more memory than there is"):
            within(30, giant, memory=1 << 28)
    assert len(bytearray(2 << 30)) == 2 << 30


def test_it_works_in_a_thread():
    said = []

    def work():
        try:
            within(0.2, forever)
        except Stopped as stopped:
            said.append(str(stopped))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join(20)
    assert said == ["it did not end within 0.2 seconds"]


def test_calls_are_nested(way):
    def outer():
        with pytest.raises(Stopped, match=r"0\.1 seconds"):
            within(0.1, forever)
        forever()

    with pytest.raises(Stopped, match=r"0\.6 seconds"):
        within(0.6, outer)


@pytest.mark.skipif(not SIGNALS, reason="no signal.setitimer here")
def test_handlers_and_timers_are_as_before():
    rang = []
    before = signal.signal(signal.SIGALRM, lambda *_: rang.append(time.monotonic()))
    handler = signal.getsignal(signal.SIGALRM)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.4)
        started = time.monotonic()
        with pytest.raises(Stopped):
            within(0.2, forever)
        assert signal.getsignal(signal.SIGALRM) is handler
        assert not rang
        while not rang and time.monotonic() < started + 10:
            time.sleep(0.01)
        assert rang[0] - started >= 0.35, "somebody's alarm is neither lost nor early"
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        within(10, lambda: time.sleep(0.3))  # overdue when it ends
        while len(rang) < 2 and time.monotonic() < started + 20:
            time.sleep(0.01)
        assert len(rang) == 2
        assert signal.getitimer(signal.ITIMER_REAL) == (0, 0)
    finally:
        signal.signal(signal.SIGALRM, before)


@pytest.mark.skipif(not SIGNALS, reason="signals of POSIX")
def test_an_interrupt_from_the_keyboard_works():
    code = (
        "import signal\nfrom gpt2lib.course.limits import within\n"
        # a shell starts what stands before an & with interrupts ignored
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "def f():\n  print('on', flush=True)\n  while True: pass\n"
        "try: within(60, f)\nexcept KeyboardInterrupt: print('off', flush=True)"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout.readline() == "on\n"
        child.send_signal(signal.SIGINT)
        assert child.stdout.readline() == "off\n"


def test_nobody_is_hurried_in_a_debugger():
    space = {"__name__": "bdb", "time": time}
    exec("def stand():\n    time.sleep(0.4)\n    return 3", space)
    assert within(0.1, space["stand"]) == 3


def test_an_endless_answer_is_one_line(quick):
    def my_next(n, step):
        while step(n):
            time.sleep(0.01)

    result = judge(exercise(), my_next)
    assert result.status == "error"
    assert result.diagnosis.startswith("it did not end within 0.3 seconds, in line ")
    assert result.diagnosis.endswith("(called with n=1, step=a function)")
    assert "\n" not in str(result)
    assert result.use(1, lambda n: n + 1) == 2


def test_what_a_stopped_answer_held_is_freed(quick):
    class Big:
        pass

    held = []

    def my_next(n, step):
        big = Big()
        held.append(weakref.ref(big))
        while True:
            pass

    result = judge(exercise(), my_next)
    gc.collect()
    assert result.status == "error"
    assert held[0]() is None
    assert len(held) == 1, "the other cases are not tried"


def test_endless_calls_of_what_is_handed_in_are_counted():
    def my_next(n, step):
        while n != 0:  # never
            n = step(n)

    result = judge(exercise(), my_next)
    assert result.status == "error"
    assert result.diagnosis.startswith("it called step 10,000 times and did not end, in line ")


def test_a_counted_function_looks_like_itself():
    class Table:
        numbers = (1, 0)

        def __call__(self, i):
            return self.numbers[i]

        def __repr__(self):
            return "the table (1, 0)"

    counted = Counted(Table(), "permute", most=2)
    assert (counted(0), counted.numbers, repr(counted)) == (1, (1, 0), "the table (1, 0)")
    counted(1)
    with pytest.raises(Stopped, match="it called permute 2 times"):
        counted(0)


def test_an_answer_that_never_ends_on_other_inputs(quick):
    def my_next(n, step):
        while n > 5:
            pass
        return step(n)

    more = Misconception("any", "never said", test=lambda f: f(6, lambda n: n) != 6)
    result = judge(exercise(misconceptions=[more]), my_next)
    assert result.status == "error"
    assert "did not end within 0.3 seconds" in result.diagnosis
    assert "more arguments than those of the cases" in result.diagnosis


def test_slow_machines_are_given_more_than_tests(monkeypatch):
    monkeypatch.setenv("GPT2LIB_FAST", "1")
    fast = calling.seconds()
    monkeypatch.setenv("GPT2LIB_FAST", "0")
    assert calling.seconds() > fast >= 10
