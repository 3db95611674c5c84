"""A JupyterHub on this machine alone, to try the way through nbgrader. It is no hub for a class.

    COURSE_HUB=hub jupyterhub --config data/hub/jupyterhub_config.py

All servers run as the same user of the system, so students could read each other's files, and everybody has the same
password. Everything it writes lies in the folder COURSE_HUB. Node and the package configurable-http-proxy come with `make book`.
"""

import os
import secrets
import sys
from pathlib import Path

from course_utils.pages.browser_lab import node, npm_package

c = get_config()  # noqa: F821 - JupyterHub gives it
folder = Path(os.environ.get("COURSE_HUB", "hub")).resolve()
port = int(os.environ.get("COURSE_HUB_PORT", "8000"))  # and the two above it, for the hub and its proxy
users = os.environ.get("COURSE_HUB_USERS", "ada,grace").split(",")
exchange, program, proxy = folder / "exchange", node(), npm_package("configurable-http-proxy")
if not program or not proxy:
    sys.exit("Node or its package configurable-http-proxy is missing: make book installs both.")
for needed in (folder, exchange):
    needed.mkdir(parents=True, exist_ok=True)
exchange.chmod(0o777)  # nbgrader asks for it; the folder above is this user's

c.JupyterHub.bind_url = f"http://127.0.0.1:{port}"
c.JupyterHub.hub_bind_url = f"http://127.0.0.1:{port + 1}"
c.ConfigurableHTTPProxy.api_url = f"http://127.0.0.1:{port + 2}"
c.ConfigurableHTTPProxy.command = [program, str(proxy / "bin" / "configurable-http-proxy")]
c.ConfigurableHTTPProxy.pid_file = str(folder / "proxy.pid")
c.JupyterHub.db_url = f"sqlite:///{folder / 'hub.sqlite'}"
c.JupyterHub.cookie_secret_file = str(folder / "cookie_secret")

c.JupyterHub.authenticator_class = "dummy"
c.Authenticator.allowed_users = set(users)
c.DummyAuthenticator.password = os.environ.get("COURSE_HUB_PASSWORD") or secrets.token_urlsafe(12)
if "COURSE_HUB_PASSWORD" not in os.environ:
    print(f"The password of {', '.join(users)} for this run: {c.DummyAuthenticator.password}", flush=True)

c.JupyterHub.spawner_class = "simple"
c.SimpleLocalProcessSpawner.home_dir_template = str(folder / "home" / "{username}")
c.Spawner.cmd = [sys.executable, "-m", "jupyterhub.singleuser"]
c.Spawner.default_url = "/lab"
c.Spawner.args = ["--allow-root"] if hasattr(os, "getuid") and os.getuid() == 0 else []  # as in a container
c.Spawner.start_timeout = c.Spawner.http_timeout = 300  # seconds, for a machine that does much else
c.Spawner.environment = {
    "ORT_DISABLE_TELEMETRY": "1",
    "COURSE_EXCHANGE": str(exchange),
    "JUPYTER_CONFIG_PATH": str(Path(__file__).resolve().parent / "students"),
    "PATH": os.environ["PATH"],
}
