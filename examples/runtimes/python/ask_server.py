"""Asks a server about images; needs `pip install ".[transport]"` in a clone.

    python ask_server.py localhost:8500 screws photo.png ...

That is neither Keras nor TensorFlow. http://localhost:8501 works as well.
"""

import sys

from keras_sspcab.export import Client

address, model, *photos = sys.argv[1:]
with Client(address, model=model) as client:
    client.wait_until_ready(timeout=60)
    answers = client.predict(photos)
    for photo, prediction in zip(photos, answers, strict=True):
        print(
            f"{photo}: score {prediction.score:.6f}, "
            f"anomalous: {'yes' if prediction.is_anomalous else 'no'}, "
            f"highest: {prediction.anomaly_map.max():.6f}"
        )
