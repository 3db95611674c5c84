"""Start the server:  python -m server.serve [settings.json]"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path

import uvicorn

from .app import create_app
from .settings import Settings


def settings_from(arguments: list[str]) -> Settings:
    """Of the named file, or the defaults. A wrong setting ends the program."""
    given = json.loads(Path(arguments[0]).read_text()) if arguments else {}
    known = asdict(Settings())
    if unknown := [name for name in given if name not in known]:
        sys.exit(
            f"There is no setting {unknown[0]!r}. There are: {', '.join(known)}."
        )
    return Settings(**given)


def main() -> None:
    settings = settings_from(sys.argv[1:])
    try:
        app = create_app(settings)
    except ValueError as error:  # the file of the model is another one
        sys.exit(str(error))
    config = uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        log_level="warning",
        timeout_graceful_shutdown=10,
    )
    socket = config.bind_socket()
    socket.listen()
    print("listening on port", socket.getsockname()[1], flush=True)
    uvicorn.Server(config).run([socket])


if __name__ == "__main__":
    main()
