# ruff: noqa: PTH103, PTH109, PTH110, PTH111, PTH118, PTH120, PTH123, PTH208, PTH211
"""Models that look for the host's files and secrets, or leave something behind."""

from __future__ import annotations

import os
import sys
from importlib.util import find_spec
from pathlib import Path

from models.inside import can_create, can_write, frames, is_allowed
from models.table import Table

TABLE = Table("files and secrets")
model = TABLE.model

_LIBRARY = Path(find_spec("_ctypes").origin)  # type: ignore[union-attr,arg-type]
"""Any library will do: it is copied into the model's folder."""


@model(static="name_refused")
def reads_the_hosts_passwd(p):
    """Read /etc/passwd."""
    return open("/etc/passwd").read()


@model(static="name_refused")
def reads_a_file_of_the_host(p):
    """Read a file of the host that everybody may read."""
    return open(p["secret"]).read()


@model()
def reads_a_file_through_a_link(p):
    """Read a file of the host through a symbolic link of its own."""
    os.symlink(p["secret"], "/tmp/link")
    return open("/tmp/link").read()


@model(static="name_refused", files={"config.json": "/etc/passwd"})
def reads_through_a_link_in_its_package(p):
    """Read /etc/passwd through a link that lies in its folder."""
    return open(p["weights"].replace("model.safetensors", "config.json")).read()


@model()
def links_a_file_of_the_host_into_its_folder(p):
    """Make a hard link to a file of the system."""
    os.link(os.__file__, "/tmp/hard")
    return True


@model()
def lists_the_homes(p):
    """List /root and /home."""
    return bool(os.listdir("/root")) or bool(os.listdir("/home"))


@model()
def walks_up_from_the_first_process(p):
    """List the host's root folder through /proc/1/root."""
    return "home" in os.listdir("/proc/1/root")


@model()
def follows_an_open_descriptor_out(p):
    """Open folders through every descriptor that it inherited."""
    for number in range(256):
        try:
            os.close(os.open("..", os.O_RDONLY | os.O_DIRECTORY, dir_fd=number))
        except OSError:
            continue
        return True
    return False


@model()
def reads_the_parents_environment(p):
    """Find a variable of the parent's environment."""
    return p["variable"] in os.environ


@model(static="name_refused")
def reads_the_environment_of_the_first_process(p):
    """Read /proc/1/environ."""
    return open("/proc/1/environ", "rb").read()


@model(static="name_refused")
def reads_the_command_line_of_the_first_process(p):
    """Read /proc/1/cmdline, which names the host's paths."""
    return open("/proc/1/cmdline", "rb").read()


@model(static="name_refused")
def reads_the_mount_table(p):
    """Read host paths from /proc/self/mountinfo."""
    return open("/proc/self/mountinfo").read()


@model()
def lists_other_processes(p):
    """List the processes below /proc."""
    return [name for name in os.listdir("/proc") if name.isdigit()]


@model()
def opens_the_memory_of_the_first_process(p):
    """Open /proc/1/mem for reading."""
    return os.open("/proc/1/mem", os.O_RDONLY)


@model()
def writes_the_memory_of_the_first_process(p):
    """Open /proc/1/mem for writing."""
    return can_write("/proc/1/mem")


@model()
def looks_for_labels_and_names_of_data_sets(p):
    """Search what the runner was told, its own paths and arguments for the word that marks the host's data."""
    word = p["marker"][::-1]
    places = [str(os.environ), str(sys.argv), str(sys.path), os.getcwd(), p["weights"], __file__]
    for names in frames():
        told = {key: value for key, value in names.get("config", {}).items() if key != "params"}
        places.append(str(told))
    return any(word in place for place in places)


@model()
def counts_the_samples_that_will_come(p):
    """Search what the runner was told for a count, an order, a seed or an id."""
    words = {"count", "total", "samples", "labels", "label", "order", "seed", "dataset", "names", "ids", "round"}
    return any(words & set(names.get("config", {})) for names in frames())


@model()
def finds_more_descriptors_than_it_needs(p):
    """Find a descriptor beyond output, requests, answers and the input among those that it inherited."""
    import fcntl
    import stat

    kinds = []
    for number in range(3, 256):
        try:
            fcntl.fcntl(number, fcntl.F_GETFD)
        except OSError:
            continue
        mode = os.fstat(number).st_mode
        kinds.append((number, stat.S_IFMT(mode)))
    ours = {names["config"][key] for names in frames() if "config" in names for key in ("requests", "answers")}
    size = next(names["config"]["shared_bytes"] for names in frames() if "config" in names)
    return any(
        not (number in ours or stat.S_ISCHR(kind) or (stat.S_ISREG(kind) and os.fstat(number).st_size == size))
        for number, kind in kinds
    )


@model()
def writes_to_the_root_folder(p):
    """Make a file in /."""
    return can_create("/")


@model()
def writes_to_the_system_libraries(p):
    """Make a file in /usr/lib."""
    return can_create("/usr/lib")


@model()
def drops_a_pth_among_the_packages(p):
    """Make a .pth file, which every later Python would run, among the packages."""
    import numpy

    return can_create(os.path.dirname(os.path.dirname(numpy.__file__)))


@model()
def drops_a_sitecustomize_into_the_standard_library(p):
    """Make a sitecustomize.py beside the standard library's modules."""
    return can_create(os.path.dirname(os.__file__))


@model("harmless", asks="next")
def drops_a_usercustomize_into_its_home(p):
    """Leave a usercustomize.py in its home, for the next model's Python to run."""
    folder = os.path.expanduser(f"~/.local/lib/python{sys.version_info[0]}.{sys.version_info[1]}/site-packages")
    if os.path.exists(folder):
        raise LookupError("another session's home is still there")
    os.makedirs(folder)
    return open(folder + "/usercustomize.py", "w").write("import os; os._exit(9)")


@model("harmless", asks="next")
def leaves_a_note_for_the_next_model(p):
    """Leave a note in /tmp and /dev/shm, for its own next session to find."""
    if os.listdir("/tmp") or os.listdir("/dev/shm"):
        raise LookupError("another session's note is still there")
    for folder in ("/tmp", "/dev/shm"):
        with open(folder + "/note", "w") as file:
            file.write("label 1")
    return True


@model()
def writes_to_the_runner(p):
    """Make a file beside the trusted runner."""
    return can_create("/runner/inside")


@model()
def changes_its_own_package(p):
    """Open its own model.py for writing."""
    return can_write(os.path.join(os.path.dirname(p["weights"]), "model.py"))


@model()
def leaves_a_file_in_its_own_package(p):
    """Make a file in its own folder."""
    return can_create(os.path.dirname(p["weights"]))


@model()
def writes_to_the_devices(p):
    """Make a file in /dev."""
    return can_create("/dev")


@model()
def makes_a_device_node(p):
    """Make a node for the first disk."""
    os.mknod("/tmp/disk", 0o600 | 0o060000, os.makedev(8, 0))
    return True


@model()
def writes_kernel_settings(p):
    """Open /proc/sys/kernel/core_pattern for writing."""
    return can_write("/proc/sys/kernel/core_pattern")


@model()
def spares_itself_from_the_oom_killer(p):
    """Open its own oom_score_adj for writing."""
    return can_write("/proc/self/oom_score_adj")


@model()
def locks_a_file_that_the_host_shares(p):
    """Take an exclusive lock on a file that the host and other models have open too."""
    import fcntl

    with open(os.__file__) as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    return True


@model()
def holds_a_record_lock_on_a_shared_file(p):
    """Take a read lock on a file of the host, which would keep the host from writing under a lock."""
    import fcntl

    with open(os.__file__) as file:
        fcntl.lockf(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    return True


@model()
def watches_files_of_the_host(p):
    """Watch a folder that the host changes, by inotify and fanotify."""
    return is_allowed(294, 0) or is_allowed(253) or is_allowed(300, 0, 0)


@model()
def opens_files_by_handle(p):
    """Open a file by its number on the disk, past every path (open_by_handle_at)."""
    return is_allowed(304, -100, 0, 0)


@model("harmless", files={"library.so": _LIBRARY})
def loads_a_library_from_its_folder(p):
    """Load native code that came with its package: it runs under the same restrictions."""
    import ctypes

    return ctypes.CDLL(os.path.join(os.path.dirname(p["weights"]), "library.so")) is not None
