"""Places, time and memory: given in turn, and returned whatever happens."""

import asyncio

import pytest

from keras_sspcab.export.serving.server.errors import ServingError
from keras_sspcab.export.serving.server.limits import Limits
from keras_sspcab.export.serving.server.options import ServerOptions


def run(scenario, **options):
    asyncio.run(scenario(Limits(ServerOptions(**options))))


def test_memory_is_given_in_turn():
    async def scenario(limits):
        await limits.take_memory(80)
        order = []

        async def take(name, size):
            async with limits.memory(size):
                order.append(name)

        large = asyncio.create_task(take("large", 60))
        small = asyncio.create_task(take("small", 10))
        await asyncio.sleep(0)
        # There is room for the small one, but the large one came first.
        assert order == []
        limits.return_memory(80)
        await asyncio.gather(large, small)
        assert order == ["large", "small"]
        assert limits.work_bytes == 0

    run(scenario, max_work_bytes=100)


def test_who_goes_away_leaves_memory_to_others():
    async def scenario(limits):
        await limits.take_memory(100)
        tasks = [asyncio.create_task(limits.take_memory(100)) for _ in range(3)]
        await asyncio.sleep(0)
        tasks[0].cancel()  # while it waits
        await asyncio.sleep(0)
        limits.return_memory(100)
        tasks[1].cancel()  # when it has just been given memory
        await asyncio.wait(tasks)
        assert [task.cancelled() for task in tasks] == [True, True, False]
        assert limits.work_bytes == 100

    run(scenario, max_work_bytes=100)


def test_what_never_fits_is_refused():
    async def scenario(limits):
        with pytest.raises(ServingError, match="Send fewer rows") as error:
            await limits.take_memory(101)
        assert error.value.http == 413

    run(scenario, max_work_bytes=100)


def test_a_stop_ends_what_runs_and_what_comes():
    async def scenario(limits):
        async def answer():
            await asyncio.sleep(20)

        first = asyncio.create_task(limits.answer(answer()))
        await asyncio.sleep(0.01)
        limits.stop()
        for waiting in (first, limits.answer(answer())):
            with pytest.raises(ServingError, match="is stopping") as error:
                await waiting
            assert error.value.http == 503
        assert limits.pending == 0

    run(scenario)
