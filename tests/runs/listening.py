"""A listener to runs, for their tests."""

from keras_sspcab.runs import Progress


class Listener(Progress):
    """Keeps the messages of a run."""

    def __init__(self):
        self.texts = []

    def message(self, text):
        self.texts.append(text)
