"""A small assembler for seccomp filters (classic BPF), enough for a list of system calls and their arguments.

Every compared argument of the lists is a C ``int`` or ``unsigned int``: the upper half of its register is not
defined by the calling convention and is ignored by the kernel, so only the lower 32 bits are looked at.
Layout of ``struct seccomp_data``: ``int nr; u32 arch; u64 instruction_pointer; u64 args[6]``.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

__all__ = ["ALLOW", "KILL", "Check", "Rule", "assemble", "errno_action"]

ALLOW = 0x7FFF0000
KILL = 0x80000000
_ERRNO = 0x00050000

_LOAD_WORD = 0x20
_JUMP_EQUAL = 0x15
_JUMP_GREATER_EQUAL = 0x35
_AND = 0x54
_RETURN = 0x06

_OFFSET_NR = 0
_OFFSET_ARCH = 4
_OFFSET_ARGS = 16

_ARCH_X86_64 = 0xC000003E
_X32_BIT = 0x40000000
_MAX_INSTRUCTIONS = 4096
_MAX_JUMP = 255


def errno_action(number: int) -> int:
    """The action that makes a call fail with an errno."""
    return _ERRNO | (number & 0xFFFF)


@dataclass(frozen=True, slots=True)
class Check:
    """One condition on an argument: ``(lower 32 bits & mask) == value``."""

    index: int
    value: int
    mask: int = 0xFFFFFFFF


@dataclass(frozen=True, slots=True)
class Rule:
    """What happens to one system call.

    Attributes:
        nr: Number of the call.
        any_of: Alternatives, each a conjunction of checks; empty: no conditions.
        action: When there are no conditions, or an alternative holds.
        otherwise: When no alternative holds.
    """

    nr: int
    any_of: tuple[tuple[Check, ...], ...] = ()
    action: int = ALLOW
    otherwise: int = _ERRNO | 1


_Instruction = tuple[int, int, int, int]


def _block(rule: Rule) -> list[_Instruction]:
    """Instructions for one call; entered with the call's number loaded, left only by a return."""
    if not rule.any_of:
        body: list[_Instruction] = [(_RETURN, 0, 0, rule.action)]
    else:
        body = []
        for alternative in rule.any_of:
            size = 1 + sum(2 + (check.mask != 0xFFFFFFFF) for check in alternative)
            part: list[_Instruction] = []
            for check in alternative:
                part.append((_LOAD_WORD, 0, 0, _OFFSET_ARGS + 8 * check.index))
                if check.mask != 0xFFFFFFFF:
                    part.append((_AND, 0, 0, check.mask))
                part.append((_JUMP_EQUAL, 0, size - len(part) - 1, check.value))
            part.append((_RETURN, 0, 0, rule.action))
            body += part
        body.append((_RETURN, 0, 0, rule.otherwise))
    if len(body) > _MAX_JUMP:
        raise ValueError(f"The rule for system call {rule.nr} is too long for one jump.")
    return [(_JUMP_EQUAL, 0, len(body), rule.nr), *body]


def assemble(rules: tuple[Rule, ...], *, default: int, unknown_from: int, unknown: int) -> bytes:
    """Build a filter for x86-64.

    Calls of another architecture (``int 0x80``) kill the process; x32 calls get ``unknown``.

    Args:
        rules: First match wins.
        default: Action for calls that no rule names.
        unknown_from: Numbers from here on that no rule names are newer than the list.
        unknown: Action for those, normally ENOSYS, so that libraries fall back to older calls.

    Returns:
        An array of ``struct sock_filter`` in native byte order, as ``seccomp(2)`` and bubblewrap want it.

    Raises:
        ValueError: The filter is larger than the kernel takes.
    """
    program: list[_Instruction] = [
        (_LOAD_WORD, 0, 0, _OFFSET_ARCH),
        (_JUMP_EQUAL, 1, 0, _ARCH_X86_64),
        (_RETURN, 0, 0, KILL),
        (_LOAD_WORD, 0, 0, _OFFSET_NR),
        (_JUMP_GREATER_EQUAL, 0, 1, _X32_BIT),
        (_RETURN, 0, 0, unknown),
    ]
    for rule in rules:
        program += _block(rule)
    program += [
        (_JUMP_GREATER_EQUAL, 0, 1, unknown_from),
        (_RETURN, 0, 0, unknown),
        (_RETURN, 0, 0, default),
    ]
    if len(program) > _MAX_INSTRUCTIONS:
        raise ValueError("The filter has too many instructions.")
    return b"".join(struct.pack("=HBBI", *instruction) for instruction in program)
