"""Requests are joined while the model is busy, and nobody notices."""

import asyncio
import concurrent.futures
import threading

import numpy as np
import pytest
import tensorflow as tf

from keras_sspcab.export.serving.server.batching import Batcher, Part
from keras_sspcab.export.serving.server.signature import Signature
from tests.export.serving.models import direct, encoded, images
from tests.export.serving.served import (
    Gate,
    b64,
    http_call,
    in_threads,
    metric,
    predict_path,
    serve,
    wait_until,
)


class Model:
    """Doubles numbers, and waits to be let go."""

    def __init__(self):
        self.batches = []
        self.may_run = threading.Semaphore(0)

    def __call__(self, inputs):
        self.may_run.acquire()
        self.batches.append(inputs["x"].tolist())
        if -1 in inputs["x"]:
            raise ValueError("minus one")
        return {"y": inputs["x"] * 2}

    def let_go(self, runs=100):
        for _ in range(runs):
            self.may_run.release()


def play(scenario, model_type=Model, **options):
    """Runs requests with a batcher; returns the batches and the results.

    A scenario submits them and returns them; then the model may run.
    """
    options = {
        "threads": 1,
        "max_rows": 4,
        "max_cost": 100,
        "timeout": 60.0,
        **options,
    }
    model = model_type()

    async def run():
        with concurrent.futures.ThreadPoolExecutor(options["threads"]) as pool:
            batcher = Batcher(pool, observe=lambda *_: None, **options)

            def submit(*values, key="key", cost=0):
                part = Part({"x": np.array(values)}, len(values), cost)
                return asyncio.ensure_future(batcher.run(key, model, part))

            requests = await asyncio.wait_for(scenario(submit, batcher), 60)
            await asyncio.sleep(0)
            model.let_go()
            return await asyncio.gather(*requests, return_exceptions=True)

    results = [
        result["y"].tolist() if isinstance(result, dict) else result
        for result in asyncio.run(run())
    ]
    return model.batches, results


def test_the_first_runs_at_once_and_others_join():
    async def scenario(submit, batcher):
        requests = [submit(1), submit(2, 3), submit(4), submit(5)]
        await asyncio.sleep(0)
        assert batcher.waiting == 3
        return requests

    batches, results = play(scenario)
    assert batches == [[1], [2, 3, 4, 5]]
    assert results == [[2], [4, 6], [8], [10]]


@pytest.mark.parametrize(
    ("cost", "limits"), [(0, {"max_rows": 7}), (40, {"max_rows": 99})]
)
def test_a_batch_has_a_largest_size_and_cost(cost, limits):
    async def scenario(submit, batcher):
        return [submit(n, n, n, cost=cost) for n in range(4)]

    batches, results = play(scenario, **limits)
    assert batches == [[0] * 3, [1] * 3 + [2] * 3, [3] * 3]
    assert results == [[2 * n] * 3 for n in range(4)]


def test_a_full_batch_runs_beside_the_first():
    async def scenario(submit, batcher):
        requests = [submit(1), submit(2), submit(3, 4, 5)]
        await asyncio.sleep(0)
        assert batcher.waiting == 0
        return requests

    assert sorted(play(scenario, threads=2)[0]) == [[1], [2, 3, 4, 5]]


def test_nobody_waits_longer_than_the_timeout():
    async def scenario(submit, batcher):
        requests = [submit(1), submit(2)]
        await asyncio.sleep(0)
        assert batcher.waiting == 1
        while batcher.waiting:
            await asyncio.sleep(0.005)
        return requests

    assert sorted(play(scenario, threads=2, timeout=0.05)[0]) == [[1], [2]]


def test_other_keys_are_not_joined():
    async def scenario(submit, batcher):
        return [submit(1), submit(2, key="a"), submit(3, key="b")]

    batches, results = play(scenario)
    assert sorted(batches) == [[1], [2], [3]]
    assert results == [[2], [4], [6]]


def test_a_busy_key_does_not_starve_others():
    async def scenario(submit, batcher):
        return [
            *(submit(n, n, n, n) for n in range(1, 4)),
            submit(9, key="other"),
            *(submit(n, n, n, n) for n in range(4, 7)),
        ]

    batches, _ = play(scenario)
    assert [batch[0] for batch in batches] == [1, 2, 3, 9, 4, 5, 6]


def test_requests_of_clients_that_have_gone_are_not_run():
    async def scenario(submit, batcher):
        requests = [submit(1), submit(2), submit(3)]
        await asyncio.sleep(0)
        requests.pop(1).cancel()
        await asyncio.sleep(0)
        return requests

    assert play(scenario) == ([[1], [3]], [[2], [6]])


def test_an_error_is_that_of_one_request():
    async def scenario(submit, batcher):
        return [submit(0), submit(1), submit(-1), submit(2)]

    batches, results = play(scenario)
    assert batches == [[0], [1, -1, 2], [1], [-1], [2]]
    assert results[:2] + results[3:] == [[0], [2], [4]]
    assert str(results[2]) == "minus one"


def test_outputs_without_rows_are_not_split():
    class Total(Model):
        def __call__(self, inputs):
            return {"y": super().__call__(inputs)["y"].sum(keepdims=True)}

    async def scenario(submit, batcher):
        return [submit(0), submit(1, 2), submit(3)]

    assert play(scenario, Total)[1] == [[0], [6], [6]]


def test_batches_for_xla_are_padded_to_powers_of_two():
    spec = tf.TensorSpec((None, 2), tf.float32)
    sizes = []

    def double(x):
        sizes.append(len(x))
        return {"y": 2 * x}

    signature = Signature("", {"x": spec}, {"y": spec}, double, True)
    for rows in (1, 3, 4, 5):
        outputs = signature.run({"x": np.ones((rows, 2), "float32")})
        np.testing.assert_array_equal(outputs["y"], np.full((rows, 2), 2))
    assert sizes == [1, 4, 4, 8]


@pytest.fixture(scope="module")
def server():
    with serve(threads=1, max_batch_size=8, batch_timeout=5.0) as server:
        yield server


def test_a_broken_image_harms_nobody_else(server, monkeypatch):
    """Its header is sound: only TensorFlow finds out, amid the batch."""
    good = encoded(images(1)[0])
    broken = good[:-40]
    files = [good, good, broken, good]
    expected = direct("serving_bytes", image_bytes=[good])
    gate = Gate(monkeypatch)

    def ask(file):
        body = {"signature_name": "serving_bytes", "instances": [b64(file)]}
        return http_call(server, predict_path(), body)

    def open_when_all_wait():
        assert gate.entered.acquire(timeout=20)
        wait_until(lambda: metric(server, "keras_sspcab_waiting_requests") == 3)
        gate.open()

    *answers, failure = in_threads(
        [*(lambda file=file: ask(file) for file in files), open_when_all_wait]
    )
    assert failure is None
    assert [status for status, _ in answers] == [200, 200, 400, 200]
    del answers[2]
    scores = [a["predictions"][0]["anomaly_score"] for _, a in answers]
    np.testing.assert_allclose(
        scores, expected["anomaly_score"].repeat(3), rtol=1e-4
    )
