"""
A small program that does what no shell can: system calls of any sort, one after the other.

It is made by gcc when tests are run, for whatever machine that is.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

CALLS = [
    "accept4",
    "acct",
    "add_key",
    "adjtimex",
    "bind",
    "bpf",
    "chmod",
    "chroot",
    "clock_adjtime",
    "clock_settime",
    "clone",
    "clone3",
    "close",
    "connect",
    "create_module",
    "delete_module",
    "dup",
    "dup2",
    "exit",
    "fallocate",
    "fanotify_init",
    "fchdir",
    "fchmod",
    "fchown",
    "fcntl",
    "finit_module",
    "fork",
    "fsconfig",
    "fsmount",
    "fsopen",
    "fspick",
    "fsync",
    "ftruncate",
    "get_kernel_syms",
    "get_mempolicy",
    "getpid",
    "getppid",
    "getuid",
    "init_module",
    "inotify_init1",
    "io_setup",
    "io_uring_enter",
    "io_uring_register",
    "io_uring_setup",
    "ioctl",
    "ioperm",
    "iopl",
    "kcmp",
    "kexec_file_load",
    "kexec_load",
    "keyctl",
    "kill",
    "link",
    "listen",
    "listmount",
    "lookup_dcookie",
    "lsm_get_self_attr",
    "madvise",
    "lsm_set_self_attr",
    "mbind",
    "memfd_create",
    "migrate_pages",
    "mkdirat",
    "mknod",
    "mknodat",
    "mlockall",
    "mmap",
    "modify_ldt",
    "mount",
    "mount_setattr",
    "move_mount",
    "move_pages",
    "name_to_handle_at",
    "nanosleep",
    "nfsservctl",
    "open",
    "open_by_handle_at",
    "open_tree",
    "openat",
    "openat2",
    "perf_event_open",
    "personality",
    "pidfd_getfd",
    "pidfd_open",
    "pidfd_send_signal",
    "pivot_root",
    "prctl",
    "process_madvise",
    "process_vm_readv",
    "process_vm_writev",
    "ptrace",
    "pwrite64",
    "query_module",
    "quotactl",
    "quotactl_fd",
    "read",
    "reboot",
    "request_key",
    "sched_setscheduler",
    "seccomp",
    "sendto",
    "set_mempolicy",
    "set_mempolicy_home_node",
    "setdomainname",
    "sethostname",
    "setns",
    "setrlimit",
    "settimeofday",
    "setuid",
    "setxattr",
    "fsetxattr",
    "shmget",
    "socket",
    "statmount",
    "swapoff",
    "swapon",
    "symlink",
    "syslog",
    "umount2",
    "unlink",
    "unshare",
    "uselib",
    "userfaultfd",
    "ustat",
    "vhangup",
    "vmsplice",
    "write",
]

_SOURCE = """
#define _GNU_SOURCE
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

static const struct { const char *name; long number; } calls[] = {
%s
};

static long results[256];

static long number_of(const char *name) {
    for (unsigned each = 0; each < sizeof calls / sizeof *calls; each++)
        if (!strcmp(calls[each].name, name)) return calls[each].number;
    char *end;
    long number = strtol(name, &end, 0);
    return *end ? -1 : number;
}

static long word(char *text) {
    if (*text == '=') return (long)(text + 1);
    if (*text == '@') return results[atoi(text + 1)];
    if (*text == '*') return (long)calloc(1, strtoul(text + 1, 0, 0));
    if (*text == '%%') {  /* bytes, in hexadecimal */
        size_t size = strlen(++text) / 2;
        unsigned char *bytes = calloc(1, size + 1);
        for (size_t each = 0; each < size; each++) sscanf(text + 2 * each, "%%2hhx", bytes + each);
        return (long)bytes;
    }
    return (long)strtoull(text, 0, 0);
}

/* CALL ARGUMENT... [-- CALL ARGUMENT...]...: a line of result and errno for each */
int main(int count, char **texts) {
    int at = 1;
    for (int call = 0; at < count && call < 256; call++) {
        char *name = texts[at++];
        long given[6] = {0}, result = -1;
        for (int each = 0; at < count && strcmp(texts[at], "--"); each++, at++)
            if (each < 6) given[each] = word(texts[at]);
        at++;
        errno = 0;
        if (!strcmp(name, "eat")) {  /* memory, given bytes, to the last page */
            char *memory = mmap(0, given[0], 3, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
            for (long page = 0; page < given[0]; page += 4096) memory[page] = 1;
            result = 0;
        } else if (!strcmp(name, "repeat")) {
            /* repeat MOST NUMBER ARGUMENT...: how often that goes well */
            for (result = 0; result < given[0]; result++)
                if (syscall(given[1], given[2], given[3], given[4], given[5]) < 0) break;
#ifdef __x86_64__
        } else if (!strcmp(name, "int80")) {
            __asm__ volatile("int $0x80" : "=a"(result) : "a"(given[0]), "b"(given[1]),
                             "c"(given[2]), "d"(given[3]) : "memory");
            if (result < 0) { errno = (int)-result; result = -1; }
#endif
        } else {
            long number = number_of(name);
            if (number < 0) { errno = ENOSYS; result = -1; }
            else result = syscall(number, given[0], given[1], given[2], given[3], given[4],
                                  given[5]);
        }
        results[call] = result;
        printf("%%ld %%d\\n", result, result < 0 ? errno : 0);
        fflush(stdout);
    }
    return 0;
}
"""


class NoCompiler(Exception):
    """It cannot be made here."""


def make(folder: Path) -> Path:
    """
    Where the program then is, which needs no library.

    @raise NoCompiler: with the reason.
    """
    table = "\n".join(
        f'#ifdef SYS_{name}\n{{"{name}", SYS_{name}}},\n#endif' for name in sorted(set(CALLS))
    )
    source, program = folder / "poke.c", folder / "poke"
    source.write_text(_SOURCE % table)
    try:
        done = subprocess.run(
            ["gcc", "-O1", "-static", "-o", str(program), str(source)],
            capture_output=True,
            text=True,
            check=False,
        )
    except FileNotFoundError as error:
        raise NoCompiler("gcc is missing") from error
    if done.returncode != 0:
        raise NoCompiler(f"gcc makes no static program: {done.stderr.strip()[-200:]}")
    return program


def words(*calls: tuple[object, ...]) -> list[str]:
    """The program's arguments for calls, each a name and what it is given."""
    flat: list[str] = []
    for each in calls:
        flat += ["--"] * bool(flat) + [str(word) for word in each]
    return flat


def answers(said: str) -> list[tuple[int, int]]:
    """Result and errno of each call."""
    pairs = [line.split() for line in said.splitlines()]
    return [(int(result), int(error)) for result, error in pairs]
