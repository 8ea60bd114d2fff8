"""A hardened systemd service that runs `hangtag serve` on a Linux machine without containers."""

from pathlib import Path

from hangtag.shipping.parcel import Parcel, Shipped
from hangtag.shipping.wheel import constraints, wheel

__all__ = ["ship"]

_PORT = 8000


def ship(parcel: Parcel, given: Path | None) -> Shipped:
    """The unit, the model, hangtag, and a script that installs them."""
    name, content = wheel(given)
    unit = f"hangtag-{parcel.name}.service"
    return Shipped(
        {
            unit: _unit(parcel).encode(),
            "install.sh": _install(parcel, unit, name).encode(),
            "constraints.txt": constraints(content),
            "model.onnx": parcel.content,
            name: content,
        },
        (
            "copy {folder} to the server",
            "sudo sh {folder}/install.sh",
            f"curl --data-binary @photo.jpg http://127.0.0.1:{_PORT}/predict",
        ),
    )


def _unit(parcel: Parcel) -> str:
    return f"""[Unit]
Description=hangtag serve: {parcel.name}
After=network.target

[Service]
Type=exec
ExecStart=/opt/hangtag/bin/hangtag serve /opt/hangtag/models/{parcel.name}.onnx --host 127.0.0.1 --port {_PORT}
# On other addresses, the server needs a token. Write it to /etc/hangtag/token (mode 600), then in place of the above:
# LoadCredential=token:/etc/hangtag/token
# ExecStart=... --host 0.0.0.0 --allow-host NAME --token-file ${{CREDENTIALS_DIRECTORY}}/token
# The server notices a new model file by itself; systemctl reload makes it look at once.
ExecReload=/bin/kill -HUP $MAINPID
# SIGTERM: answers what was accepted, then ends.
TimeoutStopSec=45
Restart=on-failure
RestartSec=1

DynamicUser=yes
Environment=HOME=/tmp PYTHONDONTWRITEBYTECODE=1
ProtectSystem=strict
ProtectHome=yes
PrivateTmp=yes
PrivateDevices=yes
PrivateUsers=yes
ProtectClock=yes
ProtectControlGroups=yes
ProtectHostname=yes
ProtectKernelLogs=yes
ProtectKernelModules=yes
ProtectKernelTunables=yes
ProtectProc=invisible
NoNewPrivileges=yes
CapabilityBoundingSet=
AmbientCapabilities=
LockPersonality=yes
RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
RemoveIPC=yes
SystemCallArchitectures=native
SystemCallFilter=@system-service
SystemCallFilter=~@privileged
UMask=0077
MemoryMax=4G
TasksMax=512

[Install]
WantedBy=multi-user.target
"""


def _install(parcel: Parcel, unit: str, wheel_name: str) -> str:
    return f"""#!/bin/sh
# Installs hangtag without PyTorch in /opt/hangtag, the model, and the service {unit}. Run it as root.
set -eu
cd "$(dirname "$0")"
umask 022
[ -x /opt/hangtag/bin/python ] || python3 -m venv /opt/hangtag
/opt/hangtag/bin/python -m pip install --disable-pip-version-check --no-cache-dir --constraint constraints.txt \\
    "./{wheel_name}[serve]"
mkdir -p /opt/hangtag/models
# Renamed into place, so that a running server never sees half a file.
install -m 644 model.onnx /opt/hangtag/models/.{parcel.name}.new
mv /opt/hangtag/models/.{parcel.name}.new /opt/hangtag/models/{parcel.name}.onnx
install -m 644 {unit} /etc/systemd/system/{unit}
systemctl daemon-reload
systemctl enable --now {unit}
"""
