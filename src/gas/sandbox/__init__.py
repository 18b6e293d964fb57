"""Run a stranger's model without being harmed by it.

The static checks of ``gas.submissions`` are a filter and a help for honest authors; this package is the
boundary. A model runs in a process tree of its own; samples reach it through memory that it can only read, one
batch at a time, and only logits come back, in frames of a size that the parent knows beforehand.

What it covers (tiers ``NAMESPACES`` and above; each point has a hostile model among the tests)
    * Files: the model sees the system's libraries, the interpreter, its packages and its own package, all
      read-only and without locks, and an empty ``/tmp`` and ``/dev/shm`` of limited size and number of files. No
      home, no ``/etc/passwd``, nothing of this project.
    * Network: none, not even the host's loopback; no socket of any family can be made.
    * Processes: no program can be started, no process made; others can be neither seen, traced nor signalled.
      Everything dies with the session, and with the parent, even when the parent is killed.
    * Kernel: an unprivileged user of its own, no capabilities, no new privileges, a list of allowed system
      calls (default: refused), Landlock. A crash leaves no dump, not even for a program of the host that collects them.
      No call remains that was made for asking which pages of shared files are in memory, or for dropping them.
    * Resources: memory, processor time, threads, file size and open files are limited; the parent keeps a
      wall clock for loading and for each batch. In a control group (the tiers that end in ``_CGROUP``) the limit of
      memory holds for the whole tree together with its files and what the kernel keeps for it, and so does that of
      processes and threads; else each process's address space is limited, and its files beside it.
    * Protocol: early, late, surplus, oversized and forged answers end the session as the model's failure;
      nothing is ever unpickled. What it prints is bounded and made printable.
    * Secrets: the environment is empty; labels, names, ids and counts never enter.

What it does not cover
    * Bugs of the kernel, and side channels of the processor (timing, caches): use a virtual machine of its own
      for the workers where that matters. Two models that run at the same time on one machine can signal to each other
      by load, and through locks in the memory of libraries that both read.
    * What a model remembers between batches of one session, the number and sizes of batches, the clock, the
      kind of processor and the kernel's release: it can know these.
    * A moment's flood of empty files in ``/tmp`` under bubblewrap: their number is looked at a few times a second; the
      kernel limits only their size, and in a control group the memory that they take. Without bubblewrap their
      number is limited by the kernel.
    * Libraries in the model's own package can be loaded; they run under the same restrictions.
    * Graphics cards, where a run asks for one (:mod:`gas.sandbox.gpu`): the driver's interface is a large surface, and
      memory on the card is not limited. Otherwise no device node is handed in.
    * Tier ``PLAIN`` covers crashes, hangs and memory, not malice: it is for one's own model.

Public names are re-exported here; :mod:`gas.sandbox.base` holds the seam.
"""

from __future__ import annotations

from gas.sandbox.base import Environment, Limits, ModelSession, ModelSpec, Sandbox, Tier
from gas.sandbox.bubblewrap import BubblewrapSandbox
from gas.sandbox.namespaces import NamespaceSandbox
from gas.sandbox.plain import PlainSandbox
from gas.sandbox.probe import Probe, best_sandbox, probe
from gas.sandbox.spares import Spares

__all__ = [
    "BubblewrapSandbox",
    "Environment",
    "Limits",
    "ModelSession",
    "ModelSpec",
    "NamespaceSandbox",
    "PlainSandbox",
    "Probe",
    "Sandbox",
    "Spares",
    "Tier",
    "best_sandbox",
    "probe",
]
