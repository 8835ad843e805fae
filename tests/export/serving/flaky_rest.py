"""A server of REST that fails as it is told; it needs no TensorFlow."""

import collections
import contextlib
import http.server
import json
import threading
import time

import numpy as np

HTTP = {
    "INVALID_ARGUMENT": 400,
    "UNAUTHENTICATED": 401,
    "NOT_FOUND": 404,
    "RESOURCE_EXHAUSTED": 429,
    "INTERNAL": 500,
    "UNAVAILABLE": 503,
    "DEADLINE_EXCEEDED": 504,
}
SHAPE = (-1, 2, 2, 1)


class Plan:
    """What a server does with its next requests.

    Attributes:
        failures: Names of status codes; a number of seconds to be silent for;
            or "gone", to break off.
        times: When requests for predictions have come.
        rows: How many images each has had.
    """

    def __init__(self, failures=()):
        self.failures = collections.deque(failures)
        self.retry_after = None
        self.state = "AVAILABLE"
        self.size = SHAPE
        self.times = []
        self.rows = []
        self.tokens = []

    @property
    def attempts(self):
        return len(self.times)

    def next_failure(self):
        self.times.append(time.monotonic())
        failure = self.failures.popleft() if self.failures else None
        if isinstance(failure, float):
            time.sleep(failure)
            return None
        return failure


def scores_of(images):
    # Tells which image it was.
    return images.reshape(len(images), -1).sum(axis=1).astype("float32")


def _json_metadata(plan):
    def tensor(dtype, sizes):
        dims = [{"size": str(size), "name": ""} for size in sizes]
        return {
            "dtype": dtype,
            "tensor_shape": {"dim": dims, "unknown_rank": False},
        }

    definition = {
        "inputs": {"image": tensor("DT_FLOAT", plan.size)},
        "outputs": {
            "anomaly_score": tensor("DT_FLOAT", (-1,)),
            "is_anomalous": tensor("DT_BOOL", (-1,)),
        },
    }
    return {
        "model_spec": {"name": "fake", "version": "1"},
        "metadata": {
            "signature_def": {"signature_def": {"serving_default": definition}}
        },
    }


def _json_status(plan):
    entry = {"version": "1", "state": plan.state, "status": {}}
    return {"model_version_status": [entry]}


@contextlib.contextmanager
def rest_server(plan, port=0):
    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self):
            is_metadata = self.path.endswith("/metadata")
            self.answer(
                200, (_json_metadata if is_metadata else _json_status)(plan)
            )

        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"]))
            images = np.array(json.loads(body)["inputs"]["image"])
            plan.rows.append(len(images))
            plan.tokens.append(self.headers.get("authorization"))
            failure = plan.next_failure()
            if failure == "gone":
                self.close_connection = True
            elif failure is not None:
                self.answer(HTTP.get(failure, failure), {"error": "as planned"})
            else:
                scores = scores_of(images)
                outputs = {
                    "anomaly_score": scores.tolist(),
                    "is_anomalous": (scores > 1).tolist(),
                }
                self.answer(200, {"outputs": outputs})

        def answer(self, status, document):
            content = json.dumps(document).encode()
            with contextlib.suppress(OSError):  # the client may have gone
                self.send_response(status)
                self.send_header("Content-Length", str(len(content)))
                if plan.retry_after is not None and status != 200:
                    self.send_header("Retry-After", plan.retry_after)
                self.end_headers()
                self.wfile.write(content)

        def log_message(self, *arguments):
            pass

    class Server(http.server.ThreadingHTTPServer):
        daemon_threads = True

    with Server(("127.0.0.1", port), Handler) as httpd:
        thread = threading.Thread(target=httpd.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{httpd.server_address[1]}"
        finally:
            httpd.shutdown()
            thread.join()
