# What a hostile function tries, a function for each. Each prints what it could do
# that it must not; hostile.go says what else must hold. given holds what of the host and of a
# neighbour it is to look for.
import ctypes, errno, json, mmap, os, resource, signal, socket, struct, sys, threading, time

given = json.loads(os.environ["GIVEN"])
tmp = os.environ["TMP"]
libc = ctypes.CDLL(None, use_errno=True)


def breach(*what):
    print(*what, flush=True)


def attempt(what, do, *args, **more):
    """Does what must fail."""
    try:
        got = do(*args, **more)
    except (OSError, ValueError):
        return
    breach(what, got)


def call(name, *args):
    """Calls the C library, with an exception for an error."""
    ctypes.set_errno(0)
    result = getattr(libc, name)(*(a.encode() if isinstance(a, str) else a for a in args))
    if result == -1:
        raise OSError(ctypes.get_errno(), name)
    return result


def fork_bomb():
    while True:
        try:
            if os.fork() == 0 and os.fork() == 0:
                os.setsid()
        except OSError:
            if os.getpid() == first:
                print("full", flush=True)
            time.sleep(1)


first = os.getpid()


def threads():
    threading.stack_size(64 << 10)
    n, stop = 1, threading.Event()
    try:
        while n < 3000:
            threading.Thread(target=stop.wait, daemon=True).start()
            n += 1
    except RuntimeError:
        pass
    print("threads", n, flush=True)
    stop.set()


def descriptors():
    attempt("raises its limit of descriptors", resource.setrlimit, resource.RLIMIT_NOFILE, (2048, 2048))
    files = []
    try:
        while True:
            files.append(open("/dev/null"))
    except OSError as e:
        print("descriptors", files[-1].fileno() + 1, errno.errorcode[e.errno], flush=True)


def memory_of_nobody():  # that no process has mapped
    fd = os.memfd_create("hog")
    print("begins", flush=True)
    for i in range(256):
        os.write(fd, b"x" * (1 << 20))
    breach("wrote 256 MB to a memory file in a sandbox of 64")


def spin():
    for i in range(8):
        if os.fork() == 0:
            while True:
                pass
    print("spinning", flush=True)
    while True:
        pass


def flood():
    while True:
        os.write(1, b"x" * 65536)


def other_processes():
    own = {int(t) for p in os.listdir("/proc") if p.isdigit() for t in os.listdir("/proc/%s/task" % p)}
    for pid in range(1, 1 << 16):
        if pid in own:
            continue
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            continue
        except PermissionError:
            pass
        breach("there is a process", pid)
    for pid in [1, os.getppid(), given["pid"]]:
        for sig in (signal.SIGKILL, signal.SIGSTOP, signal.SIGTERM, signal.SIGSEGV):
            try:
                os.kill(pid, sig)
            except OSError:
                pass
        if pid > 0:
            attempt("traces %d" % pid, call, "ptrace", 16, pid, 0, 0)
            attempt("seizes %d" % pid, call, "ptrace", 0x4206, pid, 0, 0)
            attempt("reads the memory of %d" % pid, open, "/proc/%d/mem" % pid, "rb")
            attempt("reads the environment of %d" % pid, lambda: open("/proc/%d/environ" % pid).read())
            attempt("leaves by the root of %d" % pid, os.listdir, "/proc/%d/root" % pid)
            attempt("leaves by the directory of %d" % pid, os.listdir, "/proc/%d/cwd" % pid)
            attempt("sees the files of %d" % pid, os.listdir, "/proc/%d/fd" % pid)
    buffer = ctypes.create_string_buffer(16)
    vector = struct.pack("PN", ctypes.addressof(buffer), 16)
    attempt("reads memory of process 1", call, "process_vm_readv", 1, vector, ctypes.c_ulong(1), vector, ctypes.c_ulong(1), ctypes.c_ulong(0))


def hide_key():
    for ring in (-3, -4, -5):  # of the session, the user, the user's session
        libc.syscall(248, b"user", b"kiln-hostile", b"secret", ctypes.c_ulong(6), ring)


def find_key():
    for ring in (-3, -4, -5):
        if libc.syscall(250, 10, ring, b"user", b"kiln-hostile", 0) > 0:
            breach("finds a neighbour's key")


def mounts():
    task = os.environ["TASK"]
    for flags in (0x10000000, 0x00020000, 0x10020000):  # user, mount, both
        libc.unshare(flags)
    for source, kind, flags in (("none", "tmpfs", 0), ("proc", "proc", 0), ("sysfs", "sysfs", 0), ("cgroup", "cgroup", 0), ("/dev/loop0", "ext4", 0)):
        libc.mount(source.encode(), task.encode(), kind.encode(), flags, b"")
    libc.mount(tmp.encode(), task.encode(), b"", 4096, b"")  # bound
    libc.mount(b"", b"/", b"", 32 | 4096, b"")  # writable again
    libc.umount2(task.encode(), 2)
    libc.pivot_root(tmp.encode(), tmp.encode())
    attempt("writes to its code", lambda: open(task + "/file", "w").write("changed"))


def chroot_escape():
    os.makedirs(tmp + "/hole/a/b", exist_ok=True)
    try:
        root = os.open("/", os.O_RDONLY)
        os.chroot(tmp + "/hole")
        os.fchdir(root)
        for i in range(100):
            os.chdir("..")
        os.chroot(".")
    except OSError:
        pass
    attempt("reads a file of the host", lambda: open(given["secret"]).read())
    attempt("reads a file of the host from above", lambda: open("/.." + given["secret"]).read())
    attempt("opens a file by its handle", call, "open_by_handle_at", -100, struct.pack("II", 8, 1) + bytes(8), 0)


def become_root():
    me = os.getuid()
    for name, do in (("setuid", lambda: os.setuid(0)), ("setresuid", lambda: os.setresuid(0, 0, 0)), ("setgroups", lambda: os.setgroups([0])), ("setgid", lambda: os.setgid(0))):
        attempt(name, do)
    copy = tmp + "/id"
    with open("/usr/bin/id", "rb") as f, open(copy, "wb") as g:
        g.write(f.read())
    os.chmod(copy, 0o6755)
    out = os.popen(copy + " -u").read().strip()
    if out != str(me):
        breach("a set-user-id program made it", out)
    attempt("owns a file of root's", os.chown, copy, 0, 0)
    attempt("gives a file capabilities", os.setxattr, copy, "security.capability", struct.pack("<IIIII", 0x02000001, 0xFFFFFFFF, 0, 0xFFFFFFFF, 0))
    with open("/proc/self/status") as f:
        for line in f:
            if line.startswith(("CapEff", "CapPrm", "CapAmb")) and int(line.split()[1], 16):
                breach(line.strip())


def raw_sockets():
    attempt("packets", socket.socket, socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
    attempt("packets without headers", socket.socket, socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(3))
    for p in (socket.IPPROTO_ICMP, socket.IPPROTO_TCP, socket.IPPROTO_RAW):
        attempt("raw %d" % p, socket.socket, socket.AF_INET, socket.SOCK_RAW, p)
        attempt("raw6 %d" % p, socket.socket, socket.AF_INET6, socket.SOCK_RAW, p)
    attempt("the machine's hypervisor", lambda: socket.socket(socket.AF_VSOCK).connect((2, 22)))


def connect():
    for host, port in given["addresses"]:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        with socket.socket(family) as s:
            s.settimeout(2)
            attempt("reaches %s port %d" % (host, port), s.connect, (host, port))
    for path in given["sockets"]:
        with socket.socket(socket.AF_UNIX) as s:
            s.settimeout(2)
            attempt("reaches %s" % path, s.connect, path.replace("@", "\0"))


def poison():
    for folder in os.environ["TASK"], os.environ["OPT"], os.environ["CLIENT"]:
        file = folder + "/file"
        attempt("writes", lambda: open(file, "r+").write("poison"))
        attempt("truncates", os.truncate, file, 0)
        attempt("removes", os.unlink, file)
        attempt("replaces", lambda: (open(tmp + "/new", "w").write("poison"), os.rename(tmp + "/new", file)))
        attempt("adds", lambda: open(folder + "/new", "w"))
        attempt("changes the mode", os.chmod, file, 0o777)
        attempt("changes the time", os.utime, file)
        attempt("marks", os.setxattr, file, "user.x", b"x")
        attempt("links", os.link, file, tmp + "/link")
        fd = os.open(file, os.O_RDONLY)
        attempt("opens again", os.open, "/proc/self/fd/%d" % fd, os.O_RDWR)
        attempt("maps", lambda: mmap.mmap(fd, 0, prot=mmap.PROT_WRITE))
        r, w = os.pipe()
        os.splice(fd, w, 1)  # a page of the file is in the pipe now
        os.write(w, b"poison")
        attempt("writes around", os.open, "/proc/self/cwd/file", os.O_RDWR)


def races():
    os.makedirs(tmp + "/a/real", exist_ok=True)
    os.symlink(given["precious"], tmp + "/a/link")
    if os.fork() == 0:
        while True:
            open(tmp + "/a/real/%d" % time.monotonic_ns(), "w").close()
    print("racing", flush=True)
    while True:
        call("renameat2", -100, tmp + "/a/real", -100, tmp + "/a/link", 2)  # exchanged


def machine():
    attempt("the host's name", socket.sethostname, "hostile")
    attempt("the time", time.clock_settime, time.CLOCK_REALTIME, time.time())
    attempt("the clock", call, "adjtimex", struct.pack("i", 1) + bytes(300))
    attempt("restarts", call, "reboot", 0)
    attempt("swaps", call, "swapon", tmp + "/swap", 0)
    if not given["own_kernel"]:  # whose messages are made up, and whose priorities nobody else sees
        attempt("reads the kernel's messages", call, "klogctl", 3, ctypes.create_string_buffer(100), 100)
        attempt("is above others", os.nice, -5)
    attempt("accounts", call, "acct", tmp + "/acct")
    attempt("loads a module", call, "syscall", 313, 0, b"", 0)
    for path in ("/proc/sysrq-trigger", "/proc/sys/kernel/core_pattern", "/proc/sys/vm/drop_caches", "/proc/1/oom_score_adj", "/proc/kcore", "/dev/mem", "/dev/kmsg", "/sys/fs/cgroup/cgroup.procs"):
        attempt("writes " + path, open, path, "r+b")
    attempt("makes a device", os.mknod, tmp + "/sda", 0o060666, os.makedev(8, 0))


globals()[given["case"]]()
