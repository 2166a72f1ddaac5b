"""A web server on this machine in place of those where data sets are published."""

import http.server
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest

from jaxdal.data import official, published


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *args: object) -> None:
        pass


@contextmanager
def serving(folder: Path) -> Iterator[str]:
    """Serve a new folder; -> its address."""
    folder.mkdir()
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()
    thread.join()
    server.server_close()


def redirect(name: str, base: str, files: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """Let one data set be published elsewhere, with the checksums of the files there."""
    with published.quiet():
        from tensorflow_datasets.core.download import checksums

        from jaxdal.data import builders
    source = official.OFFICIAL[name]._replace(urls=tuple(base + path.name for path in files))
    monkeypatch.setitem(official.OFFICIAL, name, source)
    monkeypatch.setattr(builders.BUILDERS[name], "SOURCE", source)
    infos = {base + path.name: checksums.compute_url_info(path) for path in files}
    monkeypatch.setattr(builders.BUILDERS[name], "url_infos", infos)
    for variable in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(variable, raising=False)
