"""One run of the lab's guest: QEMU started, its ports read, its end judged. The guest never outlives the run."""
import ctypes
import os
import selectors
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import pathlib

from kernel import Missing, tool

HERE = pathlib.Path(__file__).parent
BOOT_SECONDS = {"kvm": 10, "tcg": 60}
KERNEL_ARGUMENTS = ("console=ttyS0 quiet loglevel=4 panic=-1 mitigations=off tsc=reliable no_timer_check "
                    "random.trust_cpu=on cryptomgr.notests rcupdate.rcu_expedited=1")
TIMED_OUT = 124  # as timeout(1)


class GuestDied(Exception):
    """The guest ended, or hung, without telling an exit status."""


class BootFailed(GuestDied):
    """It did so before the host's file system was in sight: another accelerator may do better."""


def _die_with_parent():
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


class Guest:
    """`options` has what the command line offers; `log` takes lines for people."""

    def __init__(self, kernel, options, log):
        self.kernel, self.options, self.log = kernel, options, log
        self.began = time.monotonic()

    def run(self, accel):
        """Boots, runs the command, returns its exit status (124: it ran out of time)."""
        with tempfile.TemporaryDirectory(prefix="rxe_lab.") as job:
            job = pathlib.Path(job)
            self._write_job(job)
            ends = {name: socket.socketpair() for name in ("control", "out", "err")}
            console = job / "console"
            command = self._qemu(job, console, accel, {name: pair[1].fileno() for name, pair in ends.items()})
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                       stderr=subprocess.STDOUT, preexec_fn=_die_with_parent,
                                       pass_fds=[pair[1].fileno() for pair in ends.values()])
            try:
                for pair in ends.values():
                    pair[1].close()
                return self._attend({name: pair[0] for name, pair in ends.items()}, accel)
            except GuestDied as death:
                process.kill()
                said = process.communicate(timeout=30)[0].decode(errors="replace").strip()
                printed = console.read_text(errors="replace").strip() if console.exists() else ""
                raise type(death)("\n".join(filter(None, [str(death), said, printed[-3000:]]))) from None
            finally:
                process.kill()
                process.wait(30)
                for pair in ends.values():
                    pair[0].close()

    def _write_job(self, job):
        for name in ("main", "hosts.sh"):
            shutil.copy(HERE / name, job / name)
        (job / "main").chmod(0o755)
        shutil.copy(self.kernel / "release", job / "release")
        options = self.options
        (job / "options").write_text(f"hosts={options.hosts}\nsoft_hosts={options.soft_hosts}\n"
                                     f"lab_mtu={options.mtu}\nlab_netem={shlex.quote(options.netem)}\n")
        lines = [f"lab_cwd={shlex.quote(os.getcwd())}",
                 f"lab_command=({' '.join(map(shlex.quote, options.command))})"]
        lines += [f"export {name}={shlex.quote(value)}" for name, value in os.environ.items()
                  if name.isidentifier() and name not in ("PATH", "TMPDIR")]
        (job / "environment").write_text("\n".join(lines) + "\n")

    def _qemu(self, job, console, accel, descriptors):
        options = self.options
        release = (self.kernel / "release").read_text()
        command = [tool("qemu-system-x86_64", "qemu-system-x86"), "-M", "q35", "-accel",
                   "kvm" if accel == "kvm" else "tcg,thread=multi", "-cpu", "max", "-smp", str(options.cpus),
                   "-m", str(options.memory), "-nodefaults", "-no-reboot", "-display", "none",
                   "-kernel", self.kernel / "vmlinux", "-initrd", self.kernel / "initramfs.cpio",
                   "-append", KERNEL_ARGUMENTS, "-serial", f"file:{console}", "-device", "virtio-serial-pci"]
        for name, path in (("root", "/"), ("job", job), ("modules", self.kernel / "lib/modules" / release)):
            command += ["-fsdev", f"local,id={name},path={path},security_model=none,readonly=on,multidevs=remap",
                        "-device", f"virtio-9p-pci,fsdev={name},mount_tag={name}"]
        for name, descriptor in descriptors.items():
            command += ["-chardev", f"socket,id={name},fd={descriptor}",
                        "-device", f"virtserialport,chardev={name},name={name}"]
        return [str(word) for word in command]

    def _attend(self, ports, accel):
        """Copies what the guest writes until it has told the command's exit status and all of the output came."""
        outputs = {"out": sys.stdout.buffer, "err": sys.stderr.buffer}
        boot_end = time.monotonic() + BOOT_SECONDS[accel]
        end, status, told, is_up = None, None, b"", False
        with selectors.DefaultSelector() as selector:
            for name, port in ports.items():
                selector.register(port, selectors.EVENT_READ, name)
            while selector.get_map():
                deadline = min(filter(None, [boot_end, end]), default=None)
                left = None if deadline is None else deadline - time.monotonic()
                if left is not None and left <= 0:
                    if boot_end is not None:
                        raise BootFailed(f"the guest did not come up within {BOOT_SECONDS[accel]} s ({accel})")
                    if status is not None:
                        return status  # it told its status and can't power off
                    self.log(f"the command did not end within {self.options.timeout} s; stopped")
                    return TIMED_OUT
                for key, _ in selector.select(left):
                    data = key.fileobj.recv(1 << 16)
                    if not data:
                        selector.unregister(key.fileobj)
                    elif key.data in outputs:
                        outputs[key.data].write(data)
                        outputs[key.data].flush()
                    else:
                        *lines, told = (told + data).split(b"\n")
                        for line in lines:
                            word, _, value = line.decode().partition(" ")
                            if word == "up":
                                is_up, boot_end = True, time.monotonic() + BOOT_SECONDS["tcg"]
                            elif word == "ready":
                                self.log(f"up in {time.monotonic() - self.began:.1f} s ({accel})")
                                boot_end, end = None, time.monotonic() + self.options.timeout
                            elif word == "exit":
                                status, end = int(value), time.monotonic() + 10
                            elif word == "failed":
                                boot_end, end = time.monotonic() + 2, None
        if status is None:
            if not is_up:
                raise BootFailed(f"the guest ended before it was up ({accel})")
            raise GuestDied("the guest ended before the command did")
        return status
