# ruff: noqa: PTH108, PTH118, PTH120, PTH123, PTH208, PTH211, BLE001, SIM110
"""A model.py that tries to get out in every way that leaves the machine whole if it should succeed.

Logit i of its answer says how attack i ended: 0 refused, 1 got through, 2 the attack itself is broken.
"""

import ctypes
import errno
import mmap
import os
import resource
import signal
import socket
import subprocess
import sys
import threading

_LIBC = ctypes.CDLL(None, use_errno=True)
_LIBC.syscall.restype = ctypes.c_long


def _call(number, *args):
    """A raw system call; raises like the functions of os."""
    result = _LIBC.syscall(ctypes.c_long(number), *[ctypes.c_long(a) if isinstance(a, int) else a for a in args])
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return True


def _is_allowed(number, *args):
    """For calls that would fail anyway with these arguments: whether permission was what they lacked."""
    try:
        return _call(number, *args)
    except OSError as error:
        return error.errno not in {errno.EPERM, errno.ENOSYS}


def _can_write(path):
    os.close(os.open(path, os.O_WRONLY))
    return True


def _can_create(folder):
    path = f"{folder}/escaped"
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT, 0o644))
    os.unlink(path)
    return True


def reads_the_hosts_passwd(p):
    return open("/etc/passwd").read()


def reads_a_readable_file_of_the_host(p):
    return open(p["secret"]).read()


def reads_a_file_through_a_link(p):
    os.symlink(p["secret"], "/tmp/link")
    return open("/tmp/link").read()


def lists_the_hosts_homes(p):
    return bool(os.listdir("/root")) or bool(os.listdir("/home"))


def lists_root_by_descriptor_walk(p):
    return "home" in os.listdir("/proc/1/root")


def sees_the_parents_environment(p):
    return p["variable"] in os.environ


def reads_the_environment_of_the_first_process(p):
    return open("/proc/1/environ", "rb").read()


def sees_host_paths_in_the_mount_table(p):
    return open("/proc/self/mountinfo").read()


def sees_other_processes(p):
    return [name for name in os.listdir("/proc") if name.isdigit()]


def connects_to_the_hosts_loopback(p):
    with socket.create_connection(("127.0.0.1", p["port"]), timeout=1):
        return True


def makes_a_udp_socket(p):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM):
        return True


def makes_an_ipv6_socket(p):
    with socket.socket(socket.AF_INET6):
        return True


def makes_a_unix_socket(p):
    with socket.socket(socket.AF_UNIX):
        return True


def makes_a_netlink_socket(p):
    with socket.socket(16, socket.SOCK_RAW):
        return True


def makes_a_vsock_socket(p):
    with socket.socket(40):
        return True


def makes_a_pair_of_sockets(p):
    for end in socket.socketpair():
        end.close()
    return True


def resolves_a_name(p):
    return socket.getaddrinfo("example.com", 80)


def forks(p):
    if os.fork() == 0:
        os._exit(0)
    return True


def leaves_a_daemon(p):
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            signal.pause()
        os._exit(0)
    return True


def forks_by_number(p):
    return _call(57)


def clones_with_a_new_name_space(p):
    return _call(56, 0x10000000 | signal.SIGCHLD, 0, 0, 0, 0)


def clones_by_clone3(p):
    return _is_allowed(435, 0, 0)


def starts_a_shell(p):
    return subprocess.run(["/bin/sh", "-c", "true"], check=False).returncode == 0


def starts_the_interpreter(p):
    os.execv(sys.executable, [sys.executable, "-c", "pass"])
    return True


def makes_an_anonymous_program(p):
    return os.memfd_create("x")


def writes_to_the_root_folder(p):
    return _can_create("/")


def writes_to_the_system_libraries(p):
    return _can_create("/usr/lib")


def writes_to_the_packages(p):
    import numpy

    return _can_create(os.path.dirname(numpy.__file__))


def writes_to_the_runner(p):
    return _can_create("/runner/inside")


def writes_to_its_own_package(p):
    return _can_write(os.path.join(os.path.dirname(p["weights"]), "model.py"))


def writes_next_to_its_own_package(p):
    return _can_create(os.path.dirname(p["weights"]))


def writes_to_the_devices(p):
    return _can_create("/dev")


def writes_kernel_settings(p):
    return _can_write("/proc/sys/kernel/core_pattern")


def writes_its_own_oom_score(p):
    return _can_write("/proc/self/oom_score_adj")


def makes_a_device_node(p):
    os.mknod("/tmp/disk", 0o600 | 0o060000, os.makedev(8, 0))
    return True


def reads_memory_of_the_first_process(p):
    return os.open("/proc/1/mem", os.O_RDONLY)


def writes_memory_of_the_first_process(p):
    return _can_write("/proc/1/mem")


def traces_the_first_process(p):
    return _call(101, 16, 1, 0, 0)


def asks_to_be_traced(p):
    return _call(101, 0, 0, 0, 0)


def reads_another_process_directly(p):
    return _is_allowed(310, 1, 0, 0, 0, 0, 0)


def takes_a_handle_of_another_process(p):
    return _call(434, 1, 0)


def signals_the_first_process(p):
    os.kill(1, 0)
    return True


def signals_its_parent(p):
    os.kill(os.getppid(), 0)
    return True


def signals_everybody(p):
    os.kill(-1, 0)
    return True


def signals_the_hosts_process(p):
    os.kill(p["host_pid"], 0)
    return True


def signals_a_thread_of_the_first_process(p):
    return _call(234, 1, 1, 0)


def becomes_root(p):
    os.setresuid(0, 0, 0)
    return os.geteuid() == 0


def is_root(p):
    return os.geteuid() == 0


def takes_a_group(p):
    os.setgroups([0])
    return True


def unshares_name_spaces(p):
    return _is_allowed(272, 0x10000000) or _is_allowed(272, 0x40000000) or _is_allowed(272, 0x00020000)


def joins_a_name_space(p):
    return _is_allowed(308, 0, 0)


def mounts(p):
    return _is_allowed(165, b"none", b"/tmp", b"tmpfs", 0, 0) or _is_allowed(428, 0, 0, 0)


def changes_the_root(p):
    os.chroot("/tmp")
    return True


def uses_privileged_calls(p):
    """pivot_root, umount2, reboot, init_module, delete_module, kexec_load, swapon, settimeofday, acct, iopl."""
    numbers = (155, 166, 169, 175, 176, 246, 167, 164, 163, 172)
    return [number for number in numbers if _is_allowed(number, 0, 0, 0, 0, 0)]


def uses_calls_with_a_history_of_holes(p):
    """add_key, keyctl, userfaultfd, bpf, perf_event_open, io_uring_setup, personality, shmget, msgget, mbind."""
    numbers = (248, 250, 323, 321, 298, 425, 135, 29, 68, 237)
    return [number for number in numbers if _is_allowed(number, 0, 0, 0, 0, 0)]


def uses_x32_calls(p):
    return _is_allowed(0x40000000 | 39)


def types_on_the_terminal(p):
    return _LIBC.ioctl(2, 0x5412, b"x") == 0


def takes_off_the_death_signal(p):
    return _call(157, 1, 0, 0, 0, 0)


def becomes_traceable(p):
    return _call(157, 4, 1, 0, 0, 0)


def raises_its_limits(p):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard + 1))
    except ValueError:  # what Python makes of EPERM here
        return False
    return True


def changes_the_limits_of_the_first_process(p):
    return _is_allowed(302, 1, 7, 0, 0)


def opens_too_many_files(p):
    opened = []
    try:
        while len(opened) <= p["open_files"]:
            opened.append(os.open("/dev/null", os.O_RDONLY))
    finally:
        for descriptor in opened:
            os.close(descriptor)
    return True


def starts_too_many_threads(p):
    stop = threading.Event()
    started = []
    try:
        while len(started) <= p["processes"]:
            thread = threading.Thread(target=stop.wait, daemon=True)
            thread.start()
            started.append(thread)
    finally:
        stop.set()
        for thread in started:
            thread.join()
    return True


def _fill(folder, limit):
    written = 0
    names = []
    try:
        while written <= limit:
            names.append(f"{folder}/fill{len(names)}")
            with open(names[-1], "wb", buffering=0) as file:
                written += file.write(bytes(1 << 20))
    finally:
        for name in names:
            os.unlink(name)
    return True


def fills_tmp(p):
    return _fill("/tmp", p["tmp_bytes"])


def fills_shared_memory(p):
    return _fill("/dev/shm", p["tmp_bytes"])


def writes_a_huge_file(p):
    with open("/tmp/huge", "wb", buffering=0) as file:
        try:
            return file.truncate(1 << 40)
        finally:
            os.unlink("/tmp/huge")


def takes_more_memory_than_allowed(p):
    return len(bytearray(p["memory_bytes"]))


def _shared_address():
    import numpy

    for frame in list(sys._current_frames().values()):
        while frame is not None:
            for value in frame.f_locals.values():
                if isinstance(value, mmap.mmap):
                    return numpy.frombuffer(value, dtype=numpy.uint8).ctypes.data, len(value)
            frame = frame.f_back
    raise LookupError("The runner's memory was not found.")


def makes_the_input_writable(p):
    address, size = _shared_address()
    return _call(10, address & ~4095, (size + 4095) & ~4095, 3)


def reopens_the_input_for_writing(p):
    for name in os.listdir("/proc/self/map_files"):
        if _can_write(f"/proc/self/map_files/{name}"):
            return True
    return False


def floods_its_output(p):
    for _ in range(64):
        os.write(1, b"\x1b[31mflood\a" * 100_000)
        os.write(2, b"\xff\x00" * 100_000)
    return False


ATTACKS = [
    value for name, value in list(globals().items()) if callable(value) and not name.startswith("_")
    and getattr(value, "__module__", None) == __name__
]  # fmt: skip


def _outcome(attack, params):
    try:
        return 1.0 if attack(params) else 0.0
    except (OSError, MemoryError):
        return 0.0
    except RuntimeError as error:
        return 0.0 if "can't start new thread" in str(error) else 2.0
    except Exception as error:
        print(f"{attack.__name__}: {error!r}", file=sys.stderr)
        return 2.0


def load_model(weights_path, num_classes=2, only=None, **params):
    import torch

    params["weights"] = weights_path
    outcomes = [_outcome(a, params) for a in ATTACKS if only is None or a.__name__ in only]

    class Answer(torch.nn.Module):
        def forward(self, batch):
            return torch.tensor([outcomes] * len(batch))

    return Answer()
