import threading

from keras_sspcab.layers.auxiliary_loss import (
    auxiliary_losses_disabled,
    auxiliary_losses_enabled,
)


def test_contexts_nest_and_end_with_errors():
    try:
        with auxiliary_losses_disabled():
            with auxiliary_losses_disabled():
                pass
            assert not auxiliary_losses_enabled()
            raise KeyError
    except KeyError:
        pass
    assert auxiliary_losses_enabled()


def test_context_holds_for_its_thread_only():
    seen = []
    with auxiliary_losses_disabled():
        thread = threading.Thread(
            target=lambda: seen.append(auxiliary_losses_enabled())
        )
        thread.start()
        thread.join()
    assert seen == [True]
