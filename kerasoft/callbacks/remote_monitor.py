"""RemoteMonitor: sends every epoch's logs to a web server."""

from __future__ import annotations

import json
import urllib.error
import urllib.parse
import urllib.request
import warnings

import numpy as np

from .base import Callback

TIMEOUT_S = 10.0  # of one request


class RemoteMonitor(Callback):
    """Posts ``{"epoch": ..., **logs}`` to a server after each epoch; warns if it cannot be reached.

    Args:
        root: URL of the server.
        path: of the page, put behind `root`.
        field: name of the form field that holds the JSON text, without `send_as_json`.
        headers: more HTTP headers.
        send_as_json: send the JSON itself, as "application/json".
    """

    reads_weights = False

    def __init__(
        self,
        root="http://localhost:9000",
        path="/publish/epoch/end/",
        field="data",
        headers=None,
        send_as_json=False,
    ):
        super().__init__()
        self.root, self.path, self.field = root, path, field
        self.headers, self.send_as_json = headers, send_as_json

    def on_epoch_end(self, epoch, logs=None):
        values = {key: v.item() if isinstance(v, (np.ndarray, np.generic)) else v for key, v in (logs or {}).items()}
        text = json.dumps({"epoch": epoch, **values})
        kind = "application/json" if self.send_as_json else "application/x-www-form-urlencoded"
        body = text if self.send_as_json else urllib.parse.urlencode({self.field: text})
        request = urllib.request.Request(
            self.root + self.path, body.encode(), {"Content-Type": kind, **(self.headers or {})}, method="POST"
        )
        try:
            with urllib.request.urlopen(request, timeout=TIMEOUT_S) as answer:
                answer.read()
        except urllib.error.HTTPError as answer:
            answer.close()  # the server was reached
        except (urllib.error.URLError, OSError):
            warnings.warn(f"Could not reach RemoteMonitor root server at {self.root}", stacklevel=2)
