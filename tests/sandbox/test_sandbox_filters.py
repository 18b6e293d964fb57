"""The seccomp filters, run by a small interpreter of classic BPF."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gas.sandbox.inside.bpf import ALLOW, KILL, Check, Rule, assemble, errno_action
from gas.sandbox.inside.filters import first_filter, second_filter

X86_64, I386 = 0xC000003E, 0x40000003
EPERM, ENOSYS, ENOTTY = errno_action(1), errno_action(38), errno_action(25)
WORDS = st.integers(0, 2**64 - 1)
REFUSED = [
    27, 41, 42, 53, 57, 58, 59, 62, 73, 101, 105, 117, 125, 126, 129, 165, 272, 275, 278, 298, 308, 310, 311, 317, 319,
    321, 322, 323, 327,
]  # fmt: skip


def interpret(program, nr, args=(), arch=X86_64):
    """What the kernel would answer."""
    padded = (*args, 0, 0, 0, 0, 0, 0)[:6]
    data = struct.pack("=IIQ6Q", nr, arch, 0, *padded)
    code = list(struct.iter_unpack("=HBBI", program))
    position = accumulator = 0
    while True:
        operation, if_true, if_false, k = code[position]
        position += 1
        if operation == 0x20:
            accumulator = struct.unpack_from("=I", data, k)[0]
        elif operation == 0x54:
            accumulator &= k
        elif operation == 0x15:
            position += if_true if accumulator == k else if_false
        elif operation == 0x35:
            position += if_true if accumulator >= k else if_false
        else:
            assert operation == 0x06
            return k


@given(st.integers(0, 2**32 - 1), st.lists(WORDS, min_size=6, max_size=6))
def test_calls_of_another_architecture_kill(nr, args):
    for program in (first_filter(), second_filter(2)):
        assert interpret(program, nr, args, I386) == KILL


@given(st.integers(0x40000000, 2**32 - 1), st.lists(WORDS, min_size=6, max_size=6))
def test_x32_calls_do_not_exist(nr, args):
    for program in (first_filter(), second_filter(2)):
        assert interpret(program, nr, args) == ENOSYS


@given(st.integers(0, 1000), st.lists(WORDS, min_size=6, max_size=6))
def test_the_second_filter_allows_nothing_that_the_first_refuses(nr, args):
    if interpret(second_filter(2), nr, args) == ALLOW:
        assert interpret(first_filter(), nr, args) == ALLOW


@pytest.mark.parametrize("nr", REFUSED)
def test_sockets_processes_programs_identity_and_old_holes_are_refused(nr):
    assert interpret(second_filter(2), nr) == EPERM


@pytest.mark.parametrize("nr", [425, 426, 434, 435, 437, 444, 446, 450, 999])
def test_calls_newer_than_the_list_do_not_exist(nr):
    assert interpret(second_filter(2), nr) == ENOSYS


@given(WORDS)
def test_a_thread_is_the_only_thing_that_clone_makes(flags):
    thread, spaces = 0x10000, 0x7E020080
    allowed = bool(flags & thread) and not flags & spaces
    assert (interpret(second_filter(2), 56, (flags,)) == ALLOW) is allowed


@given(st.integers(0, 2**31 - 1))
def test_a_model_signals_its_own_threads_only(pid):
    assert (interpret(second_filter(7), 234, (pid, pid, 9)) == ALLOW) is (pid == 7)


def test_terminal_tricks_answer_that_there_is_no_terminal():
    assert interpret(second_filter(2), 16, (0, 0x5412)) == ENOTTY
    assert interpret(second_filter(2), 16, (0, 0x5401)) == ALLOW


@pytest.mark.parametrize(
    ("nr", "argument", "harmless", "harmful"),
    [(9, 3, [0x22, 0x1], [0x40022]), (28, 2, [0, 4, 8, 14], [9, 12, 20, 21, 25, 100, 101]), (221, 3, [1, 2, 3], [4])],
    ids=["huge pages", "advice on memory", "advice on files"],
)
def test_memory_that_others_share_is_not_taken_watched_or_dropped(nr, argument, harmless, harmful):
    for value in (*harmless, *harmful):
        args = (*[0] * argument, value)
        assert interpret(second_filter(2), nr, args) == (ALLOW if value in harmless else EPERM)


def test_a_call_that_was_interrupted_by_a_stop_goes_on():
    assert interpret(second_filter(2), 219) == ALLOW


@given(
    st.lists(
        st.tuples(st.integers(0, 5), st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1)), min_size=1, max_size=4
    ),
    st.lists(WORDS, min_size=6, max_size=6),
)
def test_alternatives_mean_what_they_say(checks, args):
    rule = Rule(10, tuple((Check(i, v & m, m), Check(0, 5, 7)) for i, v, m in checks), otherwise=ENOTTY)
    program = assemble((rule, Rule(11)), default=EPERM, unknown_from=424, unknown=ENOSYS)
    expected = any((args[i] & m & 0xFFFFFFFF) == v & m and args[0] & 7 == 5 for i, v, m in checks)
    assert interpret(program, 10, args) == (ALLOW if expected else ENOTTY)
    assert interpret(program, 11, args) == ALLOW
    assert interpret(program, 12, args) == EPERM


def test_a_rule_too_long_for_a_jump_is_refused():
    rule = Rule(1, tuple((Check(0, value),) for value in range(100)))
    with pytest.raises(ValueError, match="too long"):
        assemble((rule,), default=EPERM, unknown_from=424, unknown=ENOSYS)
