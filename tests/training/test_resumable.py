import os
import signal
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_sspcab import SSPCABLayer
from keras_sspcab.applications import AutoEncoder
from keras_sspcab.data.simulation import cutpaste_views
from keras_sspcab.training import TrainingDiverged, TrainingInterrupted, train
from keras_sspcab.training.checkpoint import (
    CheckpointError,
    TrainingState,
    read_checkpoint,
    write_checkpoint,
)

EPOCHS = 3
STEPS = 7

IMAGES = np.random.default_rng(0).random((26, 12, 12, 4), dtype="float32")


def make_dataset(epoch):
    """Images in an order of their own for each epoch; the last batch is short.

    The numbers of an epoch follow from its index alone.
    """
    order = np.random.default_rng(epoch).permutation(len(IMAGES))
    pairs = (IMAGES[order], IMAGES[order])
    return tf.data.Dataset.from_tensor_slices(pairs).batch(4)


def make_model(run_eagerly=True):
    """Makes a model with state in its norms, dropout, block and optimizer.

    By default its steps run eagerly, which saves the time to compile them.
    """
    keras.utils.set_random_seed(1)
    model = keras.Sequential(
        [
            keras.Input((12, 12, 4)),
            keras.layers.Conv2D(8, 3, padding="same"),
            keras.layers.BatchNormalization(),
            keras.layers.ReLU(),
            keras.layers.Dropout(0.3),
            SSPCABLayer(),
            keras.layers.Conv2D(4, 3, padding="same"),
        ]
    )
    model.compile(
        keras.optimizers.Adam(1e-2),
        "mse",
        metrics=["mae"],
        run_eagerly=run_eagerly,
    )
    return model


class After(keras.callbacks.Callback):
    """Calls a function after so many steps of this process."""

    def __init__(self, steps, function):
        super().__init__()
        self.steps, self.function = steps, function

    def on_train_batch_end(self, batch, logs=None):
        self.steps -= 1
        if self.steps == 0:
            self.function()


class Killed(BaseException):
    pass


def die():
    raise Killed


def run(folder, kill_after=0, function=die, run_eagerly=True, **options):
    model = make_model(run_eagerly)
    history = train(
        model,
        make_dataset,
        EPOCHS,
        str(folder / "checkpoint.npz"),
        history_csv=str(folder / "history.csv"),
        callbacks=[After(kill_after, function)],
        **{"every_steps": 2, **options},
    )
    return model, history


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    folder = tmp_path_factory.mktemp("reference")
    model, history = run(folder)
    return model.get_weights(), history, (folder / "history.csv").read_text()


def assert_same(weights, expected):
    for value, wanted in zip(weights, expected, strict=True):
        np.testing.assert_array_equal(value, wanted)


# === Continuing ===


@pytest.mark.parametrize(
    "kills",
    [
        (1, 4, STEPS - 2),  # before one; in the step of one; in the last step
        (STEPS + 1, 1, 2),  # after an epoch; without progress; in the second
    ],
)
def test_killed_training_ends_like_an_undisturbed_one(
    tmp_path, reference, kills
):
    for kill_after in kills:
        with pytest.raises(Killed):
            run(tmp_path, kill_after)
    model, history = run(tmp_path)
    weights, expected_history, expected_csv = reference
    assert_same(model.get_weights(), weights)
    assert history == expected_history
    assert (tmp_path / "history.csv").read_text() == expected_csv


def test_training_goes_on_from_the_checkpoint_and_not_from_the_start(tmp_path):
    with pytest.raises(Killed):
        run(tmp_path, STEPS + 5)
    state = read_checkpoint(str(tmp_path / "checkpoint.npz")).state
    assert (state.epoch, state.step) == (1, 4)
    assert [row["epoch"] for row in state.history] == [1]

    seen = []
    log = keras.callbacks.LambdaCallback(
        on_train_begin=lambda logs: seen.append("begin"),
        on_train_end=lambda logs: seen.append("end"),
        on_epoch_begin=lambda epoch, logs: seen.append(f"epoch {epoch}"),
        on_epoch_end=lambda epoch, logs: seen.append("epoch end"),
    )
    log.on_train_batch_end = lambda batch, logs=None: seen.append(batch)
    model = make_model()
    train(
        model,
        make_dataset,
        EPOCHS,
        str(tmp_path / "checkpoint.npz"),
        callbacks=[log],
    )
    assert seen == [
        "begin",
        "epoch 1",
        *range(4, STEPS),
        "epoch end",
        "epoch 2",
        *range(STEPS),
        "epoch end",
        "end",
    ]
    assert log.params == {
        "verbose": 0,
        "epochs": EPOCHS,
        "steps": STEPS,
        "first_epoch": 2,
        "first_step": 0,
    }


def test_epochs_are_added_and_a_finished_training_is_read(tmp_path, reference):
    path = str(tmp_path / "checkpoint.npz")
    train(make_model(), make_dataset, 1, path)
    run(tmp_path)
    (tmp_path / "history.csv").unlink()
    with pytest.raises(CheckpointError, match="3 epochs and 0 steps behind"):
        train(make_model(), make_dataset, 2, path)
    model, history = run(tmp_path, 1)  # would die in its first step
    assert_same(model.get_weights(), reference[0])
    assert history == reference[1]
    assert {"epoch", "loss", "mae", "sspcab_loss"} <= set(history[0])
    assert (tmp_path / "history.csv").read_text() == reference[2]


def test_results_equal_those_of_one_plain_fit(tmp_path):
    """A compiled training that was killed and resumed is no exception."""
    with pytest.raises(Killed):
        run(tmp_path, STEPS + 1, run_eagerly=False)
    trained, rows = run(tmp_path, run_eagerly=False)
    # Dropout draws from its own generator, so seeding epochs changes nothing.
    datasets = iter(map(make_dataset, range(EPOCHS)))
    joined = next(datasets)
    for dataset in datasets:
        joined = joined.concatenate(dataset)
    model = make_model(run_eagerly=False)
    history = model.fit(
        joined,
        epochs=EPOCHS,
        steps_per_epoch=STEPS,
        shuffle=False,
        verbose=0,
    ).history
    assert_same(trained.get_weights(), model.get_weights())
    assert history["loss"] == [row["loss"] for row in rows]


def test_checkpoints_are_due_by_time(tmp_path):
    with pytest.raises(Killed):
        run(tmp_path, 3, every_steps=0, every_seconds=1e-9)
    state = read_checkpoint(str(tmp_path / "checkpoint.npz")).state
    assert (state.epoch, state.step) == (0, 2)


@pytest.mark.slow
def test_hosts_simulate_the_same_after_a_kill_in_mixed_precision(tmp_path):
    images = np.random.default_rng(0).random((8, 32, 32, 3), dtype="float32")

    class Host(AutoEncoder):
        def prepare_training_data(self, data):
            # Its elements are others in each iteration.
            simulated = cutpaste_views(data, seed=np.random.randint(2**31))
            return simulated.map(lambda x, y: x)

    def start(name, kill_after=0):
        keras.utils.set_random_seed(5)
        before = keras.config.dtype_policy()
        keras.config.set_dtype_policy("mixed_float16")
        try:
            model = Host((32, 32, 3), filters=(4, 4, 2))
            model.compile(run_eagerly=True)
            history = train(
                model,
                lambda epoch: tf.data.Dataset.from_tensor_slices(images).batch(
                    2
                ),
                2,
                str(tmp_path / name),
                every_steps=1,
                callbacks=[After(kill_after, die)],
            )
        finally:
            keras.config.set_dtype_policy(before)
        return model, history

    model, history = start("whole.npz")
    assert isinstance(model.optimizer, keras.optimizers.LossScaleOptimizer)
    with pytest.raises(Killed):
        start("parts.npz", 3)
    again, history_again = start("parts.npz")
    assert_same(again.get_weights(), model.get_weights())
    assert history_again == history


def test_all_optimizers_of_a_host_are_kept(tmp_path):
    class Adversarial(keras.Sequential):
        def compile(self, **kwargs):
            super().compile(**kwargs)
            self.others = {"critic": keras.optimizers.SGD(0.1, momentum=0.9)}
            self.others["critic"].build(self.trainable_variables)

    def build():
        model = Adversarial([keras.Input((2,)), keras.layers.Dense(1)])
        model.compile(optimizer="sgd", loss="mse")
        return model

    path = str(tmp_path / "checkpoint.npz")
    model = build()
    for variable in model.others["critic"].variables:
        variable.assign(np.full(variable.shape, 7))
    write_checkpoint(path, model, TrainingState())
    restored = build()
    read_checkpoint(path).restore(restored)
    values = [np.asarray(v) for v in restored.others["critic"].variables]
    assert len(values) == 4
    for value in values:
        assert (value == 7).all()


def test_bfloat16_variables_survive_exactly(tmp_path):
    model = keras.Sequential(
        [keras.Input((3,)), keras.layers.Dense(2, dtype="bfloat16")]
    )
    model.compile("sgd", "mse")
    path = str(tmp_path / "checkpoint.npz")
    write_checkpoint(path, model, TrainingState())
    before = [np.asarray(v, "float32") for v in model.weights]
    for variable in model.weights:
        variable.assign(np.zeros(variable.shape))
    read_checkpoint(path).restore(model)
    for variable, value in zip(model.weights, before, strict=True):
        np.testing.assert_array_equal(np.asarray(variable, "float32"), value)


# === Stopping ===


@pytest.mark.parametrize(
    ("number", "steps"),
    [
        (signal.SIGINT, 3),
        (signal.SIGTERM, EPOCHS * STEPS),
    ],
)
def test_signals_stop_after_the_step_and_lose_nothing(
    tmp_path, reference, number, steps
):
    handlers = signal.getsignal(number)
    with pytest.raises(TrainingInterrupted, match="state is in") as caught:
        run(
            tmp_path,
            steps,
            lambda: os.kill(os.getpid(), number),
            every_steps=0,
        )
    assert caught.value.signal == number
    assert signal.getsignal(number) is handlers
    state = read_checkpoint(str(tmp_path / "checkpoint.npz")).state
    assert (state.epoch, state.step) == divmod(steps, STEPS)
    model, history = run(tmp_path)
    assert_same(model.get_weights(), reference[0])
    assert history == reference[1]


def test_second_interrupt_stops_at_once(tmp_path):
    def twice():
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt) as caught:
        run(tmp_path, 3, twice)
    assert not isinstance(caught.value, TrainingInterrupted)


def test_divergence_is_told_and_not_saved(tmp_path):
    path = str(tmp_path / "checkpoint.npz")
    model = make_model()
    train(model, make_dataset, 1, path)
    model.optimizer.learning_rate = 1e30

    class TooFast(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            self.model.get_layer(index=0).kernel.assign(
                np.full((3, 3, 4, 8), np.inf)
            )

        on_train_batch_begin = on_epoch_begin

    model = make_model()
    with pytest.raises(
        TrainingDiverged,
        match=r"epoch 2, step 1 of 7, at learning rate 0\.01\. Use a smaller",
    ):
        train(
            model,
            make_dataset,
            EPOCHS,
            path,
            every_steps=1,
            callbacks=[TooFast()],
        )
    kept = read_checkpoint(path)
    assert (kept.state.epoch, kept.state.step) == (1, 0)
    assert all(np.isfinite(array).all() for array in kept.arrays)


# === Checkpoints ===


@pytest.fixture(scope="module")
def checkpoint_bytes(tmp_path_factory):
    path = tmp_path_factory.mktemp("checkpoint") / "c.npz"
    model = make_model()
    train(model, make_dataset, 1, str(path), settings={"batch": 4})
    return path.read_bytes()


def _npz(**arrays):
    def write(path, _):
        np.savez(path, **arrays)

    return write


@pytest.mark.parametrize(
    "damage",
    [
        lambda path, content: path.write_bytes(b""),
        lambda path, content: path.write_bytes(content[:-1]),
        lambda path, content: path.write_bytes(
            content[:5000] + bytes(64) + content[5064:]
        ),
        lambda path, content: path.write_bytes(b"\x80\x04N."),  # a pickle
        _npz(weights=np.ones(3)),
        _npz(description=np.array('{"format": "other"}')),
        _npz(description=np.array("[]")),
        _npz(description=np.array({"format": 1}, dtype=object)),
    ],
)
def test_broken_checkpoint_is_named_and_left_alone(
    tmp_path, checkpoint_bytes, damage
):
    path = tmp_path / "checkpoint.npz"
    damage(path, checkpoint_bytes)
    content = path.read_bytes()
    with pytest.raises(CheckpointError, match="checkpoint.npz is no checkp"):
        train(make_model(), make_dataset, 2, str(path))
    assert path.read_bytes() == content


def test_damaged_checkpoints_are_named_or_whole(tmp_path, checkpoint_bytes):
    path, rng = tmp_path / "checkpoint.npz", np.random.default_rng(0)
    path.write_bytes(checkpoint_bytes)
    whole, refused = read_checkpoint(str(path)), 0
    for _ in range(200):
        damaged = bytearray(checkpoint_bytes)
        damaged[rng.integers(len(damaged))] = rng.integers(256)
        path.write_bytes(damaged)
        try:
            found = read_checkpoint(str(path))
        except CheckpointError:  # nothing else
            refused += 1
            continue
        assert found.state == whole.state
        assert_same(found.arrays, whole.arrays)
    assert refused > 100


def test_checkpoint_of_another_training_is_refused(tmp_path, checkpoint_bytes):
    path = tmp_path / "checkpoint.npz"
    path.write_bytes(checkpoint_bytes)
    other = keras.Sequential(
        [keras.Input((12, 12, 4)), keras.layers.Conv2D(4, 1)]
    )
    other.compile("adam", "mse")
    before = other.get_weights()
    with pytest.raises(CheckpointError, match="checkpoint of another model"):
        train(other, make_dataset, 2, str(path), settings={"batch": 4})
    assert_same(other.get_weights(), before)
    with pytest.raises(CheckpointError, match=r"batch=4. Received: batch=8"):
        train(make_model(), make_dataset, 2, str(path), settings={"batch": 8})


def test_settings_come_back_as_they_were(tmp_path):
    path, settings = str(tmp_path / "c.npz"), {"size": (64, 64)}
    train(make_model(), make_dataset, 1, path, settings=settings)
    rows = train(make_model(), make_dataset, 1, path, settings=settings)
    assert len(rows) == 1
    with pytest.raises(TypeError, match="not JSON"):
        train(make_model(), make_dataset, 1, path, settings={"a": IMAGES[0, 0]})


def test_callbacks_stop_the_training(tmp_path):
    class Stop(keras.callbacks.Callback):
        ended = 0

        def on_epoch_end(self, epoch, logs=None):
            self.model.stop_training = epoch == 1

        def on_train_end(self, logs=None):
            self.ended += 1

    path, stop = str(tmp_path / "c.npz"), Stop()
    rows = train(make_model(), make_dataset, 4, path, callbacks=[stop])
    assert len(rows) == 2
    assert stop.ended == 1
    again = train(make_model(), make_dataset, 4, path)
    assert len(again) == 4
    assert again[:2] == rows


def test_rates_of_callbacks_hold_when_a_training_goes_on(tmp_path):
    def train_in_parts(*ends):
        path = str(tmp_path / f"{len(ends)}.npz")
        for end in ends:
            model = make_model()
            schedule = keras.callbacks.LearningRateScheduler(
                lambda epoch: 0.1 ** (epoch + 1)
            )
            train(model, make_dataset, end, path, callbacks=[schedule])
        return model.get_weights()

    assert_same(train_in_parts(1, 2), train_in_parts(2))


def test_data_that_became_shorter_are_refused(tmp_path):
    with pytest.raises(Killed):
        run(tmp_path, 5)
    with pytest.raises(CheckpointError, match="step 4 of an epoch that has 3"):
        train(
            make_model(),
            lambda epoch: make_dataset(epoch).take(3),
            2,
            str(tmp_path / "checkpoint.npz"),
        )


def test_failed_write_keeps_the_checkpoint_before(
    tmp_path, checkpoint_bytes, monkeypatch
):
    path = tmp_path / "checkpoint.npz"
    path.write_bytes(checkpoint_bytes)

    def savez(file, **arrays):
        Path(file).write_bytes(b"half of it")
        raise OSError("disk full")

    monkeypatch.setattr(np, "savez", savez)
    with pytest.raises(OSError, match="disk full"):
        write_checkpoint(str(path), make_model(), TrainingState())
    assert path.read_bytes() == checkpoint_bytes
    assert [file.name for file in tmp_path.iterdir()] == ["checkpoint.npz"]


# === Arguments ===


def test_arguments_are_checked(tmp_path):
    path = str(tmp_path / "c.npz")
    model = make_model()
    assert train(model, make_dataset, 0, path) == []
    with pytest.raises(ValueError, match=r"end in \.npz"):
        train(model, make_dataset, 1, str(tmp_path / "c.h5"))
    for change, message in (
        (lambda data: data.take(0), "cardinality 0 in epoch 1"),
        (lambda data: data.filter(lambda x, y: True), "cardinality -2"),
    ):
        with pytest.raises(ValueError, match=message):
            train(
                model, lambda epoch, f=change: f(make_dataset(epoch)), 1, path
            )
    averaging = keras.optimizers.SGD(use_ema=True)
    # As in mixed precision.
    scaling = keras.optimizers.LossScaleOptimizer(averaging)
    for optimizer in (averaging, scaling):
        model.compile(optimizer, "mse")
        with pytest.raises(ValueError, match="without it, or with `fit`"):
            train(model, make_dataset, 1, path)
