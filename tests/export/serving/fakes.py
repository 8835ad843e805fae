"""Servers of both protocols that fail as they are told."""

import collections
import concurrent.futures
import contextlib
import http.server
import json
import threading
import time

import grpc
import numpy as np
import tensorflow as tf
from google.protobuf import json_format
from tensorflow_serving.apis import (
    get_model_metadata_pb2,
    get_model_status_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
)

HTTP = {
    "INVALID_ARGUMENT": 400,
    "UNAUTHENTICATED": 401,
    "NOT_FOUND": 404,
    "RESOURCE_EXHAUSTED": 429,
    "INTERNAL": 500,
    "UNAVAILABLE": 503,
    "DEADLINE_EXCEEDED": 504,
}


class Plan:
    """What a server does with its next requests, and what they were.

    Attributes:
        failures: Names of status codes; a number of seconds to be silent for;
            or "gone", to break off.
        times: When requests for predictions have come.
        outputs: Arrays by name that answers hold besides the usual ones.
        rows: How many images each has had.
        tokens: What each has had as `authorization`.
        proxy_users: What each has had as `proxy-authorization`, of REST.
    """

    def __init__(self, failures=()):
        self.failures = collections.deque(failures)
        self.retry_after = None
        self.state = "AVAILABLE"
        self.size = (-1, 2, 2, 1)
        self.outputs = {}
        self.times = []
        self.rows = []
        self.tokens = []
        self.proxy_users = []

    @property
    def attempts(self):
        return len(self.times)

    def receive(self, images, token):
        """Returns how to fail, or None, and the outputs."""
        self.times.append(time.monotonic())
        self.rows.append(len(images))
        self.tokens.append(token)
        failure = self.failures.popleft() if self.failures else None
        if isinstance(failure, float):
            time.sleep(failure)
            failure = None
        # The score tells which image it was.
        scores = images.reshape(len(images), -1).sum(axis=1).astype("float32")
        return failure, {
            "anomaly_score": scores,
            "is_anomalous": scores > 1,
            **self.outputs,
        }

    def status(self):
        return get_model_status_pb2.GetModelStatusResponse(
            model_version_status=[{"version": 1, "state": self.state}]
        )

    def signatures(self):
        def tensor(dtype, sizes):
            dims = [{"size": str(size)} for size in sizes]
            return {"dtype": dtype, "tensorShape": {"dim": dims}}

        definition = {
            "inputs": {"image": tensor("DT_FLOAT", self.size)},
            "outputs": {
                "anomaly_score": tensor("DT_FLOAT", (-1,)),
                "is_anomalous": tensor("DT_BOOL", (-1,)),
                **dict.fromkeys(self.outputs, tensor("DT_INT32", (-1,))),
            },
        }
        return json_format.ParseDict(
            {"signatureDef": {"serving_default": definition}},
            get_model_metadata_pb2.SignatureDefMap(),
        )


class _Services(
    prediction_service_pb2_grpc.PredictionServiceServicer,
    model_service_pb2_grpc.ModelServiceServicer,
):
    def __init__(self, plan):
        self._plan = plan

    def GetModelMetadata(self, request, context):  # noqa: N802
        response = get_model_metadata_pb2.GetModelMetadataResponse(
            model_spec={"name": "fake", "version": {"value": 1}}
        )
        response.metadata["signature_def"].Pack(self._plan.signatures())
        return response

    def GetModelStatus(self, request, context):  # noqa: N802
        return self._plan.status()

    def Predict(self, request, context):  # noqa: N802
        images = tf.make_ndarray(request.inputs["image"])
        token = dict(context.invocation_metadata()).get("authorization")
        failure, outputs = self._plan.receive(images, token)
        if failure is not None:
            context.abort(grpc.StatusCode[failure], "as planned")
        return predict_pb2.PredictResponse(
            model_spec={"version": {"value": 1}},
            outputs={k: tf.make_tensor_proto(v) for k, v in outputs.items()},
        )


@contextlib.contextmanager
def _grpc_server(plan, port):
    services = _Services(plan)
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        server = grpc.server(pool)
        prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(
            services, server
        )
        model_service_pb2_grpc.add_ModelServiceServicer_to_server(
            services, server
        )
        port = server.add_insecure_port(f"127.0.0.1:{port}")
        server.start()
        try:
            yield f"127.0.0.1:{port}"
        finally:
            server.stop(0).wait()


@contextlib.contextmanager
def _rest_server(plan, port):
    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self):
            if self.path.endswith("/metadata"):
                signatures = as_dict(plan.signatures())
                document = {
                    "model_spec": {"name": "fake", "version": "1"},
                    "metadata": {"signature_def": signatures},
                }
                self.answer(200, document)
            else:
                self.answer(200, as_dict(plan.status()))

        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"]))
            images = np.array(json.loads(body)["inputs"]["image"])
            token = self.headers.get("authorization")
            plan.proxy_users.append(self.headers.get("proxy-authorization"))
            failure, outputs = plan.receive(images, token)
            if failure == "gone":
                self.close_connection = True
            elif failure is not None:
                self.answer(HTTP.get(failure, failure), {"error": "as planned"})
            else:
                lists = {key: value.tolist() for key, value in outputs.items()}
                self.answer(200, {"outputs": lists})

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

    def as_dict(message):
        return json_format.MessageToDict(
            message, preserving_proto_field_name=True
        )

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


def fake_server(kind, plan, port=0):
    """Starts a gRPC or REST server that gives planned answers."""
    return (_grpc_server if kind == "grpc" else _rest_server)(plan, port)
