"""Guest kernels for scripts/rxe_lab: Debian's own, unpacked once and kept.

A kernel is a folder CACHE/VERSION with `vmlinux` (uncompressed: under emulation unpacking would take longer than booting),
`initramfs.cpio` (busybox and what it takes to mount the host's root), `release`, and `lib/modules/RELEASE`.
"""
import fcntl
import io
import lzma
import os
import pathlib
import re
import shutil
import struct
import subprocess
import tempfile

# Asked for -> the package whose dependency names the kernel.
META_PACKAGES = {"6.1": "linux-image-amd64", "6.12": "linux-image-6.12-amd64"}
DEFAULT = "6.1"
# What the guest needs before it sees the host's root, with their dependencies; the rest is loaded from there.
BOOT_MODULES = ["virtio_pci", "virtio_console", "9pnet_virtio", "9p", "overlay"]
INIT = pathlib.Path(__file__).with_name("init")
# Raise it when the layout of a prepared folder changes.
LAYOUT = "2"


class Missing(Exception):
    """Something that the machine lacks, with what to do about it."""


def cache_folder():
    base = os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache"
    return pathlib.Path(base) / "sumac" / "rxe_lab"


def tool(name, package):
    path = shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")
    if path is None:
        raise Missing(f"no {name}; scripts/setup installs it (package {package})")
    return path


def run(*command, **options):
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, timeout=900, **options)
    if done.returncode != 0:
        raise Missing(f"'{' '.join(map(str, command))}' failed: {(done.stderr or done.stdout).strip()[-600:]}")
    return done.stdout


def prepared(version, log=lambda text: None):
    """The folder of kernel `version` ("6.1", "6.12"), made first if need be."""
    folder = cache_folder() / version
    folder.parent.mkdir(parents=True, exist_ok=True)
    with open(folder.parent / f"{version}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not _is_current(folder):
            log(f"preparing the guest's kernel {version} (once; kept in {folder})")
            _prepare(version, folder)
    return folder


def _stamp():
    return LAYOUT + "\n" + INIT.read_text()


def _is_current(folder):
    stamp = folder / "stamp"
    return stamp.exists() and stamp.read_text() == _stamp()


def _prepare(version, folder):
    busybox = tool("busybox", "busybox-static")
    modprobe, depmod = tool("modprobe", "kmod"), tool("depmod", "kmod")
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f"{version}.") as scratch:
        scratch = pathlib.Path(scratch)
        root = _download(version, scratch)
        release = next((root / "lib/modules").iterdir()).name
        new = scratch / "new"
        (new / "lib/modules").mkdir(parents=True)
        (root / "lib/modules" / release).rename(new / "lib/modules" / release)
        run(depmod, "-b", new, release)
        (new / "vmlinux").write_bytes(unpack_kernel((root / f"boot/vmlinuz-{release}").read_bytes()))
        modules = []
        for name in BOOT_MODULES:
            # "insmod PATH" for each module in the order of loading; "builtin NAME" for what needs none.
            for line in run(modprobe, "-d", new, "-S", release, "-D", name).splitlines():
                words = line.split()
                if words[0] == "insmod" and words[1] not in modules:
                    modules.append(words[1])
        (new / "initramfs.cpio").write_bytes(_initramfs(busybox, modules))
        (new / "release").write_text(release)
        (new / "stamp").write_text(_stamp())
        shutil.rmtree(folder, ignore_errors=True)
        new.rename(folder)


def _download(version, scratch):
    apt_cache, apt_get = tool("apt-cache", "apt"), tool("apt-get", "apt")
    depends = run(apt_cache, "depends", META_PACKAGES[version])
    found = re.search(r"Depends: (linux-image-\S+)", depends)
    if not found:
        raise Missing(f"apt knows no {META_PACKAGES[version]}; try 'apt-get update'")
    # A folder of its own that apt's unprivileged user may write to as well.
    run(apt_get, "-q", "-o", "APT::Sandbox::User=root", "-o", "Acquire::Retries=3", "download", found[1], cwd=scratch)
    package = next(scratch.glob("*.deb"))
    run(tool("dpkg-deb", "dpkg"), "-x", package, scratch / "root")
    package.unlink()
    root = scratch / "root"
    return root / "usr" if (root / "usr/lib/modules").exists() else root


def unpack_kernel(image):
    """The ELF file inside a bzImage: Documentation/x86/boot.rst, payload_offset and payload_length."""
    setup_sectors = image[0x1F1] or 4
    offset, length = struct.unpack_from("<II", image, 0x248)
    start = (setup_sectors + 1) * 512 + offset
    payload = image[start:start + length]
    if payload[:6] == b"\xfd7zXZ\x00":
        kernel = lzma.LZMADecompressor().decompress(payload)
    elif payload[:4] == b"\x28\xb5\x2f\xfd":  # the frame is followed by its length, which zstd calls garbage
        command = [tool("zstd", "zstd"), "-dcq"]
        kernel = subprocess.run(command, input=payload, capture_output=True, timeout=120, check=False).stdout
    else:
        raise Missing("the kernel is packed neither with xz nor with zstd, as Debian's are")
    if kernel[:4] != b"\x7fELF":
        raise Missing("the kernel image holds no ELF file")
    return kernel


def _initramfs(busybox, modules):
    archive = Cpio()
    for name in ("bin", "dev", "modules", "lower", "rw", "new"):
        archive.folder(name)
    archive.file("bin/busybox", pathlib.Path(busybox).read_bytes(), 0o755)
    archive.file("init", INIT.read_bytes(), 0o755)
    order = []
    for path in map(pathlib.Path, modules):
        data, name = path.read_bytes(), path.name
        if name.endswith(".xz"):
            data, name = lzma.decompress(data), name[:-3]
        archive.file(f"modules/{name}", data, 0o644)
        order.append(name)
    archive.file("modules/order", ("\n".join(order) + "\n").encode(), 0o644)
    return archive.bytes()


class Cpio:
    """An archive in the "newc" format, which the kernel reads (Documentation/driver-api/early-userspace)."""

    def __init__(self):
        self._out = io.BytesIO()
        self._count = 0

    def folder(self, name):
        self._add(name, 0o040755, b"")

    def file(self, name, data, mode):
        self._add(name, 0o100000 | mode, data)

    def bytes(self):
        self._add("TRAILER!!!", 0, b"")
        return self._out.getvalue()

    def _add(self, name, mode, data):
        self._count += 1
        encoded = name.encode() + b"\0"
        fields = [self._count, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(encoded), 0]
        self._write(b"070701" + b"".join(b"%08x" % field for field in fields) + encoded)
        self._write(data)

    def _write(self, data):  # the header with its name, and the data, are each padded to 4 bytes
        self._out.write(data)
        self._out.write(b"\0" * (-self._out.tell() % 4))
